"""Tokens per second that a decoder of the shape of stories260k samples and trains on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from experiments.benchmark.measuring import Measure, Variant, queued
from experiments.benchmark.peers.other_python import interpreter, process
from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel, logits
from rl_jax.language.sampler import Sampling, sample

LEARNING_RATE = 1e-3
BATCH_SIZE, MICRO_BATCHES = 16, 4
# By size: the decoder; tokens of a prompt, of its sample, and of a row to train on.
SIZES = {
    "tiny": (DecoderConfig(32, 16, 1, 2, 1, 8, 24, tied=True, context_length=16), 4, 4, 16),
    "small": (DecoderConfig(512, 64, 5, 8, 4, 8, 172, tied=True, context_length=512), 16, 128, 256),
}


def suite(measure: Measure, size: str = "small", transformers_python: str = "") -> dict[str, Any]:
    """The figures of a decoder of SIZES with random weights.

    Args:
      transformers_python: an interpreter that has torch and transformers, to measure these beside; "" for none.

    Raises:
      ValueError: there is no such interpreter, or what it runs is not our decoder.
    """
    python = interpreter("transformers_python", transformers_python)
    config, prompt, new, row = SIZES[size]
    rng = np.random.default_rng(0)
    prompts, rows = (rng.integers(0, config.vocab_size, (BATCH_SIZE, length)) for length in (prompt, row))
    network = Decoder(config, remat=True)
    example = jnp.zeros((1, 1), jnp.int32)
    params = jax.jit(network.init)(jax.random.key(0), example, example, example)["params"]
    parameters = sum(x.size for x in jax.tree.leaves(params))
    variants = {"sample": sampling(config, params, prompts, new), "train": training(network, params, rows)}
    if python:
        told = dataclasses.asdict(config) | {
            "device": "cpu" if jax.default_backend() == "cpu" else "cuda", "prompts": prompts.tolist(),
            "rows": rows.tolist(), "max_new_tokens": new, "learning_rate": LEARNING_RATE,
        }
        script = "transformers_process.py"
        with process("transformers_python", python, script, told, parameters, list(variants)) as theirs:
            rate = measure(variants | {f"transformers_{name}": theirs[name] for name in variants})
    else:
        logging.info("--transformers_python is not given: ours is measured alone")
        rate = measure(variants)
    result = {
        "suite": "language", "device": jax.devices()[0].device_kind, "size": size, "parameters": parameters,
        "batch_size": BATCH_SIZE,
    }
    for name, figure in (("sample", "sampled_tokens_per_s"), ("train", "trained_tokens_per_s")):
        result[figure] = rate[name]
        if f"transformers_{name}" in rate:
            peer = rate[f"transformers_{name}"]
            result |= {f"transformers_{figure}": peer, f"ratio_to_transformers_{figure}": rate[name] / peer}
    return result


def sampling(config: DecoderConfig, params: Any, prompts: np.ndarray, new: int) -> Variant:
    """What samples `new` tokens after each of the prompts [B, T0], at temperature 1; it counts tokens."""
    lengths, told = np.full(len(prompts), prompts.shape[1]), Sampling(max_new_tokens=new)

    def step(_: Any, key: jax.Array) -> jax.Array:
        return sample(config, params, prompts, lengths, 1, told, key).tokens

    return queued(step, None, fused=len(prompts) * new, calls=1)


def training(network: Decoder, params: Any, rows: np.ndarray) -> Variant:
    """An update of all parameters by Adam on the next token's mean log-likelihood in rows [B, T]; it counts tokens.

    In micro-batches, which a processor's cache holds longer. (The peer is slower so, and takes the batch whole.)
    """
    optimizer = optax.adam(LEARNING_RATE)
    parts = jnp.asarray(rows).reshape(MICRO_BATCHES, -1, rows.shape[1])
    segments = jnp.ones(parts.shape[1:], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), segments.shape)

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        hidden = network.apply({"params": params}, tokens, positions, segments)
        scores = logits(hidden[:, :-1], head_kernel(params, network.config))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, tokens[:, 1:])) / MICRO_BATCHES

    @jax.jit
    def step(state: tuple, key: jax.Array) -> tuple:
        del key
        params, moments = state

        def add(total: Any, tokens: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, jax.grad(loss)(params, tokens)), None

        gradient, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)
        updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), moments

    return queued(step, (params, optimizer.init(params)), fused=rows.size, calls=1)
