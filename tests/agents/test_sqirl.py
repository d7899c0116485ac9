"""SQIRL: its targets, its buffer and its regressors by hand, and MDPs whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import sqirl
from rl_jax.networks.encoders import num_states
from rl_jax.tabular.effective_horizon import analyze
from rl_jax.tabular.environment import environment
from rl_jax.tabular.mdp import TabularMDP
from rl_jax.tabular.planning import policy_return

# Action 0 leads to a state that is worth 1 whatever is done, action 1 to one that is worth 3 or -3: at random, 0.
TRAP = TabularMDP(
    np.array([[1, 2], [-1, -1], [-1, -1]], np.int32), np.array([[0, 0], [1, 1], [3, -3]], np.float32), horizon=2
)
# Action 1 is worth 1 at each of the steps, action 0 nothing.
COUNT = TabularMDP(np.zeros((1, 2), np.int32), np.array([[0.0, 1.0]], np.float32), horizon=4)
RNG = np.random.default_rng(0)


def settings(**overrides):
    config = sqirl.default_config()
    config.update({"buffer_size": 4000, "num_episodes": 50, "num_envs": 16, **overrides})
    return config


def make(mdp, samples=10**9, **overrides):
    config = settings(encoder=f"one_hot_{mdp.num_states}", **overrides)
    return sqirl.sqirl(config, environment(mdp, observe=lambda state: state), samples)


def trained(agent, num_steps, seed=0):
    """The states after each step."""
    step = jax.jit(lambda state, key: agent.step(state, jax.random.fold_in(key, state.step)))
    states, state = [], jax.jit(agent.init)(jax.random.key(seed))
    for _ in range(num_steps):
        state, metrics = step(state, jax.random.key(seed))
        state = state.replace(step=state.step + 1)
        states.append(state)
    return states, metrics


def greedy(agent, state, mdp):
    """The policy as probabilities, [T, S, A]."""
    act = jax.jit(jax.vmap(lambda time: agent.act(state, jnp.arange(mdp.num_states), time)))
    return np.eye(mdp.num_actions)[np.asarray(act(jnp.arange(mdp.horizon)))]


def test_targets_by_hand():
    next_q = jnp.array([[[1.0, 4.0], [2.0, 0.0], [9.0, 9.0]], [[5.0, 3.0], [7.0, 8.0], [9.0, 9.0]]])
    rest = jnp.array([10.0, 20.0]), jnp.array([0.5, -1.0]), jnp.array([1.0, 0.0])
    found = sqirl.targets(*rest, next_q, 0.5)
    np.testing.assert_allclose(found, [[10.0, 0.5 + 0.5 * 4, 0.5 + 0.5 * 2], [20.0, -1.0, -1.0]])
    gradient = jax.grad(lambda next_q: jnp.sum(sqirl.targets(*rest, next_q, 0.5)))(next_q)
    assert not gradient.any()  # what is regressed on does not move


def random_buffer(size=200, states=5):
    integers = lambda high: jnp.asarray(RNG.integers(0, high, size), jnp.int32)  # noqa: E731
    floats = lambda: jnp.asarray(RNG.normal(size=size), jnp.float32)  # noqa: E731
    masks = jnp.asarray(RNG.random(size) < 0.7, jnp.float32)
    return sqirl.Buffer(integers(states), integers(2), floats(), masks, integers(states), floats())


def test_the_table_is_the_least_squares_solution_of_every_backup():
    config = settings(k=3, encoder="one_hot_5", discount=0.9, regressor="table")
    regressor, buffer, filled = sqirl.table_regressor(config, 2), random_buffer(), 150
    state = regressor.networks.init(jax.random.key(0), {"critic": (None,)})
    state, losses = jax.jit(lambda state: regressor.fit(state, buffer, filled, None, None))(state)
    table, rows = state.params["critic"], jax.tree.map(lambda x: np.asarray(x)[:filled], buffer)
    features = np.zeros((filled, 10))
    features[np.arange(filled), 2 * rows.observations + rows.actions] = 1.0
    wanted = rows.returns
    for k in range(3):
        weights = np.linalg.lstsq(features, wanted, rcond=None)[0]
        np.testing.assert_allclose(table[:, k].reshape(-1), weights, atol=1e-5)
        error = np.mean(np.square(features @ weights - wanted))
        assert losses[f"critic/loss_{k + 1}"] == pytest.approx(error, rel=1e-4)
        wanted = rows.rewards + 0.9 * rows.masks * weights.reshape(5, 2).max(-1)[rows.next_observations]


def test_a_heads_loss_is_divided_by_its_running_mean():
    """The first mean is the first loss, so the first update is that of loss_1 / loss_1 + loss_2 / loss_2, halved,
    whatever the heads' scales; the means then move by 1% of the loss."""
    config = settings(k=2, encoder="one_hot_5", learning_rate=0.0, batch_size=64)
    regressor, buffer = sqirl.network_regressor(config, 2), random_buffer()
    state = regressor.networks.init(jax.random.key(0), {"critic": (jnp.zeros(1, jnp.int32),)}, {"scales": jnp.zeros(2)})
    fit = jax.jit(lambda buffer, number: regressor.fit(state, buffer, 200, number, jax.random.key(1)))

    def fitted(number, scale=1.0):
        after, metrics = fit(buffer._replace(returns=scale * buffer.returns, rewards=scale * buffer.rewards), number)
        losses = np.array([metrics["critic/loss_1"], metrics["critic/loss_2"]])
        return np.asarray(after.extra["scales"]), losses, metrics

    first, losses, metrics = fitted(1)
    np.testing.assert_array_equal(first, losses)
    second, losses, _ = fitted(2)
    np.testing.assert_allclose(second, 0.99 * first + 0.01 * losses, rtol=1e-6)
    assert (np.abs(second - first) > 1e-6 * first).all()
    # Targets a thousand times as large: q is next to nothing, and the relative errors are about 1 / target.
    _, large, scaled = fitted(1, 1000.0)
    assert (large > 1e5 * losses).all() and scaled["critic/grad_norm"] < metrics["critic/grad_norm"]


