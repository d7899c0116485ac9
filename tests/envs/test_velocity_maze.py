"""The velocity maze: moves and walls, data, shortest ways, pictures, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.envs.velocity_maze import (
    ALCOVES,
    GAP,
    SPRITES,
    Sprite,
    collect,
    drawn,
    moved,
    observed,
    picture,
    position,
    towards,
    velocity_maze,
    ways_to,
)

FREE = drawn(ALCOVES)
MOVED = jax.jit(lambda place, action: moved(jnp.asarray(FREE), place, action))


@pytest.mark.parametrize(("start", "action", "expected"), [
    ((1.5, 1.5), (1.0, -0.2), (2.2, 1.36)),  # free
    ((1.5, 3.8), (0.0, 1.0), (1.5, 4.0 - GAP)),  # a wall stops at its face
    ((3.5, 3.8), (0.0, 1.0), (3.5, 4.5)),  # the hall
    ((1.2, 1.5), (-3.0, 0.0), (1.0 + GAP, 1.5)),  # actions are clipped
    ((2.1, 3.8), (-0.6, 1.0), (1.68, 4.0 - GAP)),  # rows first: it is beside the wall when it goes right
    ((1.9, 3.8), (0.6, 1.0), (2.32, 4.5)),  # and here past it
])
def test_moves_by_hand(start, action, expected):
    np.testing.assert_allclose(MOVED(jnp.array(start), jnp.array(action)), expected, atol=1e-6)


def test_data_cover_the_maze_and_stay_in_it():
    episodes = collect(FREE, 400, 20, seed=0)
    assert len(episodes) == 8000 and episodes.num_episodes == 400 and episodes.truncated.sum() == 400
    inside = ~episodes.truncated
    np.testing.assert_array_equal(episodes.next_observations[inside], episodes.observations[np.roll(inside, 1)])
    cells = np.floor(position(FREE, episodes.next_observations)).astype(int)
    visits = np.zeros(FREE.shape)
    np.add.at(visits, tuple(cells.T), 1)
    assert not visits[~FREE].any() and visits[FREE].min() > 0.4 * visits[FREE].mean()
    np.testing.assert_allclose(position(FREE, observed(FREE, np.array([[1.25, 7.5]]))), [[1.25, 7.5]], rtol=1e-6)


def test_shortest_ways_lead_there():
    ways = ways_to(FREE, (7, 7))
    assert ways[7, 7].tolist() == [7, 7] and ways[6, 7].tolist() == [7, 7]
    place = jnp.array([1.2, 1.2])
    step = jax.jit(lambda place: moved(jnp.asarray(FREE), place, towards(jnp.asarray(ways), place)))
    for _ in range(40):
        place = step(place)
    np.testing.assert_allclose(place, [7.5, 7.5], atol=1e-5)
    with pytest.raises(ValueError, match=r"\(4, 1\) is a wall"):
        ways_to(FREE, (4, 1))


def test_an_episode_ends_by_time_alone():
    env = velocity_maze(FREE, 2)
    state, seen = env.reset(jax.random.key(0))
    np.testing.assert_allclose(position(FREE, seen), state[0], rtol=1e-6)
    for last in (False, True):
        state, stepped = env.step(state, jnp.zeros(2), jax.random.key(0))
        assert bool(stepped.truncated) == last and not stepped.terminated


def test_pictures_show_where_the_body_is():
    place = jnp.array([[2.5, 1.5], [6.5, 6.5]])
    draw = jax.jit(lambda place, body: picture(FREE, place, 36, SPRITES[body]), static_argnums=1)
    plain = np.asarray(draw(jnp.array([[-5.0, -5.0]] * 2), "own"))[0].astype(int)
    assert set(plain.ravel()) == {64, 237} and (plain[..., 0] == 64).sum() == 16 * (~FREE).sum()
    for name, sprite in SPRITES.items():
        images = np.asarray(draw(place, name)).astype(int)
        for image, (row, column) in zip(images, np.asarray(place)):
            weight = np.abs(image - plain).sum(-1)
            centre = [(weight.sum(axis) * (np.arange(36) + 0.5)).sum() / weight.sum() / 4 for axis in (1, 0)]
            np.testing.assert_allclose(centre, [row, column], atol=0.06)
        middle = images[0, 10, 6]
        np.testing.assert_allclose(middle, np.round(255 * np.array(sprite.colour)), atol=1)
    with pytest.raises(ValueError, match="'star': choose disc, square or cross"):
        picture(FREE, place, 8, Sprite("star", 1.0, (0, 0, 0)))


@pytest.mark.parametrize(("rows", "message"), [
    ([], "give at least one"), (["##", "#"], r"lengths \[2, 1\]"), (["###", "#x#", "###"], "has 'x'"),
    (["###", "#..", "###"], "border of walls"), (["###", "###"], "a free cell"),
])
def test_bad_drawings_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        drawn(rows)
