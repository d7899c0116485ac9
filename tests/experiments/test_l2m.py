"""L2M's experiments: presets, the authors' tasks, how states are shown, what selections say, errors."""

import jax
import numpy as np
import pytest

from configs import l2m as configs
from experiments.l2m.experiment import experiment
from rl_jax.control import continual
from tests.papers import get_config


def test_methods_are_what_they_say():
    for method in configs.METHODS:
        own = configs.get_config(method)
        assert own.stage == "tune" and own.num_steps == own.tasks.steps * len(own.tasks.new)
        whole_or_part, pool = bool(own.agent.trainable), bool(own.agent.modulator)
        assert whole_or_part != pool and pool == (own.agent.pool_size > 0), method
        assert configs.get_config(f"paper-{method}").agent.num_layers == 6
    assert configs.get_config("last_layer_head").agent.trainable == "Block_1/|head/"
    assert configs.get_config("paper-last_layer").agent.trainable == "Block_5/"
    assert [configs.get_config(f"paper-{name}").agent.pool_size for name in ("l2m", "l2p", "lora")] == [30, 100, 1]


def test_the_authors_tasks_are_fifty():
    assert (len(configs.CW10), len(configs.MT40)) == (10, 40) and not {*configs.CW10} & {*configs.MT40}
    pytest.importorskip("metaworld")
    from metaworld.policies import ENV_POLICY_MAP

    assert {f"{name}-v3" for name in (*configs.CW10, *configs.MT40)} == {*ENV_POLICY_MAP}


def test_states_are_shown_by_the_old_tasks_of_their_domain():
    config = get_config("l2m", "tiny-l2m")
    data = continual.load_tasks(config)
    assert data.first.tolist() == [0, data.count[0], data.count[:2].sum()] and len(data.target) == 3
    old = data.trajectories.observations[: data.count[0], 35:38]
    np.testing.assert_allclose(old.mean(0), 0.0, atol=0.02)
    np.testing.assert_allclose(old.std(0), 1.0, atol=0.02)
    # The car, of which no old task is, by its own; what a domain does not have is 0.
    car = data.trajectories.observations[data.first[1]: data.first[2]]
    np.testing.assert_allclose(car[:, 38].mean(), 0.0, atol=0.05)
    assert (car[:, :38] == 0.0).all() and np.abs(car).max() <= continual.MOST
    assert data.trajectories.returns_to_go[data.first[0]] <= 0.0  # the pendulum costs


def test_selections():
    chosen = np.array([[[5, 5, 1, 6], [0, 0, 0, 0], [2, 2, 2, 2]]])
    found = continual.selections(chosen, 1, pool_size=4)
    assert found["kept"].tolist() == [[0.75]] and found["purity"][0, 0] == pytest.approx(1.0)
    mixed = continual.selections(np.array([[[9], [3], [3]]]).repeat(4, 2), 1, 4)
    assert mixed["purity"][0, 0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("fields, message", [
    ({"stage": "tuen"}, "unknown stage in config.stage 'tuen': did you mean tune"),
    ({"tasks.new": ()}, "config.tasks: name at least one task to pre-train on"),
    ({"tasks.old": ("pendulun",)}, "unknown task in config.tasks 'pendulun': did you mean pendulum"),
])
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        experiment(get_config("l2m", "tiny-l2m", fields))


TWO_TASKS = {"tasks.old": ("pendulum",), "tasks.new": ("mountain-car",), "batch_size": 4, "dataset.episodes": 2,
             "dataset.steps": 20}  # that need no simulator of bodies; data of all fifty are made in hours


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "paper-l2m", "paper-l2p"])
def test_the_authors_model_has_their_size(preset):
    config = get_config("l2m", preset, TWO_TASKS)
    program = experiment(config).program(config)
    key = jax.random.key(0)
    state = jax.eval_shape(program.init, key, program.resident)
    stepped, _ = jax.eval_shape(lambda *args: program.step(*args, None, key), state, program.resident)
    assert jax.tree.map(lambda x: x.shape, stepped) == jax.tree.map(lambda x: x.shape, state)
    assert sum(x.size for x in jax.tree.leaves(state.params["model"])) == pytest.approx(43.5e6, rel=0.01)
    if preset == "paper-l2m":
        a, b = (state.params["pool"]["modulators"]["Block_5"]["hidden"][name].shape for name in "ab")
        assert (a, b) == ((30, 3072, 8), (30, 8, 3072))


@pytest.mark.slow
def test_the_authors_model_takes_two_steps():
    config = get_config("l2m", "paper-l2m", {**TWO_TASKS, "agent.num_layers": 1})
    program = experiment(config).program(config)
    state, step = jax.jit(program.init)(jax.random.key(0), program.resident), jax.jit(program.step)
    for number in range(2):
        state, metrics = step(state, program.resident, None, jax.random.key(number))
    assert all(np.isfinite(x) for x in metrics.values())
