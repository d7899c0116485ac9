"""SQIRL: its targets, its buffer and its regressors by hand, and MDPs whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import sqirl
from rl_jax.envs.tabular import TabularMDP, environment
from rl_jax.evaluation.planning import analyze, policy_return
from rl_jax.networks.encoders import num_states

# Action 0 leads to a state that is worth 1 whatever is done, action 1 to one that is worth 3 or -3: at random, 0.
TRAP = TabularMDP(
    np.array([[1, 2], [-1, -1], [-1, -1]], np.int32), np.array([[0, 0], [1, 1], [3, -3]], np.float32), horizon=2
)
RNG = np.random.default_rng(0)


def make(mdp, sticky=0.0, **overrides):
    config = sqirl.default_config()
    config.update({"encoder": f"one_hot_{mdp.num_states}", "buffer_size": 4000, "num_episodes": 50, **overrides})
    return sqirl.sqirl(config, environment(mdp, sticky, observe=lambda state: state))


def trained(agent, mdp, seed=0):
    state, step = agent.init(jax.random.key(seed)), jax.jit(agent.step)
    for number in range(mdp.horizon):
        state, metrics = step(state, jax.random.key(1000 * seed + number))
        state = state.replace(step=state.step + 1)
    return state, metrics


def greedy(agent, state, mdp):
    """The policy as probabilities, [T, S, A]."""
    actions = [agent.act(state, jnp.arange(mdp.num_states), jnp.int32(time)) for time in range(mdp.horizon)]
    return np.eye(mdp.num_actions)[np.stack(actions)]


def test_targets_by_hand():
    next_q = jnp.array([[[1.0, 4.0], [2.0, 0.0], [9.0, 9.0]], [[5.0, 3.0], [7.0, 8.0], [9.0, 9.0]]])
    found = sqirl.targets(jnp.array([10.0, 20.0]), jnp.array([0.5, -1.0]), jnp.array([1.0, 0.0]), next_q, 0.5)
    np.testing.assert_allclose(found, [[10.0, 0.5 + 0.5 * 4, 0.5 + 0.5 * 2], [20.0, -1.0, -1.0]])


def random_buffer(size=200, states=5):
    integers = lambda high: jnp.asarray(RNG.integers(0, high, size), jnp.int32)  # noqa: E731
    floats = lambda: jnp.asarray(RNG.normal(size=size), jnp.float32)  # noqa: E731
    masks = jnp.asarray(RNG.random(size) < 0.7, jnp.float32)
    return sqirl.Buffer(integers(states), integers(2), floats(), masks, integers(states), floats())


def test_the_table_is_the_least_squares_solution_of_every_backup():
    config = sqirl.default_config()
    config.update({"k": 3, "encoder": "one_hot_5", "discount": 0.9, "regressor": "table"})
    buffer, filled = random_buffer(), 150
    (table, _), _, losses = sqirl.table_regressor(config, 2).fit(((), ()), None, buffer, filled, None, None)
    rows = jax.tree.map(lambda x: np.asarray(x)[:filled], buffer)
    features = np.zeros((filled, 10))
    features[np.arange(filled), 2 * rows.observations + rows.actions] = 1.0
    wanted = rows.returns
    for k in range(3):
        weights = np.linalg.lstsq(features, wanted, rcond=None)[0]
        np.testing.assert_allclose(table[:, k].reshape(-1), weights, atol=1e-5)
        assert losses[k] == pytest.approx(np.mean(np.square(features @ weights - wanted)), rel=1e-4)
        wanted = rows.rewards + 0.9 * rows.masks * weights.reshape(5, 2).max(-1)[rows.next_observations]


def test_a_heads_loss_is_divided_by_its_running_mean():
    """With a learning rate of 0 the first mean is the first loss, so the gradient that Adam sees is that of
    (loss_1 / loss_1 + loss_2 / loss_2) / 2 whatever the heads' scales; the means then move by 1% of the loss."""
    config = sqirl.default_config()
    config.update({"k": 2, "encoder": "one_hot_5", "learning_rate": 0.0, "batch_size": 64})
    regressor, buffer = sqirl.network_regressor(config, 2), random_buffer()
    fitted = regressor.init(jax.random.key(0), jnp.zeros(1, jnp.int32))

    def fit(number, scales):
        return regressor.fit(fitted, scales, buffer, jnp.int32(200), jnp.int32(number), jax.random.key(1))

    _, first, losses = fit(1, jnp.zeros(2))
    np.testing.assert_array_equal(first, losses)
    _, second, losses = fit(2, jnp.zeros(2))
    np.testing.assert_allclose(second, 0.99 * first + 0.01 * losses, rtol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(second, first, rtol=1e-6)


@pytest.mark.parametrize("regressor", ["table", "network"])
@pytest.mark.parametrize("k, best", [(1, 1.0), (2, 3.0)])
def test_one_step_of_iteration_falls_into_the_trap_and_two_do_not(k, best, regressor):
    assert analyze(TRAP).min_k == 2
    agent = make(TRAP, k=k, regressor=regressor, num_episodes=200, learning_rate=3e-3, num_epochs=200)
    state, _ = trained(agent, TRAP)
    assert policy_return(TRAP, greedy(agent, state, TRAP)) == best


@pytest.mark.slow
@pytest.mark.parametrize("regressor", ["table", "network"])
def test_candidates_of_k_and_m_run_side_by_side_as_alone(regressor):
    """k and m are traced, the shapes are the largest ones': each run is the one that has the same room alone."""
    fields = {"regressor": regressor, "max_k": 3, "max_num_episodes": 40, "num_epochs": 5, "batch_size": 32}
    candidates = [(2, 40), (3, 7)]

    def after(k, episodes):
        config = sqirl.default_config()
        config.update({"encoder": "one_hot_3", "buffer_size": 4000, **fields})
        with config.ignore_type():
            config.k, config.num_episodes = k, episodes
        agent = sqirl.sqirl(config, environment(TRAP, 0.0, observe=lambda state: state))
        return trained(agent, TRAP)

    side_by_side, _ = jax.jit(jax.vmap(after))(*(jnp.array(values) for values in zip(*candidates, strict=True)))
    alone = jax.jit(after)
    for number, (k, episodes) in enumerate(candidates):
        own, metrics = alone(jnp.int32(k), jnp.int32(episodes))
        jax.tree.map(
            lambda x, one: np.testing.assert_allclose(x[number], one, atol=2e-5, rtol=1e-5), side_by_side, own
        )
        assert own.extra["samples"] == 2 * 2 * episodes and own.extra["added"] == 3 * episodes
        if regressor == "network":  # a head that is not used does not learn
            assert [float(metrics[f"critic/loss_{head}"]) > 0 for head in (1, 2, 3)] == [True, True, k == 3]


def test_only_steps_after_which_all_is_random_are_kept_and_all_are_counted():
    mdp = TabularMDP(np.zeros((1, 2), np.int32), np.array([[0.0, 1.0]], np.float32), horizon=4)
    agent = make(mdp, regressor="table", num_episodes=7)
    state, metrics = trained(agent, mdp)
    assert state.extra["samples"] == 4 * 7 * 4 and state.extra["added"] == 7 * (4 + 3 + 2 + 1)
    # By the last timestep the first three actions are the greedy ones, of reward 1 each.
    assert 3.0 <= metrics["episode/return"] <= 4.0
    np.testing.assert_array_equal(greedy(agent, state, mdp)[..., 1], 1.0)
    # A return is the random continuation's, so action 1 is worth one more than action 0.
    q = np.asarray(state.params["critic"][0, 0])
    assert q[1] - q[0] == pytest.approx(1.0, abs=0.6)


def test_what_is_frozen_stays_and_the_newest_acts_after_it():
    mdp = TabularMDP(np.zeros((1, 2), np.int32), np.array([[0.0, 1.0]], np.float32), horizon=3)
    agent = make(mdp, regressor="table", num_episodes=20)
    state = agent.init(jax.random.key(0)).replace(step=jnp.int32(1))
    prefers = lambda action: jnp.eye(2)[action].reshape(1, 1, 2)  # noqa: E731
    frozen = state.target_params["critic"].at[0].set(prefers(0))
    state = state.replace(params={"critic": prefers(1)}, target_params={"critic": frozen})
    assert [int(agent.act(state, jnp.zeros(1, jnp.int32), jnp.int32(time))[0]) for time in range(3)] == [0, 1, 1]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"regressor": "tabel"}, "unknown regressor in config.agent.regressor 'tabel': did you mean table"),
        ({"k": 3, "max_k": 2}, "k is 3 and max_k 2: give at least 1, and a maximum as large"),
        ({"k": 0}, "k is 0 and max_k 0: give at least 1"),
        ({"regressor": "table", "encoder": "none"}, "for state numbers it is one_hot_<how many states there are>"),
    ],
)
def test_what_cannot_work_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make(TRAP, **fields)


def test_the_number_of_states_is_part_of_the_encoders_name():
    assert num_states("one_hot_12") == 12
