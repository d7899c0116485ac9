"""Tokens per second that a decoder samples, trains on and scores; what share of a matrix product's speed that is.

And steps of GRPO per second, with the shares of their time in which responses are sampled, scored and learnt from.
"""

import dataclasses
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from experiments.benchmark.measuring import Measure, Variant, queued, sgemm
from experiments.benchmark.peers.other_python import interpreter, process
from rl_jax.core.program import PyTree, TrainState
from rl_jax.language import curriculum, grpo
from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel, logits
from rl_jax.language.questions import Questions, Words
from rl_jax.language.reward_pool import Scorer
from rl_jax.language.sampler import Sampling, sample
from rl_jax.language.scoring import token_log_probs

LEARNING_RATE = 1e-3


class Size(NamedTuple):
    """A decoder with random weights, and how much of it is done at once.

    Attributes:
      config: its shape.
      does: of "sample", "train", "score" and "grpo".
      batch_size: rows.
      micro_batches: of an update.
      prompt, new, row: tokens of a prompt, of its sample, and of a row that is trained on or scored.
      dtype: of the layers' products, of the cache and of the matrix product beside.
    """

    config: DecoderConfig
    does: tuple[str, ...]
    batch_size: int
    micro_batches: int
    prompt: int
    new: int
    row: int
    dtype: Any = jnp.float32


ALL = ("sample", "train", "score", "grpo")
SAMPLES = 4  # of GRPO's, to a prompt
SIZES = {
    "tiny": Size(DecoderConfig(32, 16, 1, 2, 1, 8, 24, tied=True, context_length=16), ALL, 16, 4, 4, 4, 16),
    # stories260k
    "small": Size(DecoderConfig(512, 64, 5, 8, 4, 8, 172, tied=True, context_length=512), ALL, 16, 4, 16, 128, 256),
    # On a CPU too: scoring alone.
    "smollm2": Size(
        DecoderConfig(49_152, 576, 30, 9, 3, 64, 1536, 1e5, tied=True, context_length=8192), ("score",), 4, 1, 1, 1, 256
    ),
    # Qwen 2.5 of 0.5 and 1.5 billion parameters, for a GPU.
    "0.5b": Size(
        DecoderConfig(151_936, 896, 24, 14, 2, 64, 4864, 1e6, tied=True, qkv_bias=True, context_length=32_768), ALL,
        64, 16, 128, 128, 2048, jnp.bfloat16,
    ),
    "1.5b": Size(
        DecoderConfig(151_936, 1536, 28, 12, 2, 128, 8960, 1e6, tied=True, qkv_bias=True, context_length=32_768), ALL,
        64, 32, 128, 128, 2048, jnp.bfloat16,
    ),
}


def suite(measure: Measure, size: str = "small", transformers_python: str = "") -> dict[str, Any]:
    """The figures of a decoder of SIZES with random weights.

    `share_of_matmul_*` are the operations a second of training and scoring over those of a product of matrices in the
    same dtype; `weight_bytes_per_s` is what sampling reads of the weights, which bounds it at small batches.

    Args:
      transformers_python: an interpreter that has torch and transformers, to measure these beside; "" for none.

    Raises:
      ValueError: there is no such interpreter, or what it runs is not our decoder.
    """
    python = interpreter("transformers_python", transformers_python)
    scale = SIZES[size]
    config = scale.config
    rng = np.random.default_rng(0)
    prompts, rows = (
        rng.integers(0, config.vocab_size, (scale.batch_size, length)) for length in (scale.prompt, scale.row)
    )
    network = Decoder(config, scale.dtype, remat=True, packed=False)
    example = jnp.zeros((1, 1), jnp.int32)
    params = jax.jit(network.init)(jax.random.key(0), example, example, example)["params"]
    parameters = sum(x.size for x in jax.tree.leaves(params))
    seconds: dict[str, float] = {}
    made = {
        "grpo": lambda: learning(scale, params, prompts, seconds),
        "sample": lambda: sampling(scale, params, prompts), "train": lambda: training(scale, network, params, rows),
        "score": lambda: scoring(network, params, rows),
    }
    variants = {name: made[name]() for name in scale.does}
    matmul = {"matmul": sgemm(2048 if size in ("tiny", "small", "smollm2") else 8192, scale.dtype)}
    shared = [name for name in ("sample", "train") if name in scale.does]
    if python:
        told = dataclasses.asdict(config) | {
            "device": "cpu" if jax.default_backend() == "cpu" else "cuda", "prompts": prompts.tolist(),
            "rows": rows.tolist(), "max_new_tokens": scale.new, "learning_rate": LEARNING_RATE,
        }
        script = "transformers_process.py"
        with process("transformers_python", python, script, told, parameters, shared) as theirs:
            rate = measure(variants | matmul | {f"transformers_{name}": theirs[name] for name in shared})
    else:
        logging.info("--transformers_python is not given: ours is measured alone")
        rate = measure(variants | matmul)
    result = {
        "suite": "language", "device": jax.devices()[0].device_kind, "size": size, "parameters": parameters,
        "batch_size": scale.batch_size, "dtype": jnp.dtype(scale.dtype).name,
    }
    # Of one token, forward: products with all weights (a tied embedding is the head), and attention to half a row.
    operations = 2 * parameters + 2 * scale.row * config.num_layers * config.num_heads * config.head_dim
    for name, times in {"train": 3, "score": 1}.items():
        if name in scale.does:
            result[f"share_of_matmul_{name}"] = times * operations * rate[name] / rate["matmul"]
    if "sample" in scale.does:
        read = parameters * jnp.dtype(scale.dtype).itemsize
        result["weight_bytes_per_s"] = read * rate["sample"] / scale.batch_size
    figures = {"sample": "sampled_tokens_per_s", "train": "trained_tokens_per_s", "score": "scored_tokens_per_s"}
    if "grpo" in scale.does:
        result["grpo_steps_per_s"] = rate["grpo"]
        total = sum(seconds.values())
        result |= {f"grpo_share_{name}": spent / total for name, spent in seconds.items()}
    for name in figures.keys() & set(scale.does):
        result[figures[name]] = rate[name]
        if f"transformers_{name}" in rate:
            peer = rate[f"transformers_{name}"]
            result[f"transformers_{figures[name]}"] = peer
            result[f"ratio_to_transformers_{figures[name]}"] = rate[name] / peer
    return result