@pytest.mark.parametrize("regressor, k, best", [("table", 1, 1.0), ("table", 2, 3.0), ("network", 2, 3.0)])
def test_one_step_of_iteration_falls_into_the_trap_and_two_do_not(regressor, k, best):
    assert analyze(TRAP).min_k == 2
    agent = make(TRAP, k=k, regressor=regressor, num_episodes=200, learning_rate=3e-3, num_epochs=200)
    states, _ = trained(agent, TRAP.horizon)
    assert policy_return(TRAP, greedy(agent, states[-1], TRAP)) == best


def test_only_steps_after_which_all_is_random_are_kept_and_all_are_counted():
    agent = make(COUNT, regressor="table", num_episodes=7, num_envs=4)
    states, metrics = trained(agent, COUNT.horizon)
    state = states[-1]
    assert state.extra["samples"] == 4 * 7 * 4 and state.extra["added"] == 7 * (4 + 3 + 2 + 1)
    # By the last timestep the first three actions are the greedy ones, of reward 1 each.
    assert 3.0 <= metrics["episode/return"] <= 4.0
    np.testing.assert_array_equal(greedy(agent, state, COUNT)[..., 1], 1.0)
    # A return is the random continuation's, so action 1 is worth one more than action 0.
    q = np.asarray(state.params["critic"][0, 0])
    assert q[1] - q[0] == pytest.approx(1.0, abs=0.6)


def test_what_is_frozen_stays_and_the_newest_acts_after_it():
    agent = make(COUNT, regressor="table", num_episodes=20)
    prefers = lambda action: jnp.eye(2)[action].reshape(1, 1, 2)  # noqa: E731
    state = jax.jit(agent.init)(jax.random.key(0))
    frozen = state.target_params["critic"].at[0].set(prefers(0)).at[3].set(prefers(0))
    state = state.replace(params={"critic": prefers(1)}, target_params={"critic": frozen})
    # Nothing, one timestep and all of an attempt are frozen, then one of the next attempt.
    for step, actions in ((0, [1, 1, 1, 1]), (1, [0, 1, 1, 1]), (4, [0, 0, 0, 0]), (5, [0, 1, 1, 1])):
        policy = greedy(agent, state.replace(step=jnp.int32(step)), COUNT)
        assert policy[:, 0].argmax(-1).tolist() == actions, step


def test_an_attempt_begins_anew_with_more_episodes_and_stops_when_its_samples_are_spent():
    agent = make(COUNT, samples=400, num_episodes=3, growth=4, num_envs=2, num_epochs=1, hidden_dims=(8,))
    states, _ = trained(agent, 3 * COUNT.horizon)
    samples = [int(state.extra["samples"]) for state in states]
    # 3, 12 and 48 episodes of 4 steps a timestep; 48 of them take 192, and the third time they pass 400.
    assert samples == [12, 24, 36, 48, 48, 96, 144, 192, 192, 384, 576, 576]
    assert [int(state.extra["added"]) for state in states[3:5]] == [3 * (4 + 3 + 2 + 1), 12 * 4]
    # Adam counts from the start again; an update is made of each 128 samples that are begun, none of no samples.
    updates = [int(state.opt_state["critic"][1][0].count) for state in states]
    assert updates == [1, 2, 3, 4, 1, 2, 3, 4, 2, 4, 6, 6]
    last = jax.tree.leaves(jax.tree.map(lambda x: np.asarray(x[3] - x[2]), states[-1].target_params))
    assert not any(x.any() for x in last)
    # The network is another one, and not that which the attempt before ended with.
    kernels = [np.asarray(jax.tree.leaves(state.params)[-1]) for state in states]
    assert np.abs(kernels[4] - kernels[3]).max() > 0.05 > np.abs(kernels[3] - kernels[2]).max()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"regressor": "tabel"}, "unknown regressor in config.agent.regressor 'tabel': did you mean table"),
        ({"k": 0}, "config.agent.k is 0: give at least 1"),
        ({"growth": 0}, "config.agent.growth is 0: give at least 1"),
        ({"regressor": "table", "encoder": "none"}, "for state numbers it is one_hot_<how many states there are>"),
    ],
)
def test_what_cannot_work_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        sqirl.sqirl(settings(**{"encoder": "one_hot_3", **fields}), environment(TRAP), 100)


def test_the_number_of_states_is_part_of_the_encoders_name():
    assert num_states("one_hot_12") == 12
