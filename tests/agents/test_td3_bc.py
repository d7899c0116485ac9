"""TD3+BC: the delayed updates and the smoothing of the target policy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.agents.cases import SIZE, make_agent, make_config, transitions, update_of

RNG = np.random.default_rng(2)
DATA = jax.tree.map(
    jnp.asarray, transitions(RNG.normal(size=SIZE), RNG.uniform(-1, 1, SIZE), RNG.normal(size=SIZE), masks=1.0)
)


def same(old, new) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))


def test_the_policy_and_the_targets_move_at_every_policy_freqth_update():
    state, update = make_agent("td3_bc").init(jax.random.key(0), DATA), update_of("td3_bc", policy_freq=3)
    for done in range(1, 8):
        new, metrics = update(state, DATA, jax.random.key(done))
        due = done % 3 == 0
        assert not same(state.params["critic"], new.params["critic"])
        assert same(state.params["actor"], new.params["actor"]) != due
        assert same(state.target_params["actor"], new.target_params["actor"]) != due
        assert same(state.target_params["critic"], new.target_params["critic"]) != due
        assert (metrics["actor/loss"] != 0) == due
        if due:  # towards the critic of this very update
            expected = optax.incremental_update(new.params, state.target_params, make_config("td3_bc").tau)
            for a, b in zip(jax.tree.leaves(new.target_params), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        state = new.replace(step=state.step + 1)
    counts = {name: int(optax.tree_utils.tree_get(state.opt_state[name], "count")) for name in state.opt_state}
    assert counts == {"actor": 2, "critic": 7}


def test_waiting_updates_are_not_computed_where_two_seeds_train_side_by_side():
    """All seeds share the step, so the branch stays a branch; a batched predicate would compute both and select."""
    agent = make_agent("td3_bc", hidden_dims=(8,))

    def init(key):
        return agent.init(key, DATA).replace(step=None)

    def update(states, step, keys):
        return jax.vmap(lambda state, key: agent.update(state.replace(step=step), DATA, key)[0].params)(states, keys)

    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.eval_shape(jax.vmap(init), keys)
    text = jax.jit(update).lower(states, jnp.int32(0), keys).compile().as_text()
    assert " conditional(" in text


def smoothed_loss(noise_clip: float, policy_noise: float) -> float:
    """The critic's loss where the target is discount * noise: Q is 0, Q' the action, pi' 0 and the reward 0."""
    state = jax.tree.map(jnp.zeros_like, make_agent("td3_bc").init(jax.random.key(0), DATA))
    critic = state.target_params["critic"]["params"]["members"]["MLP_0"]
    # relu(a) - relu(-a) = a, for both members; the second input of the critic is the action.
    first, second, last = (critic[f"Dense_{i}"] for i in range(3))
    first["kernel"] = first["kernel"].at[:, 1, :2].set(jnp.array([1.0, -1.0]))
    second["kernel"] = second["kernel"] + jnp.eye(second["kernel"].shape[-1])
    last["kernel"] = last["kernel"].at[:, :2, 0].set(jnp.array([1.0, -1.0]))
    update = update_of("td3_bc", policy_freq=3, noise_clip=noise_clip, policy_noise=policy_noise)
    _, metrics = update(state, DATA.replace(rewards=jnp.zeros(SIZE)), jax.random.key(0))
    return float(metrics["critic/loss"])


def test_target_smoothing_noise_is_clipped_and_so_is_the_action():
    discount = make_config("td3_bc").discount
    both = 2 * discount**2  # the loss adds two members
    assert smoothed_loss(noise_clip=0.5, policy_noise=0.0) == 0.0
    # Noise of a huge deviation is the clip itself, with either sign.
    assert smoothed_loss(noise_clip=0.1, policy_noise=1e6) == pytest.approx(both * 0.1**2, rel=1e-5)
    assert smoothed_loss(noise_clip=0.5, policy_noise=1e6) == pytest.approx(both * 0.5**2, rel=1e-5)
    # Beyond the box the action is clipped.
    assert smoothed_loss(noise_clip=7.0, policy_noise=1e6) == pytest.approx(both, rel=1e-5)
    # A small one is not clipped: the mean square of SIZE normal draws.
    assert smoothed_loss(noise_clip=0.5, policy_noise=0.05) == pytest.approx(both * 0.05**2, rel=0.4)
