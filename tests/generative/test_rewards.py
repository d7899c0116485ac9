"""Rewards of images: real JPEG files, bytes of floats, and clear errors."""

import io

import numpy as np
import pytest

from rl_jax.generative.rewards import REWARDS, jpeg_sizes, reward, to_bytes

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)
GREY = np.stack([np.full((32, 32), 90, np.uint8), RNG.integers(0, 256, (32, 32)).astype(np.uint8)])


def test_sizes_are_those_of_the_files_that_pillow_writes(tmp_path):
    coloured = RNG.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    for images in (GREY, coloured):
        for image, size in zip(images, jpeg_sizes(images), strict=True):
            Image.fromarray(image).save(tmp_path / "a.jpeg", quality=95)
            assert size == (tmp_path / "a.jpeg").stat().st_size
            decoded = np.asarray(Image.open(io.BytesIO((tmp_path / "a.jpeg").read_bytes())))
            assert decoded.shape == image.shape
    flat, noise = jpeg_sizes(GREY)
    # The header of a grey JPEG is the floor, about 330 bytes; noise is far above it.
    assert 300 < flat < 400 < 900 < noise


def test_rewards_are_kilobytes_with_their_sign():
    sizes, prompts = jpeg_sizes(GREY), np.zeros(2, int)
    np.testing.assert_allclose(reward("compressibility")(GREY, prompts), -sizes / 1000, rtol=1e-6)
    np.testing.assert_allclose(reward("incompressibility")(GREY, prompts), sizes / 1000, rtol=1e-6)
    assert all(make(GREY, prompts).dtype == np.float32 for make in REWARDS.values())


def test_floats_become_bytes_by_rounding_and_cutting():
    # 255 (0.5 x + 0.5): -1 is 0, 0 is 127.5 and rounds to the even 128, beyond 1 is cut.
    assert to_bytes(np.array([[-1.0, 0.0, 1.0, 7.0, -7.0]]), 0.5, 0.5).tolist() == [[0, 128, 255, 255, 0]]


def test_what_is_no_image_or_no_reward_is_named():
    with pytest.raises(ValueError, match=r"images\[0, 1\] is nan \(1 such numbers\): the model has diverged"):
        to_bytes(np.array([[0.0, np.nan]]), 0.5, 0.5)
    with pytest.raises(ValueError, match=r"images are float32 \(2, 8, 8\): give uint8"):
        jpeg_sizes(np.zeros((2, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"images are uint8 \(2, 8, 8, 4\): give uint8"):
        jpeg_sizes(np.zeros((2, 8, 8, 4), np.uint8))
    with pytest.raises(ValueError, match="unknown reward 'compressability': did you mean compressibility"):
        reward("compressability")
