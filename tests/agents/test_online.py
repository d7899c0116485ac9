"""PPO and DQN in pure-JAX environments: known answers of the probes, their contract with the core, CartPole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import dqn, ppo
from rl_jax.agents.online import OnlineAgent, collect, start
from rl_jax.envs import probes
from rl_jax.envs.cartpole import cartpole
from rl_jax.envs.environment import Environment
from rl_jax.networks.policies import ActorCritic
from rl_jax.networks.values import DiscreteCritic
from tests.agents.cases import QUICK, floats_of, with_floats

DISCOUNT = 0.5
SMALL = {
    "ppo": {
        "hidden_dims": (16, 16), "num_envs": 16, "num_steps": 8, "batch_size": 64, "learning_rate": 5e-3,
        "discount": DISCOUNT,
    },
    "dqn": {
        "hidden_dims": (16, 16), "num_envs": 4, "batch_size": 64, "buffer_size": 1024, "learning_starts": 64,
        "target_every": 160, "exploration_steps": 4000, "final_epsilon": 0.5, "learning_rate": 5e-3,
        "discount": DISCOUNT,
    },
}
MODULES = {"ppo": ppo, "dqn": dqn}
NAMES = list(MODULES)
NETWORKS = {"ppo": {"actor_critic"}, "dqn": {"critic"}}
PROBES = [
    probes.constant_reward, probes.observed_reward, probes.chosen_reward, probes.matched_reward, probes.late_reward,
    probes.time_out,
]
# Observations, V and, where it matters, the best action at each.
ANSWERS = {
    probes.constant_reward: ([0.0], [1.0], None),
    probes.observed_reward: ([-1.0, 1.0], [-1.0, 1.0], None),
    probes.chosen_reward: ([0.0], [1.0], [1]),
    probes.matched_reward: ([-1.0, 1.0], [1.0, 1.0], [0, 1]),
    probes.late_reward: ([0.0, 1.0], [DISCOUNT, 1.0], None),
    probes.time_out: ([0.0], [1.0 / (1.0 - DISCOUNT)], None),
}
PROBE_STEPS = {"ppo": 120, "dqn": 600}


def make_config(name, **overrides):
    config = MODULES[name].default_config()
    config.update({**SMALL[name], **overrides})
    return config


def make_agent(name, environment, **overrides) -> OnlineAgent:
    return getattr(MODULES[name], name)(make_config(name, **overrides), environment)


def trained(agent, num_steps, state, key):
    """The state after so many steps of one run, and its metrics [T]."""

    def one(state, key):
        state, metrics = agent.step(state, key)
        return state.replace(step=state.step + 1), metrics

    return jax.lax.scan(one, state, jax.random.split(key, num_steps))


def close(a, b):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=jax.tree_util.keystr(path))


def equal(a, b):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


# Probes


def any_probe(index) -> Environment:
    """The probe of a number that is known only when the program runs, so that one program serves all."""
    environments = [make() for make in PROBES]

    def pick(outcomes):
        return jax.tree.map(lambda *x: jnp.stack(x)[index], *outcomes)

    def reset(key):
        states, observations = zip(*(env.reset(key) for env in environments), strict=True)
        return states, pick(observations)

    def step(states, action, key):
        outcomes = [env.step(state, action, key) for env, state in zip(environments, states, strict=True)]
        states, time_steps = zip(*outcomes, strict=True)
        return states, pick(time_steps)

    return Environment(reset, step, num_actions=2, horizon=3)


@functools.cache
def probe_runs(name):
    """(parameters, finite?) of a run on every probe, all in one program."""

    def run(index, key):
        agent = make_agent(name, any_probe(index))
        state, metrics = trained(agent, PROBE_STEPS[name], agent.init(jax.random.key(0)), key)
        return state.params, jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in metrics.values()]))

    arguments = jnp.arange(len(PROBES)), jax.random.split(jax.random.key(1), len(PROBES))
    return jax.jit(jax.vmap(run), compiler_options=QUICK)(*arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", PROBES, ids=lambda make: make.__name__)
def test_probe(name, make):
    index = PROBES.index(make)
    params, finite = jax.tree.map(lambda x: x[index], probe_runs(name))
    assert finite
    places, values, best = ANSWERS[make]
    observations = jnp.array(places)[:, None]
    if name == "ppo":
        ours = ActorCritic(SMALL[name]["hidden_dims"], 2).apply(params["actor_critic"], observations)[1]
    else:
        ours = DiscreteCritic(SMALL[name]["hidden_dims"], 2).apply(params["critic"], observations).max(-1)
    np.testing.assert_allclose(ours, values, atol=0.1)
    if best is not None:
        actions = make_agent(name, make()).act(params, observations, jax.random.key(0), 0.0)
        np.testing.assert_array_equal(actions, best)


# The contract


@pytest.mark.parametrize("name", NAMES)
def test_one_optimiser_state_a_trained_network_and_no_buffer_twice(name):
    state = make_agent(name, cartpole()).init(jax.random.key(0))
    assert MODULES[name].default_config().name == name
    assert set(state.opt_state) == set(state.params) == NETWORKS[name]
    assert set(state.target_params) == ({"critic"} if name == "dqn" else set())
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)  # the core donates them
    equal(state.target_params.get("critic", 0), state.params["critic"] if name == "dqn" else 0)


@functools.cache
def few_steps(name):
    """A function of keys that trains a run of six steps on CartPole: key -> (state, metrics [6])."""
    agent = make_agent(name, cartpole(), **({"learning_starts": 32} if name == "dqn" else {}))
    return lambda key: trained(agent, 6, agent.init(key), key)


@pytest.mark.parametrize("name", ["ppo", pytest.param("dqn", marks=pytest.mark.slow)])
def test_seeds_side_by_side_are_the_seeds_one_by_one_and_report_the_norms_of_their_networks(name):
    keys = jax.random.split(jax.random.key(0), 2)
    both, metrics = jax.jit(jax.vmap(few_steps(name)), compiler_options=QUICK)(keys)
    alone = jax.jit(few_steps(name), compiler_options=QUICK)
    for run in range(2):
        close(jax.tree.map(lambda x, run=run: x[run], both), alone(keys[run])[0])
    assert not np.array_equal(*both.extra["copies"].observations)
    for network in NETWORKS[name]:
        assert np.all(metrics[f"{network}/grad_norm"][:, -1] > 0)
        assert np.all(metrics[f"{network}/update_norm"][:, -1] > 0)


@pytest.mark.parametrize("name", NAMES)
def test_floats_may_be_traced(name):
    """A sweep hands them in as arrays: an agent that branches on one, or makes a Python number of it, fails here."""
    config = make_config(name)

    def swept(floats):
        agent = getattr(MODULES[name], name)(with_floats(config, floats), cartpole())
        state, _ = agent.step(agent.init(jax.random.key(0)), jax.random.key(0))
        return agent.act(state.params, jnp.zeros((3, 4)), jax.random.key(0), 0.5)

    assert jax.eval_shape(swept, floats_of(config)).shape == (3,)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"batch_size=48 does not divide num_envs \* num_steps = 128: change one"):
        make_agent("ppo", cartpole(), batch_size=48)
    with pytest.raises(ValueError, match=r"buffer_size=1000 is no multiple of num_envs \* train_every = 16"):
        make_agent("dqn", cartpole(), buffer_size=1000)


# Collection


def test_a_rollout_counts_episodes_and_hands_out_their_last_observations():
    """Episodes of three steps, each worth 1, ended by time: seven steps end two in each of five copies."""
    environment = probes.time_out()
    copies = start(environment, 5, jax.random.key(0))
    assert (copies.last_return, copies.last_length) == (0.0, 0.0)
    draws = jnp.zeros((7, 5), jnp.int32)

    def go(copies, draws):
        return collect(environment, copies, lambda observations, draws: draws, draws, jax.random.key(1))

    copies, steps, metrics = go(copies, draws)
    assert {name: float(x) for name, x in metrics.items()} == {
        "episode/return": 3.0, "episode/length": 3.0, "episode/count": 10.0,
    }
    np.testing.assert_array_equal(steps.ends[:, 0], [0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(steps.masks, np.ones((7, 5)))
    np.testing.assert_array_equal(copies.returns, np.ones(5))
    np.testing.assert_array_equal(copies.lengths, np.ones(5))
    # Where no episode ends the last mean stands: no metric is ever NaN.
    _, _, metrics = go(copies, draws[:1])
    assert (metrics["episode/count"], metrics["episode/return"]) == (0.0, 3.0)


def test_the_next_observation_is_the_same_episodes():
    environment = probes.late_reward()
    copies, steps, _ = collect(
        environment, start(environment, 2, jax.random.key(0)), lambda x, draws: draws, jnp.zeros((5, 2), jnp.int32),
        jax.random.key(1),
    )
    np.testing.assert_array_equal(steps.observations[:, 0, 0], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(steps.next_observations[:, 0, 0], [1, 1, 1, 1, 1])
    np.testing.assert_array_equal(steps.rewards[:, 0], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(steps.masks[:, 0], [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(copies.observations[:, 0], [1, 1])


def test_the_buffer_holds_the_latest_steps():
    buffer = dqn.empty_buffer(jnp.zeros((2, 1)), 8)
    environment = probes.constant_reward()
    _, steps, _ = collect(
        environment, start(environment, 2, jax.random.key(0)), lambda x, draws: draws, jnp.zeros((2, 2), jnp.int32),
        jax.random.key(1),
    )
    for added in range(0, 20, 4):
        numbered = steps._replace(actions=added + jnp.arange(4, dtype=jnp.int32).reshape(2, 2))
        buffer = dqn.write(buffer, numbered, jnp.int32(added))
    np.testing.assert_array_equal(buffer.actions, [16, 17, 18, 19, 12, 13, 14, 15])
    np.testing.assert_array_equal(buffer.rewards, np.ones(8))


def test_exploration_falls_linearly_after_a_random_start():
    config = make_config("dqn", num_envs=1, train_every=4, learning_starts=100, exploration_steps=1000)
    # Steps before the actions; half of the way from 1 to 0.5 lies at 500.
    for steps, expected in [(0, 1.0), (96, 1.0), (100, 0.95), (500, 0.75), (1000, 0.5), (10**6, 0.5)]:
        assert dqn.epsilons(config, jnp.int32(steps // 4))[0] == pytest.approx(expected)
    np.testing.assert_allclose(dqn.epsilons(config, jnp.int32(125)), 0.75 - 0.0005 * np.arange(4), rtol=1e-5)
    two = make_config("dqn", num_envs=2, train_every=2, learning_starts=0, exploration_steps=1000)
    np.testing.assert_allclose(dqn.epsilons(two, jnp.int32(125)), [0.75, 0.749], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_acting_at_temperature_0_is_the_mode_and_at_1_it_is_not_always(name):
    agent = make_agent(name, cartpole())
    params = agent.init(jax.random.key(0)).params
    observations = jnp.broadcast_to(jnp.array([0.1, -0.2, 0.3, 0.5]), (400, 4))
    modes = {int(a) for seed in range(3) for a in agent.act(params, observations, jax.random.key(seed), 0.0)}
    assert len(modes) == 1
    actions = agent.act(params, observations, jax.random.key(0), 1.0)
    assert actions.dtype == jnp.int32 and 0.4 < float(jnp.mean(actions)) < 0.6  # PPO's policy starts almost uniform


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ppo_balances_the_pole_within_500_000_steps(seed):
    """The settings of PureJaxRL's `ppo.py`."""
    config = ppo.default_config()
    config.update({
        "activation": "tanh", "num_envs": 4, "batch_size": 128, "clip": 0.2, "value_clip": 0.2,
        "value_coefficient": 0.25, "decay_steps": 976,
    })
    agent = ppo.ppo(config, cartpole())
    step = jax.jit(lambda state, key: trained(agent, 61, state, key))
    state, curve = jax.jit(agent.init)(jax.random.key(seed)), []
    for key in jax.random.split(jax.random.key(seed), 16):
        state, metrics = step(state, key)
        curve.append(float(jnp.mean(metrics["episode/return"])))
    assert curve[-1] >= 475, curve
