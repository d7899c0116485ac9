"""Domains: what their judges know, the emoji's autoencoder, an evaluation's outcomes, files of models."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.rlcm import get_config
from rl_jax.core.program import TrainState
from rl_jax.generative.digits import digits_domain, halves, load_digits
from rl_jax.generative.domain_evaluation import domain_evaluation
from rl_jax.generative.domains import load_domain
from rl_jax.generative.emoji import load_emoji
from rl_jax.generative.image_grid import save_grid
from rl_jax.networks.model_file import load_model, save_model

Image = pytest.importorskip("PIL.Image")
FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "rlcm"
FILES = FOLDER / "data", FOLDER / "checkpoints"


def test_judges_saw_different_halves_and_know_the_digits():
    domain, digits = load_domain("digits", *FILES), load_digits(FILES[0] / "digits.npz")
    unseen = {"similarity": halves(digits)[1], "judge": halves(digits)[0]}
    for kind, log_probs in (("similarity", domain.similarity), ("judge", domain.judge)):
        rows = unseen[kind]
        assert (log_probs(domain.frozen, domain.images[rows]).argmax(-1) == domain.prompts[rows]).mean() > 0.9
    one, other = (jax.tree.leaves(domain.frozen[kind]) for kind in unseen)
    assert any((x != y).any() for x, y in zip(one, other, strict=True))


@pytest.mark.slow
def test_the_emoji_come_back_from_their_latents_and_both_judges_know_them():
    domain = load_domain("emoji", *FILES)
    assert len(domain.names) == 130 and domain.images.shape == (2600, 8, 8, 4)
    np.testing.assert_allclose([domain.images.mean(), domain.images.std()], [0.0, 0.5], atol=1e-3)
    latents, prompts = domain.images[:260], domain.prompts[:260]
    pixels = np.asarray(jax.jit(domain.decode)(domain.frozen, latents))
    error = np.sqrt(np.mean((pixels - (load_emoji(FILES[0] / "emoji.npz").pixels / 2 + 0.5)) ** 2))
    assert error < 0.08  # white for everything would be 0.34 off
    assert domain.render(pixels).shape == (260, 32, 32, 3) and domain.render(pixels).dtype == np.uint8
    for judge in (domain.judge, domain.similarity):
        assert (jax.jit(judge)(domain.frozen, latents).argmax(-1) == prompts).mean() > 0.9


def test_an_evaluation_by_hand():
    """Of a domain whose model makes the mean image, two images a prompt: nobody but one prompt is recognised."""
    digits = digits_domain(FILES[0] / "digits.npz", FILES[1])
    domain = digits._replace(
        decode=lambda frozen, x: 0.0 * x + 0.5,
        judge=lambda frozen, x: jax.nn.one_hot(jnp.full(len(x), 3), 10),
    )
    config = get_config("tiny")
    config.update_from_flattened_dict({"evaluation_images": 0, "judge_floor": 0.1})
    score = lambda images, texts: np.array([float(text) for text in texts])  # noqa: E731
    params = jax.tree.map(lambda x: jnp.stack([x, x]), jax.jit(domain.init)(jax.random.key(0)))
    state = TrainState.create({"model": params}, {})
    metrics, outcomes = domain_evaluation(config, domain, score)(state, {"frozen": domain.frozen}, jax.random.key(0))
    np.testing.assert_allclose(metrics["eval/accepted_reward"], [4.5, 4.5])
    np.testing.assert_array_equal(outcomes["judge_accuracy_2_steps"], [np.repeat(np.arange(10) == 3, 2)] * 2)
    np.testing.assert_array_equal(outcomes["std_within_prompt"], np.zeros((2, 10)))
    np.testing.assert_array_equal(outcomes["bytes"], np.broadcast_to(outcomes["flat_bytes"], (2, 20)))
    config.judge_floor = 0.11
    metrics, _ = domain_evaluation(config, domain, score)(state, {"frozen": domain.frozen}, jax.random.key(0))
    assert np.isnan(metrics["eval/accepted_reward"]).all()


def test_a_model_that_does_not_fit_is_named(tmp_path):
    path, init = tmp_path / "model.npz", lambda key: {"params": {"a": jnp.zeros((2, 3))}}
    with pytest.raises(FileNotFoundError, match="no such model: make one with a preset of pretraining"):
        load_model(path, "consistency", "digits", init)
    save_model(path, {"params": {"a": np.full((2, 3), 0.5)}}, kind="consistency", domain="digits")
    np.testing.assert_array_equal(load_model(path, "consistency", "digits", init)["params"]["a"], np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="consistency model of digits, and the diffusion model of digits is needed"):
        load_model(path, "diffusion", "digits", init)
    whole = path.read_bytes()
    flipped = whole[:70] + bytes([whole[70] ^ 1]) + whole[71:]
    for damaged in (b"", b"PK" + whole[2:200], whole[: len(whole) // 2], flipped):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            load_model(path, "consistency", "digits", init)
    save_model(path, {"params": {"b": np.zeros(3)}}, kind="consistency", domain="digits")
    with pytest.raises(ValueError, match=r"params/a is None and the network's \(2, 3\): pretrain it again"):
        load_model(path, "consistency", "digits", init)


def test_a_grid_has_rows_of_images_with_white_between(tmp_path):
    save_grid(np.zeros((6, 4, 5, 3), np.uint8), 3, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 5, 3 * 6, 3)
    assert (pixels[4] == 255).all() and (pixels[:, 5] == 255).all() and not pixels[:4, :5].any()
