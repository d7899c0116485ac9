"""Tiny decoders of each family beside transformers: logits, and the greedy text that follows."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel, logits
from rl_jax.language.sampler import Sampling, sample
from tests.golden.make_language import MODELS
from tests.golden.weights import weight

GOLDEN = np.load(Path(__file__).with_name("language.npz"))
TOKENS = GOLDEN["tokens"]


def decoder(name):
    """The configuration and parameters that transformers had, by its names and its layout of kernels."""
    told = json.loads(str(GOLDEN[f"{name}/config"]))
    scaling = dict(told["rope_parameters"])
    theta = scaling.pop("rope_theta")
    config = DecoderConfig(
        told["vocab_size"], told["hidden_size"], told["num_hidden_layers"], told["num_attention_heads"],
        told["num_key_value_heads"], told.get("head_dim") or told["hidden_size"] // told["num_attention_heads"],
        told["intermediate_size"], theta, scaling, told["rms_norm_eps"], told["tie_word_embeddings"],
        told["model_type"] == "qwen2", told["model_type"] == "qwen3", told["max_position_embeddings"],
    )
    shapes = dict(line.split(" ", 1) for line in GOLDEN[f"{name}/names"])

    def of(path):
        return weight(path, tuple(int(n) for n in shapes[path].strip("(),").split(",")))

    def stacked(path):
        return np.stack([of(f"model.layers.{i}.{path}") for i in range(config.num_layers)])

    def linear(path):
        biases = {"bias": stacked(f"{path}.bias")} if f"model.layers.0.{path}.bias" in shapes else {}
        return {"kernel": stacked(f"{path}.weight").swapaxes(1, 2), **biases}

    attention = {part: linear(f"self_attn.{part}_proj") for part in "qkvo"}
    if config.qk_norm:
        attention |= {norm: {"scale": stacked(f"self_attn.{norm}.weight")} for norm in ("q_norm", "k_norm")}
    params = {
        "embed": {"embedding": of("model.embed_tokens.weight")},
        "layers": {
            "input_norm": {"scale": stacked("input_layernorm.weight")}, "attention": attention,
            "post_norm": {"scale": stacked("post_attention_layernorm.weight")},
            "mlp": {part: linear(f"mlp.{part}_proj") for part in ("gate", "up", "down")},
        },
        "norm": {"scale": of("model.norm.weight")},
    }
    if not config.tied:
        params["head"] = {"kernel": of("lm_head.weight").T}
    return config, jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_the_greedy_text_are_those_of_transformers(name):
    config, params = decoder(name)
    network = Decoder(config)
    batch, length = TOKENS.shape
    positions = jnp.tile(jnp.arange(length), (batch, 1))
    shapes = jax.eval_shape(network.init, jax.random.key(0), TOKENS, positions, positions)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda x: x.shape, shapes)
    hidden = jax.jit(network.apply)({"params": params}, TOKENS, positions, jnp.ones_like(positions))
    np.testing.assert_allclose(logits(hidden, head_kernel(params, config)), GOLDEN[f"{name}/logits"], atol=2e-5)
    greedy = GOLDEN[f"{name}/greedy"]
    sampling = Sampling(temperature=0.0, max_new_tokens=greedy.shape[1])
    found = sample(config, params, TOKENS, np.full(batch, length), 1, sampling, jax.random.key(0))
    np.testing.assert_array_equal(found.tokens[:, length:], greedy)
