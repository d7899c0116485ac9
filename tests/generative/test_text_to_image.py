"""The small text-conditioned model: its tokenizer, its networks together, and the loss of its autoencoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.clip import TextConfig
from rl_jax.generative.text_to_image import TextToImage
from rl_jax.generative.tokenizer import END, START, learn_tokenizer, load_tokenizer, save_tokenizer
from rl_jax.generative.unet import UNetConfig
from rl_jax.generative.vae import AutoencoderKL, VAEConfig, autoencoder_loss


def test_each_word_of_the_corpus_becomes_one_token():
    tokenizer = learn_tokenizer(["low lower", "low newest", "t rex"], 6)
    for word in ("low", "lower", "newest", "rex", "t"):
        assert tokenizer.split(word) == [word + "</w>"]
    # "lo" stands in three words, and so does "w</w>" in two: Sennrich et al., algorithm 1, joins the first before.
    assert tokenizer.merges[0] == ("l", "o")
    start, end = tokenizer.vocab[START], tokenizer.vocab[END]
    assert tokenizer.encode(["T  rex"]).tolist() == [
        [start, tokenizer.vocab["t</w>"], tokenizer.vocab["rex</w>"], end, end, end]
    ]
    assert sorted(tokenizer.vocab.values()) == list(range(len(tokenizer.vocab)))


def test_other_words_are_split_and_long_prompts_refused(tmp_path):
    tokenizer = learn_tokenizer(["low lower"], 6)
    assert "".join(tokenizer.split("slowest")) == "slowest</w>" and len(tokenizer.split("slowest")) > 1
    with pytest.raises(ValueError, match="a prompt has 5 tokens and the text encoder reads 4"):
        tokenizer.encode(["low low low low low"])
    save_tokenizer(tokenizer, tmp_path)
    assert load_tokenizer(tmp_path).encode(["lower slow"]).tolist() == tokenizer.encode(["lower slow"]).tolist()


@pytest.mark.slow
def test_text_steers_the_image():
    unet = UNetConfig(  # one level; the middle attends to the text
        in_channels=4, out_channels=4, block_out_channels=(8,), down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",), layers_per_block=1, attention_head_dim=2, norm_num_groups=4,
    )
    text = TextConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20,
        max_position_embeddings=4,
    )
    model = TextToImage(unet, text)
    x, labels, tokens = jnp.ones((2, 4, 4, 4)), jnp.zeros(2), jnp.array([[1, 2, 3, 3], [1, 5, 3, 3]])
    fresh, apply = jax.jit(model.init)(jax.random.key(0), x, labels, tokens), jax.jit(model.apply)
    np.testing.assert_array_equal(apply(fresh, x, labels, tokens), 0.0)
    draws = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * draws.normal(size=leaf.shape).astype(np.float32), fresh)
    first, second = apply(params, x, labels, tokens)
    assert first.shape == (4, 4, 4) and float(jnp.abs(first - second).max()) > 1e-3
    noisier = apply(params, x, labels + 1.0, tokens)
    assert float(jnp.abs(noisier[0] - first).max()) > 1e-3


def test_autoencoder_loss_by_its_parts():
    module = AutoencoderKL(
        VAEConfig(block_out_channels=(4,), layers_per_block=1, norm_num_groups=2, latent_channels=2)
    )
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3), minval=-1.0)
    params = jax.jit(module.init)(jax.random.key(1), images)
    loss, info = jax.jit(functools.partial(autoencoder_loss, module, kl_weight=0.25))(params, images, jax.random.key(2))
    encode, decode = (jax.jit(functools.partial(module.apply, method=method)) for method in ("encode", "decode"))
    mean, deviation = (np.asarray(x, np.float64) for x in encode(params, images))
    draw = jax.random.normal(jax.random.key(2), mean.shape)
    decoded = decode(params, jnp.asarray(mean + deviation * draw, jnp.float32))
    np.testing.assert_allclose(info["model/error"], np.abs(decoded - images).mean(), rtol=1e-4)
    # The divergence of N(m, s^2) from N(0, 1), numerically: the mean over draws of the densities' log-ratio.
    mean, deviation = mean.ravel() / 0.18215, deviation.ravel() / 0.18215
    points = mean + deviation * np.random.default_rng(0).normal(size=(20_000, 1))
    ratio = (points**2 - ((points - mean) / deviation) ** 2) / 2 - np.log(deviation)
    np.testing.assert_allclose(info["model/kl"], ratio.mean(), rtol=2e-2)
    np.testing.assert_allclose(loss, info["model/error"] + 0.25 * info["model/kl"], rtol=1e-6)