def sampling(scale: Size, params: PyTree, prompts: np.ndarray) -> Variant:
    """What samples after each of the prompts [B, T0], at temperature 1; it counts tokens."""
    lengths, told = np.full(len(prompts), prompts.shape[1]), Sampling(max_new_tokens=scale.new)

    def step(_: Any, key: jax.Array) -> jax.Array:
        return sample(scale.config, params, prompts, lengths, 1, told, key, dtype=scale.dtype).tokens

    return queued(step, None, fused=len(prompts) * scale.new, calls=1)


def training(scale: Size, network: Decoder, params: PyTree, rows: np.ndarray) -> Variant:
    """An update of all parameters by Adam on the next token's mean log-likelihood in rows [B, T]; it counts tokens.

    In micro-batches, which a processor's cache holds longer. (The peer is slower so, and takes the batch whole.)
    """
    optimizer = optax.adam(LEARNING_RATE)
    parts = jnp.asarray(rows).reshape(scale.micro_batches, -1, rows.shape[1])
    segments = jnp.ones(parts.shape[1:], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), segments.shape)

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        hidden = network.apply({"params": params}, tokens, positions, segments)
        scores = logits(hidden[:, :-1], head_kernel(params, network.config))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, tokens[:, 1:])) / scale.micro_batches

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


def learning(scale: Size, params: PyTree, prompts: np.ndarray, seconds: dict[str, float]) -> Variant:
    """Steps of GRPO from the prompts [B, T0], SAMPLES responses to each of a part of them; it counts steps.

    Responses are as long as may be, and a rule reads the last number of each.

    Args:
      seconds: gathers the time of "generate", "score" and "update" in all calls but the first, which compiles.
    """
    config = ConfigDict({"batch_size": scale.batch_size, "num_steps": 10_000, "overlap": 0})
    config.agent, config.curriculum = grpo.default_config(), curriculum.default_config()
    config.agent.update({
        "samples": SAMPLES, "max_new_tokens": scale.new, "micro_batches": scale.micro_batches, "remat": True,
        "dtype": jnp.dtype(scale.dtype).name,
    })
    rows = [{"source": "made up", "answer": "7"}] * len(prompts)
    asked = Questions(prompts, np.full(len(prompts), prompts.shape[1]), rows)
    words = Words(lambda tokens: " ".join(map(str, tokens)), ())
    program = grpo.grpo_program(config, scale.config, params, words, asked, asked, Scorer("numeric"))

    def all_runs(state: TrainState) -> TrainState:
        return jax.tree.map(lambda x: x[None], state.replace(step=None)).replace(step=state.step)

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, resident: PyTree, batch: PyTree) -> TrainState:
        own, batch = jax.tree.map(lambda x: x[0], (state.replace(step=None), batch))
        own, _ = program.step(own.replace(step=state.step), resident, batch, jax.random.key(0))
        return all_runs(own.replace(step=state.step + 1))

    carry = [jax.jit(lambda: all_runs(program.init(jax.random.key(0), program.resident)))()]

    def run() -> int:
        began, number = time.perf_counter(), int(carry[0].step)
        keys = jax.random.split(jax.random.key(number), 1)
        batch, found = program.feed.collect(carry[0], program.resident, keys, number)
        carry[0] = jax.block_until_ready(step(carry[0], program.resident, batch))
        if number:
            spent = {name: found[f"time/{name}_seconds"] for name in ("generate", "score")}
            spent["update"] = time.perf_counter() - began - sum(spent.values())
            seconds.update({name: seconds.get(name, 0.0) + x for name, x in spent.items()})
        return 1

    return Variant(run)


def scoring(network: Decoder, params: PyTree, rows: np.ndarray) -> Variant:
    """The log-probs of the tokens of rows [B, T]; it counts tokens."""
    segments = jnp.ones(rows.shape, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)

    @jax.jit
    def score(params: PyTree, rows: jax.Array) -> jax.Array:
        hidden = network.apply({"params": params}, rows, positions, segments)
        return jnp.sum(token_log_probs(hidden, head_kernel(params, network.config), rows)[0])

    rows = jnp.asarray(rows)
    return queued(lambda state, key: score(params, rows), None, fused=rows.size, calls=1)
