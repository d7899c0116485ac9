"""CLIP's tokenizer and encoders: what is too long or of a wrong size is named, pixels are scaled and cut."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.clip import PIXEL_MEAN, PIXEL_STD, TextConfig, TextEncoder, VisionConfig, VisionEncoder, pixels
from rl_jax.generative.tokenizer import BYTE_LETTERS, END, START, Tokenizer, load_tokenizer, save_tokenizer, words
from rl_jax.generative.vae import AutoencoderKL, VAEConfig

VOCAB = {token: i for i, token in enumerate([*BYTE_LETTERS, *(f"{x}</w>" for x in BYTE_LETTERS), "ca", START, END])}
TOKENIZER = Tokenizer(VOCAB, (("c", "a"),), "!", 6)


def test_start_prompt_end_padding():
    (row,) = TOKENIZER.encode(["Cat"])
    assert row.dtype == np.int32
    assert row.tolist() == [VOCAB[token] for token in (START, "ca", "t</w>", END, "!", "!")]


def test_a_long_prompt_is_named_or_cut():
    with pytest.raises(ValueError, match=r"has 5 tokens and .* reads 4 .*truncate=True. The prompt: 'a b c d e'"):
        TOKENIZER.encode(["a", "a b c d e"])
    (row,) = TOKENIZER.encode(["a b c d e"], truncate=True)
    assert row.tolist() == [VOCAB[token] for token in (START, "a</w>", "b</w>", "c</w>", "d</w>", END)]
    with pytest.raises(ValueError, match="given one string, 'a cat'"):
        TOKENIZER.encode("a cat")


def test_words():
    assert words("It's  2½ CATS_!'s\n") == ["it", "'s", "2", "½", "cats", "_!'", "s"]
    assert words("cafe\u0301") == ["café"]


def test_a_folder_that_is_no_tokenizers(tmp_path):
    with pytest.raises(FileNotFoundError, match="vocab.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(ValueError, match="has no '<|startoftext|>'"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(ValueError, match="one is 'a b c'"):
        load_tokenizer(tmp_path)


@pytest.fixture
def folder(tmp_path):
    save_tokenizer(dataclasses.replace(TOKENIZER, pad_token=END), tmp_path)
    return tmp_path


def change(file, **settings):
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | settings))


def test_special_tokens_map_has_the_last_word_as_in_transformers(folder):
    assert load_tokenizer(folder).pad_token == END
    change(folder / "special_tokens_map.json", pad_token={"content": "!"})
    found = load_tokenizer(folder)
    assert found.encode(["a"])[0].tolist() == [VOCAB[token] for token in (START, "a</w>", END, "!", "!", "!")]
    change(folder / "tokenizer_config.json", added_tokens_decoder={"513": {"content": END}})
    assert load_tokenizer(folder).pad_token == END


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("special_tokens_map.json", {"bos_token": "<s>"}, "bos_token is '<s>', and the tokenizer here has"),
        ("special_tokens_map.json", {"pad_token": "<pad>"}, "vocab.json has no '<pad>'"),
        ("tokenizer_config.json", {"eos_token": {"content": "</s>"}}, "eos_token is '</s>'"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "model_max_length is 'long'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": {"content": "<cat>"}}}, "'<cat>' is added to the"),
        ("added_tokens.json", {"<cat>": 600}, "'<cat>' is added to the vocabulary"),
        ("vocab.json", {"a": "x"}, "a token's id is no whole number"),
    ],
)
def test_what_a_tokenizer_says_and_is_not_followed_is_named(folder, name, settings, message):
    change(folder / name, **settings)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder)


def test_pixels_are_scaled_cut_and_standardised():
    images = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 12)[None, None, :, None], (2, 6, 12, 3))
    found = pixels(images, 6) * jnp.asarray(PIXEL_STD) + jnp.asarray(PIXEL_MEAN)
    np.testing.assert_allclose(found, images[:, :, 3:9], atol=1e-6)
    grey = pixels(jnp.full((1, 5, 7, 3), 0.5), 3)
    assert grey.shape == (1, 3, 3, 3)
    np.testing.assert_allclose(grey[0, 0, 0], (0.5 - np.array(PIXEL_MEAN)) / PIXEL_STD, rtol=1e-5)


def test_wrong_inputs_are_named():
    key, shape = jax.random.key(0), jax.ShapeDtypeStruct
    with pytest.raises(ValueError, match="max_position_embeddings=77"):
        jax.eval_shape(TextEncoder(TextConfig()).init, key, shape((1, 78), jnp.int32))
    with pytest.raises(ValueError, match="reads 224x224x3"):
        jax.eval_shape(VisionEncoder(VisionConfig()).init, key, shape((1, 96, 96, 3), jnp.float32))
    with pytest.raises(ValueError, match="multiples of 8"):
        jax.eval_shape(AutoencoderKL(VAEConfig()).init, key, shape((1, 60, 64, 3), jnp.float32))
    with pytest.raises(ValueError, match="hidden_act is 'relu'"):
        TextConfig(hidden_act="relu")
