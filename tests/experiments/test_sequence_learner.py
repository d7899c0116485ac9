"""An agent that reads sequences: its data, its statistics, what it is asked for, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import offline_rl
from rl_jax.control.agents import make_agent
from rl_jax.control.offline import agent_data, offline_program, on_raw_observations
from rl_jax.core import sweep
from rl_jax.core.program import Evaluation
from rl_jax.data.sequences import Sequences, sequences_at
from tests.data.sets import make_episodes

EPISODES = make_episodes()


def make_config(agent="dt", **fields):
    config = offline_rl.get_config(f"tiny-{agent}")
    config.update_from_flattened_dict({"dataset.context_length": 4, "batch_size": 8, **fields})
    return config


def test_a_step_takes_sequences_of_the_normalised_set():
    data = agent_data(make_config(), EPISODES)
    assert data.draw(data.resident, jax.random.key(0), 2).observations.shape == (2, 4, 3)
    np.testing.assert_allclose(data.resident.observations.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(data.resident.returns_to_go[EPISODES.starts], EPISODES.returns, rtol=1e-6)
    program = offline_program(make_config(), data)
    state = jax.eval_shape(program.init, jax.random.key(0), data.resident)
    after, metrics = jax.eval_shape(program.step, state, data.resident, None, jax.random.key(1))
    assert "actor/loss" in metrics and jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_it_acts_on_raw_observations_as_on_those_it_learnt_from():
    config = make_config()
    data, agent = agent_data(config, EPISODES), make_agent(config, 2)
    state = jax.jit(offline_program(config, data).init)(jax.random.key(0), data.resident)
    # Larger weights than a fresh network's, so that observations tell.
    params = jax.tree.map(lambda x: 10.0 * x, state.params)
    batch = sequences_at(data.resident, np.array([0, 5]), 4)
    raw = Sequences(EPISODES.observations[[[0, 1, 2, 3], [5, 6, 7, 8]]], *jax.tree.leaves(batch)[1:])
    expected = agent.act(params, jax.tree.map(jnp.asarray, batch), jax.random.key(0), 0.0)
    got = jax.jit(on_raw_observations(agent))((params, state.extra), raw, jax.random.key(0), 0.0)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    unnormalised = agent.act(params, jax.tree.map(jnp.asarray, raw), jax.random.key(0), 0.0)
    assert np.abs(unnormalised - expected).max() > 1e-3


def test_every_combination_of_a_sweep_is_asked_for_its_own_return():
    config, asked = make_config(sweep="agent.target_return=3600.0,1800.0"), []

    def judge(act, context):
        asked.append(context)
        return lambda state, resident, key: Evaluation()

    data = agent_data(config, EPISODES)
    for setting in sweep.side_by_side(config):
        offline_program(sweep.at(config, setting), data, judge)
    assert asked == [(4, 3600.0), (4, 1800.0)]


@pytest.mark.parametrize(
    "agent, fields, message",
    [
        ("dt", {"dataset.context_length": 0}, "context_length is 0, and dt reads sequences: it must be positive"),
        ("iql", {}, "context_length is 4, and iql reads single transitions: it must be 0"),
        ("dt", {"dataset.normalize_rewards": True}, "normalize_rewards: dt is asked for a return"),
    ],
)
def test_data_that_the_agent_does_not_read_are_refused(agent, fields, message):
    with pytest.raises(ValueError, match=message):
        agent_data(make_config(agent, **fields), EPISODES)


def test_returns_are_asked_for_by_task():
    targets = {
        name: offline_rl.get_config(f"dt/{name}").agent.target_return
        for name in ("hopper-medium", "halfcheetah-medium-replay", "walker2d-expert")
    }
    assert targets == {"hopper-medium": 3600, "halfcheetah-medium-replay": 12000, "walker2d-expert": 5000}
