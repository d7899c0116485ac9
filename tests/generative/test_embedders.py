"""Embedders: vectors of length 1, the nearest of a table, windows, CLIP from a folder, errors."""

import jax
import numpy as np
import pytest

from rl_jax.generative.clip import VisionConfig, VisionEncoder, pixels
from rl_jax.generative.embedders import KIND, domain, init_encoder, make_embedder, nearest, principal_axes, stacked
from rl_jax.generative.pretrained import VISION, Part, parameter_shapes, save_part
from rl_jax.networks.model_file import save_model

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["random_conv", "pixels"])
def test_a_picture_is_nearest_to_itself(name):
    embed = make_embedder(name, PICTURES)
    table = embed(PICTURES)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1.0, rtol=1e-4)
    assert nearest(embed(PICTURES[7:12]), table).tolist() == [7, 8, 9, 10, 11]
    noisy = np.clip(PICTURES[:5] + np.random.default_rng(1).normal(0, 20, (5, 16, 16, 3)), 0, 255).astype(np.uint8)
    assert nearest(embed(noisy), table).tolist() == [0, 1, 2, 3, 4]


def test_principal_axes_are_those_of_an_svd():
    rows = np.random.default_rng(0).normal(size=(50, 6)) * [5, 4, 3, 2, 1, 0.5]
    mean, axes = principal_axes(rows, 3)
    expected = np.linalg.svd(rows - rows.mean(0))[2][:3]
    np.testing.assert_allclose(np.abs(np.sum(axes.T * expected, -1)), 1.0, rtol=1e-10)
    wide = np.random.default_rng(0).normal(size=(200, 100)) * 0.9 ** np.arange(100)
    found = (wide - wide.mean(0)) @ principal_axes(wide, 8)[1]
    best = np.linalg.svd(wide - wide.mean(0))[1][:8]
    np.testing.assert_allclose(np.sum(found**2), np.sum(best**2), rtol=1e-6)  # no eight axes hold more
    np.testing.assert_allclose(mean, rows.mean(0))


def test_windows_do_not_reach_into_the_episode_before():
    vectors = np.eye(5)
    stack = stacked(vectors, [0, 3], 2)
    parts = [np.argmax(stack.reshape(5, 2, 5), -1).tolist()]
    assert parts[0] == [[0, 0], [1, 0], [2, 1], [3, 3], [4, 3]]
    np.testing.assert_allclose(np.linalg.norm(stack, axis=1), 1.0, rtol=1e-6)


def test_clip_is_read_from_a_folder(tmp_path):
    config = VisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16,
                          patch_size=8, projection_dim=4)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), parameter_shapes(VISION, config))
    save_part(Part(config, params), VISION, tmp_path)
    found = make_embedder("clip", PICTURES, str(tmp_path))(PICTURES[:3])
    encode = jax.jit(lambda images: VisionEncoder(config).apply({"params": params}, pixels(images, 16)))
    expected = encode(PICTURES[:3] / np.float32(255.0))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)


def test_an_encoder_that_a_run_left_is_read_for_pictures_of_its_size(tmp_path):
    params = init_encoder(jax.random.key(0), PICTURES)
    save_model(tmp_path / "encoder.npz", params, kind=KIND, domain=domain(PICTURES))
    table = make_embedder("contrastive", PICTURES, str(tmp_path))(PICTURES)
    assert table.shape == (40, 64) and nearest(table[3:4], table).tolist() == [3]
    with pytest.raises(ValueError, match="model of 16x16x3, and the picture encoder model of 8x8x3"):
        make_embedder("contrastive", PICTURES[:, :8, :8], str(tmp_path))


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="config.embedder.name 'pixel': did you mean pixels"):
        make_embedder("pixel", PICTURES)
    with pytest.raises(ValueError, match="config.embedder.path is empty: clip needs a folder"):
        make_embedder("clip", PICTURES)
    with pytest.raises(FileNotFoundError, match="encoder.npz: no such model"):
        make_embedder("contrastive", PICTURES, str(tmp_path))
