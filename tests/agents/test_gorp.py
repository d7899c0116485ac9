"""GORP by its own luck against the exact chance of it, against the bound on its samples, and in ever more episodes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import gorp
from rl_jax.tabular.environment import environment
from rl_jax.tabular.files import bridge_mdp
from rl_jax.tabular.gorp_bound import failure_probability
from rl_jax.tabular.mdp import TabularMDP

# One step to choose between a sure 0.5 and a coin: 0 or 1 for the two actions that follow.
COIN = TabularMDP(np.array([[1, 2], [-1, -1], [-1, -1]]), np.array([[0, 0], [0.5, 0.5], [0, 1]], np.float32), 2)


def make(mdp, **fields):
    config = gorp.default_config()
    config.update(fields)
    return gorp.gorp(config, environment(mdp, observe=lambda state: state))


def attempts(mdp, num_runs, number=0, **fields):
    """(actions [R, T], their returns [R], samples [R]) of an attempt of R runs."""
    agent = make(mdp, **fields)

    def run(key, number):
        state = agent.init(key).replace(step=number)
        state, _ = agent.step(state, key)
        actions = jax.vmap(lambda time: agent.act(state, jnp.zeros(1), time)[0])(jnp.arange(mdp.horizon))
        return actions, agent.samples(state)

    keys = jax.random.split(jax.random.key(0), num_runs)
    actions, samples = jax.device_get(jax.jit(lambda: jax.lax.map(lambda key: run(key, jnp.int32(number)), keys))())
    returns = []
    for own in actions:
        state, total = 0, 0.0
        for action in own:
            total, state = total + mdp.rewards[state, action], mdp.transitions[state, action]
            if state == -1:
                break
        returns.append(total)
    return actions, np.array(returns), samples


def test_the_bound_on_its_samples_holds():
    mdp, m = bridge_mdp("freeway_10_fs30"), 37  # 11,100 samples
    actions, returns, samples = attempts(mdp, 24, k=1, num_episodes=m, num_envs=48)
    assert actions.shape == (24, 10) and returns.shape == samples.shape == (24,)
    failures = (returns < 1.0 - 1e-4).mean()
    bound = failure_probability(mdp, 1, m)
    assert bound <= 0.5 and failures <= bound + 3 * math.sqrt(bound * (1 - bound) / 24)
    assert (samples <= 10**2 * 3 * m).all()
    # With fewer episodes the bound is no use, and with more it goes to zero.
    assert failure_probability(mdp, 1, 5) > 0.5 and failure_probability(mdp, 1, 400) < 0.02


@pytest.mark.parametrize("num_envs", [1, 8])
def test_chance_of_a_coin_is_what_gorp_has(num_envs):
    # m = 1, k = 1: action 1 wins if its coin shows 1, probability 1/2; then the next step must find the 1 and always
    # does, for there every sequence is tried without chance. m = 2: one of each is a tie, which the first action wins:
    # 1/4. The second attempt has twice as many episodes as the first.
    for attempt, m, chance in ((0, 1, 0.5), (1, 2, 0.25)):
        _, returns, samples = attempts(COIN, 200, attempt, k=1, num_episodes=1, num_envs=num_envs)
        found = (returns == 1.0).mean()
        assert found == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / 200))
        assert set(returns.tolist()) == {0.5, 1.0}
        # Two timesteps of 2 sequences with m episodes of 2 steps.
        assert (samples == 2**2 * 2 * m).all()


def test_sequences_that_reach_the_end_leave_nothing_to_chance():
    assert (attempts(COIN, 20, k=2, num_episodes=1)[1] == 1.0).all()


def test_episodes_that_end_early_take_fewer_samples():
    mdp = TabularMDP(np.array([[-1, 0]]), np.array([[1, 0]], np.float32), 3)
    actions, returns, samples = attempts(mdp, 1, k=3, num_episodes=1)
    # Sequences of 3: 4 begin with 0 (1 step), 2 with 10 (2 steps), 2 with 11 (3 steps): 14 steps. All that reach the
    # end earn 1 and the first of them is 000. From then on its 0 ends every episode: 8 steps a timestep.
    assert actions[0, 0] == 0 and returns[0] == 1.0 and samples[0] == 14 + 8 + 8


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="config.agent.k is 0: give at least 1"):
        make(COIN, k=0)
    with pytest.raises(ValueError, match="config.agent.num_episodes is 0"):
        make(COIN, num_episodes=0)
