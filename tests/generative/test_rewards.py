"""Rewards of images: real JPEG files, models in folders, bytes of floats, and clear errors."""

import functools
import io
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.stats
from safetensors.numpy import load_file, save_file

from rl_jax.generative import pretrained, rewards
from rl_jax.generative.aesthetic import AestheticHead, load_head
from rl_jax.generative.clip import CLIP, CLIPConfig, TextConfig, VisionConfig, VisionEncoder, pixels
from rl_jax.generative.jpeg_proxy import AT_95, jpeg_bits_proxy
from rl_jax.generative.pretrained import Part, load_clip, save_part
from rl_jax.generative.rewards import REWARDS, jpeg_sizes, jpegs, reward, to_bytes
from rl_jax.generative.tokenizer import BYTE_LETTERS, END, START, Tokenizer, save_tokenizer
from tests.golden.weights import weight

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)
GREY = np.stack([np.full((32, 32), 90, np.uint8), RNG.integers(0, 256, (32, 32)).astype(np.uint8)])
COLOURED = RNG.integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
PROMPTS = ["a cat", "a dog", "an owl", "a fox", "two"]
LETTERS = [*BYTE_LETTERS, *(f"{letter}</w>" for letter in BYTE_LETTERS), START, END]
TRANSFORMER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def random_part(config):
    """A whole CLIP with random weights."""
    shapes = pretrained.parameter_shapes(pretrained.CLIP_MODEL, config)
    name = lambda path: ".".join(str(key.key) for key in path)  # noqa: E731
    return Part(config, jax.tree_util.tree_map_with_path(lambda path, x: weight(name(path), x.shape), shapes))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP's folder; its embeddings are as wide as ViT-L/14's."""
    text = TextConfig(**TRANSFORMER, vocab_size=514, max_position_embeddings=16, eos_token_id=513)
    vision = VisionConfig(**TRANSFORMER, image_size=8, patch_size=4, projection_dim=768)
    folder = tmp_path_factory.mktemp("clip")
    save_part(random_part(CLIPConfig(text, vision)), pretrained.CLIP_MODEL, folder)
    tokenizer = Tokenizer({letter: i for i, letter in enumerate(LETTERS)}, (), context_length=16)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    file, widths, tensors = tmp_path_factory.mktemp("head") / "head.safetensors", [768, 1024, 128, 64, 16, 1], {}
    for number, (before, after) in zip((0, 2, 4, 6, 7), itertools.pairwise(widths), strict=True):
        tensors[f"layers.{number}.weight"] = weight(f"layers.{number}.weight", (after, before))
        tensors[f"layers.{number}.bias"] = weight(f"layers.{number}.bias", (after,))
    save_file(tensors, file)
    return file


@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def run(model, params, *inputs):
    return model.apply({"params": params}, *inputs)


def read(images):
    """What CLIP reads of them."""
    return jax.jit(pixels, static_argnums=1)(images / np.float32(255), 8)


def test_sizes_are_those_of_the_files_that_pillow_writes(tmp_path):
    for images in (GREY, COLOURED):
        for image, size, file in zip(images, jpeg_sizes(images), jpegs(images, 95), strict=True):
            Image.fromarray(image).save(tmp_path / "a.jpeg", quality=95)
            assert size == (tmp_path / "a.jpeg").stat().st_size
            assert file == (tmp_path / "a.jpeg").read_bytes()
            assert np.asarray(Image.open(io.BytesIO(file))).shape == image.shape
    flat, noise = jpeg_sizes(GREY)
    # The header of a grey JPEG is the floor, about 330 bytes; noise is far above it.
    assert 300 < flat < 400 < 900 < noise
    assert jpeg_sizes(GREY[:0]).tolist() == [] and jpeg_sizes(GREY[:1]).tolist() == [flat]


def test_rewards_are_kilobytes_with_their_sign():
    sizes = jpeg_sizes(GREY)
    for name, sign in (("compressibility", -1), ("incompressibility", 1)):
        found = reward(name)(GREY, PROMPTS[:2])
        np.testing.assert_allclose(found, sign * sizes / 1000, rtol=1e-6)
        assert found.dtype == np.float32


def test_aesthetic_score_is_the_heads_of_the_image_encoders_embedding(clip, head):
    whole, score = load_clip(clip), reward("aesthetic", clip=clip, head=head, batch_size=2)
    embeddings = run(VisionEncoder(whole.config.vision_config), whole.params["vision_model"], read(COLOURED))
    expected = run(AestheticHead(), load_head(head), embeddings)
    found = score(COLOURED, PROMPTS)
    assert found.dtype == np.float32 and np.ptp(found) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)
    grey = COLOURED[..., 0]
    np.testing.assert_array_equal(score(grey, PROMPTS), score(np.stack([grey] * 3, -1), PROMPTS))


def test_similarity_is_the_cosine_of_the_two_embeddings(clip):
    whole = load_clip(clip)
    tokens = np.full((5, 16), LETTERS.index(END))
    for row, prompt in zip(tokens, PROMPTS, strict=True):
        letters = [letter for word in prompt.split() for letter in [*word[:-1], f"{word[-1]}</w>"]]
        row[: len(letters) + 1] = [LETTERS.index(letter) for letter in [START, *letters]]
    of_images, of_texts, _ = run(CLIP(whole.config), whole.params, tokens, read(COLOURED))
    lengths = np.linalg.norm(of_images, axis=1) * np.linalg.norm(of_texts, axis=1)
    score = reward("similarity", clip=clip, batch_size=3)
    found = score(COLOURED, PROMPTS)
    np.testing.assert_allclose(found, np.sum(of_images * of_texts, 1) / lengths, atol=1e-5)
    # Each score is of its own image and prompt.
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(score(COLOURED[order], [PROMPTS[i] for i in order]), found[order], atol=1e-5)
    assert np.abs(score(COLOURED, PROMPTS[::-1]) - found)[[0, 1, 3, 4]].min() > 1e-4
    grey = COLOURED[..., 0]
    np.testing.assert_array_equal(score(grey, PROMPTS), score(np.stack([grey] * 3, -1), PROMPTS))


def test_one_program_for_any_number_of_images():
    sizes = []

    def score(params, images):
        sizes.append(len(images))
        return params * images.reshape(len(images), -1).mean(1)

    for number in (0, 1, 2, 3, 5):
        found = rewards._in_batches(score, 2.0, 2, COLOURED[:number])
        np.testing.assert_allclose(found, 2 * COLOURED[:number].reshape(number, 768).mean(1), rtol=1e-6)
        assert found.dtype == np.float32
    assert set(sizes) == {2}


def varied(channels):
    """160 images of 30x30: flat, smooth and fine, with more or less noise, around darker and lighter greys."""
    images = []
    for index in range(160):
        shape = (cells := [1, 2, 4, 8, 30][index % 5], cells, *channels)
        cells = np.clip(RNG.normal(RNG.uniform(0, 255), RNG.uniform(5, 80), shape), 0, 255).astype(np.uint8)
        image = np.asarray(Image.fromarray(cells).resize((30, 30), Image.Resampling.BICUBIC))
        noise = RNG.normal(0, [0, 0, 1, 4, 15][index // 5 % 5], image.shape)
        images.append(np.clip(image + noise, 0, 255).astype(np.uint8))
    return np.stack(images)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_the_proxy_of_a_jpegs_size_orders_images_as_their_files_do(channels):
    images = varied(channels)
    found = jax.jit(jpeg_bits_proxy)(images)
    assert found.shape == (160,) and found.dtype == jnp.float32
    assert scipy.stats.spearmanr(found, jpeg_sizes(images))[0] > 0.97


def test_the_proxys_table_and_numbers():
    proxy = jax.jit(jpeg_bits_proxy)
    table = Image.open(io.BytesIO(jpegs(GREY, 95)[0])).quantization[0]
    assert AT_95.ravel().tolist() == list(table)
    # A flat image of 144: one block's mean is 8 x (144 - 128) / 2 = 64, the other three are as the one before.
    np.testing.assert_allclose(proxy(np.full((1, 16, 16), 144, np.uint8)), np.log2(65), rtol=1e-6)
    np.testing.assert_allclose(proxy(np.full((1, 3, 5, 3), 144.4, np.float32)), np.log2(65), rtol=1e-6)
    blocks = GREY[1].reshape(4, 8, 4, 8).swapaxes(1, 2).reshape(16, 8, 8) - 128.0
    numbers = np.rint(scipy.fft.dctn(blocks, axes=(1, 2), norm="ortho") / AT_95)
    numbers[1:, 0, 0] -= numbers[:-1, 0, 0].copy()
    np.testing.assert_allclose(proxy(GREY[1:]), np.log2(1 + np.abs(numbers)).sum(), rtol=1e-4)
    with pytest.raises(ValueError, match=r"images are \(2, 8, 8, 4\): give"):
        jpeg_bits_proxy(jnp.zeros((2, 8, 8, 4)))


def test_floats_become_bytes_by_rounding_and_cutting():
    # 255 (0.5 x + 0.5): -1 is 0, 0 is 127.5 and rounds to the even 128, beyond 1 is cut.
    assert to_bytes(np.array([[-1.0, 0.0, 1.0, 7.0, -7.0]]), 0.5, 0.5).tolist() == [[0, 128, 255, 255, 0]]


def test_what_is_no_image_is_named():
    with pytest.raises(ValueError, match=r"images\[0, 1\] is nan \(1 such numbers\): the model has diverged"):
        to_bytes(np.array([[0.0, np.nan]]), 0.5, 0.5)
    with pytest.raises(ValueError, match=r"images are float32 \(2, 8, 8\): give uint8"):
        jpeg_sizes(np.zeros((2, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"images are uint8 \(2, 8, 8, 4\): give uint8"):
        jpeg_sizes(np.zeros((2, 8, 8, 4), np.uint8))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("compressability", {}, "unknown reward 'compressability': did you mean compressibility"),
        ("beauty", {}, "known are aesthetic, compressibility, incompressibility, similarity, vlm"),
        ("compressibility", {"quality": 3}, "reward 'compressibility' does not know quality: it has no options"),
        ("vlm", {"URL": "http://a"}, "'vlm' does not know URL: its options are url, batch_size, timeout, retries"),
        ("vlm", {}, "reward 'vlm' needs url: its options are"),
        ("aesthetic", {}, "reward 'aesthetic' needs clip, head: its options are clip, head, batch_size, variant"),
        ("similarity", {"clip": "x", "batch_size": 0}, "batch_size is 0; it is 1 or more"),
    ],
)
def test_a_wrong_name_or_option_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        reward(name, **options)


def test_models_that_do_not_fit_are_named(clip, head, tmp_path):
    assert sorted(REWARDS) == ["aesthetic", "compressibility", "incompressibility", "similarity", "vlm"]
    with pytest.raises(FileNotFoundError, match="absent is no folder"):
        reward("similarity", clip=tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="absent.pth is missing"):
        reward("aesthetic", clip=clip, head=tmp_path / "absent.pth")
    vision = VisionConfig(**TRANSFORMER, image_size=8, patch_size=4, projection_dim=5)
    whole = random_part(CLIPConfig(TextConfig(**TRANSFORMER, vocab_size=9), vision))
    save_part(Part(vision, whole.params["vision_model"]), pretrained.VISION, tmp_path)
    with pytest.raises(ValueError, match="embeddings of 5 numbers; the head reads 768: give CLIP ViT-L/14's folder"):
        reward("aesthetic", clip=tmp_path, head=head)
    with pytest.raises(ValueError, match="has no text_config and no vision_config: give .* whole CLIPModel"):
        reward("similarity", clip=tmp_path)
    score = reward("similarity", clip=clip)
    with pytest.raises(ValueError, match="5 images and 4 prompts"):
        score(COLOURED, PROMPTS[:4])
    with pytest.raises(ValueError, match="has 24 tokens and the text encoder reads 14"):
        score(COLOURED[:1], ["abcdefghijklmnopqrstuvwx"])
    with pytest.raises(ValueError, match="give uint8"):
        score(COLOURED / 255.0, PROMPTS)


def test_a_whole_clip_is_written_in_the_layout_of_transformers(clip):
    whole = load_clip(clip)
    settings = json.loads((clip / "config.json").read_text())
    assert settings["model_type"] == "clip" and settings["projection_dim"] == 768
    assert settings["text_config"]["eos_token_id"] == 513 and settings["vision_config"]["patch_size"] == 4
    names = set(load_file(clip / "model.safetensors"))
    beside = {"logit_scale", "text_projection.weight", "visual_projection.weight"}
    assert beside < names and {name.split(".")[0] for name in names - beside} == {"text_model", "vision_model"}
    expected = random_part(whole.config)
    jax.tree.map(np.testing.assert_array_equal, whole.params, expected.params)
