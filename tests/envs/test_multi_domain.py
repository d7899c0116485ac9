"""Tasks of several domains in one layout: episodes of Gymnasium's two and of one of Meta-World's, names, the cache."""

import numpy as np
import pytest

from rl_jax.envs.multi_domain import ACTION_DIM, PLACES, STATE_DIM, collect, load_task, open_task, padded
from rl_jax.networks.multi_domain_transformer import UNUSED


def test_places_do_not_overlap():
    places = sorted((place.start, place.stop) for place in PLACES.values())
    assert [start for start, _ in places] == [0, *(stop for _, stop in places[:-1])] and places[-1][1] == STATE_DIM
    np.testing.assert_array_equal(padded("mountain-car", np.array([[3.0, 4.0]]))[0, -3:], [0.0, 3.0, 4.0])


def test_the_experts_of_gymnasium_succeed_without_noise():
    made, known = collect("mountain-car", 2, 120, 0)
    assert known["noiseless"] == 1.0 and made.terminated[made.starts + made.lengths - 1][0]
    assert made.observations.shape[1] == STATE_DIM and made.actions.shape[1] == ACTION_DIM
    assert (made.actions[:, 1:] == UNUSED).all() and (np.abs(made.actions[:, 0]) <= 1.0).all()
    # The script's episode: a push the way that the car moves.
    one = made.select(range(1))
    velocity = one.observations[:, PLACES["mountain-car"]][:, 1]
    np.testing.assert_array_equal(one.actions[:, 0], np.where(velocity >= 0.0, 1.0, -1.0))
    np.testing.assert_array_equal(one.next_observations[:-1], one.observations[1:])
    made, known = collect("pendulum", 2, 120, 0)
    assert known["noiseless"] == 1.0 and made.truncated.sum() == 2
    assert (made.observations[made.starts + 119, PLACES["pendulum"].start] > 0.9).all()


def test_a_set_is_made_once(tmp_path, monkeypatch):
    first, known = load_task("pendulum", 2, 10, 3, tmp_path)
    monkeypatch.setattr("rl_jax.envs.multi_domain.collect", None)
    again, same = load_task("pendulum", 2, 10, 3, tmp_path)
    np.testing.assert_array_equal(first.observations, again.observations)
    assert known == same and known["domain"] == "pendulum"


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"unknown task in config\.tasks 'pendulums': did you mean pendulum"):
        open_task("pendulums")


def test_meta_worlds_tasks_have_their_scripts():
    pytest.importorskip("metaworld")
    with pytest.raises(ValueError, match="'metaworld-door-opem': did you mean metaworld-door-open"):
        open_task("metaworld-door-opem")
    made, known = collect("metaworld-handle-press-side", 1, 60, 0)
    assert known == {"success": 1.0, "noiseless": 1.0, "domain": "metaworld"} and len(made) == 60
    assert (made.observations[:, 35:] == 0.0).all() and (np.abs(made.actions) <= 1.0).all()
