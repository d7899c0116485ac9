"""Pictures of roll-outs: the drawn body is Hopper's, by the numbers of its model file."""

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from rl_jax.evaluation.render import body_pictures, draw_film_strips, record_rollout, write_animation

LENGTHS = [0.4, 0.45, 0.5, 0.39]  # torso, thigh, leg, foot: from and to in hopper.xml


@pytest.fixture(scope="module")
def rollout():
    rng = np.random.default_rng(0)
    return record_rollout("Hopper-v4", lambda observation: rng.uniform(-1, 1, 3), seed=1, max_steps=15)


def test_the_body_keeps_its_shape_and_starts_upright(rollout):
    assert rollout.ends.shape == (15, 4, 2, 2) and rollout.rewards.shape == (15,)
    lengths = np.linalg.norm(rollout.ends[:, :, 1] - rollout.ends[:, :, 0], axis=-1)
    np.testing.assert_allclose(lengths, np.tile(LENGTHS, (15, 1)), rtol=1e-6)
    # The torso stands from 1.05 m to 1.45 m and the foot on the ground, up to the reset's noise of 5 mm.
    np.testing.assert_allclose(np.sort(rollout.ends[0, 0, :, 1]), [1.05, 1.45], atol=0.02)
    lowest = (rollout.ends[0, 3, :, 1] - rollout.radii[3]).min()
    assert lowest == pytest.approx(0.04, abs=0.03)
    assert rollout.step_seconds == pytest.approx(0.008)
    assert np.abs(rollout.ends[-1] - rollout.ends[0]).max() > 0.01


def test_an_episode_ends_where_the_task_ends_it():
    rollout = record_rollout("Hopper-v4", lambda observation: np.ones(3), seed=0)
    assert len(rollout.rewards) < 200, "a hopper that strains all its motors falls"


def test_pictures_are_written_whole(rollout, tmp_path):
    draw_film_strips({"one": rollout, "two": rollout}, tmp_path / "strip.png", frames=4)
    picture = imread(tmp_path / "strip.png")
    blue = (np.abs(picture[..., :3] - np.array([0, 0x72, 0xB2]) / 255) < 0.02).all(-1)
    columns, rows = blue.any(0), blue.any(1)
    assert np.sum(columns[1:] & ~columns[:-1]) == 4, "four bodies side by side"
    assert np.sum(rows[1:] & ~rows[:-1]) == 2, "two roll-outs, one above the other"
    write_animation(rollout, tmp_path / "film.gif", frames_per_second=50)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 8  # 15 steps of 8 ms, every second one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.gif", "strip.png"]


def test_a_task_without_a_body_is_named():
    with pytest.raises(ValueError, match="CartPole-v1 is not simulated by MuJoCo"):
        record_rollout("CartPole-v1", lambda observation: 0)


def test_a_body_is_seen_where_its_observation_puts_it():
    """Hopper upright, and the same 0.2 m higher: a column of the colour on the ground, and 0.2 m above it."""
    standing = np.zeros((2, 11), np.float32)
    standing[:, 0] = 1.25, 1.45
    colour = (0.0, 0.0, 1.0)
    low, high = (picture.astype(int) for picture in body_pictures("Hopper-v4", standing, 38, colour))
    body = [(picture[..., 2] - picture[..., 0]) > 128 for picture in (low, high)]
    rows = [np.flatnonzero(one.any(1)) for one in body]
    assert (rows[1] == rows[0] - 4).all()  # 38 pixels are 1.9 m
    assert abs(np.argwhere(body[0])[:, 1].mean() - 19.5) < 2.5 and rows[0][-1] - rows[0][0] > 20
    assert (low[-1] == 153).all() and (low[0] == 242).all()  # ground and sky
    thick = body_pictures("Hopper-v4", standing[:1], 38, colour, 2.0)[0].astype(int)
    assert ((thick[..., 2] - thick[..., 0]) > 128).sum() > 1.4 * body[0].sum()
    with pytest.raises(ValueError, match="Hopper-v4 has 5 positions beside its place"):
        body_pictures("Hopper-v4", standing[:, :3], 38, colour)
