"""ReBRAC: its delayed updates, the penalty in the critic's target and the one in the policy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.agents.cases import SIZE, act, make_agent, make_config, train, transitions, update_of

RNG = np.random.default_rng(5)
DATA = jax.tree.map(
    jnp.asarray, transitions(RNG.normal(size=SIZE), RNG.uniform(-1, 1, SIZE), RNG.normal(size=SIZE), masks=1.0)
)


def same(old, new) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))


def test_the_first_update_moves_the_policy_and_the_target_policy_follows_one_update_late():
    agent = make_agent("rebrac", policy_freq=3)
    update = update_of("rebrac", policy_freq=3)
    state = agent.init(jax.random.key(0), DATA)
    for done in range(7):
        new, metrics = update(state, DATA, jax.random.key(done))
        due = done % 3 == 0
        assert not same(state.params["critic"], new.params["critic"])
        assert same(state.params["actor"], new.params["actor"]) != due
        assert same(state.target_params["critic"], new.target_params["critic"]) != due
        assert (metrics["actor/loss"] != 0) == due
        if due:
            followed = {"actor": state.params["actor"], "critic": new.params["critic"]}
            expected = optax.incremental_update(followed, state.target_params, make_config("rebrac").tau)
            for a, b in zip(jax.tree.leaves(new.target_params), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        state = new.replace(step=state.step + 1)
    counts = {name: int(optax.tree_utils.tree_get(state.opt_state[name], "count")) for name in state.opt_state}
    assert counts == {"actor": 3, "critic": 7}


def zero_networks():
    """An update, and a state in which all networks are zero."""
    state = jax.tree.map(jnp.zeros_like, make_agent("rebrac").init(jax.random.key(0), DATA))
    return update_of("rebrac", policy_freq=3, critic_penalty=0.3, policy_noise=0.0), state


def test_the_target_is_less_by_the_distance_from_the_datas_next_action():
    update, state = zero_networks()
    _, metrics = update(state, DATA, jax.random.key(0))
    penalty = make_config("rebrac").discount * 0.3 * DATA.next_actions[:, 0] ** 2  # the policy's action is 0
    assert metrics["critic/loss"] == pytest.approx(2 * float(jnp.mean((DATA.rewards - penalty) ** 2)), rel=1e-5)


def test_no_penalty_beyond_a_terminal():
    update, state = zero_networks()
    _, metrics = update(state, DATA.replace(masks=jnp.zeros(SIZE)), jax.random.key(0))
    assert metrics["critic/loss"] == pytest.approx(2 * float(jnp.mean(DATA.rewards**2)), rel=1e-5)


def test_the_policy_weighs_q_against_cloning_in_closed_form():
    """With lambda = 1 / |Q(a)|, beta_1 mean (a - a_i)^2 - lambda Q(a) is least between the data's mean and the best."""
    best, behaviour, weight = 0.5, np.clip(RNG.normal(0.0, 0.4, SIZE), -1, 1), 0.8
    reward = lambda action: 1.0 - np.square(action - best)  # noqa: E731
    state, _ = train("rebrac", transitions(1.0, behaviour, reward(behaviour)), actor_penalty=weight)
    action = behaviour.mean()
    for _ in range(50):
        scale = 1.0 / abs(reward(action))
        action = (weight * behaviour.mean() + scale * best) / (weight + scale)
    assert behaviour.mean() + 0.15 < action < best - 0.15
    assert act("rebrac", state.params, [1.0])[0] == pytest.approx(action, abs=0.06)


def test_a_batch_without_next_actions_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"next_actions.*config.dataset.columns = \('next_actions',\)"):
        make_agent("rebrac").init(jax.random.key(0), DATA.replace(next_actions=None))
