"""Networks that train: one step by hand, the norms it reports, target copies, and updates that wait."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rl_jax.core.program import TrainState
from rl_jax.networks.trained import Networks, Trained, every, global_norm, when

LEARNING_RATE = 0.5
NETWORKS = Networks({
    "actor": Trained(lambda key, x: {"w": jax.random.normal(key, x.shape)}, optax.sgd(LEARNING_RATE)),
    "critic": Trained(lambda key, x: {"w": jax.random.normal(key, x.shape)}, optax.adam(0.1), tau=0.25),
    "scale": Trained(lambda key: {"s": jnp.zeros(())}, optax.sgd(1.0), tau=lambda step: 1.0 / (step + 2)),
})
X = jnp.array([1.0, 2.0, 2.0])


def initial() -> TrainState:
    return NETWORKS.init(jax.random.key(0), {"actor": (X,), "critic": (X,), "scale": ()}, extra={"seen": jnp.zeros(())})


def loss(params, x, shift):
    error = jnp.sum(params["w"] * x) - shift
    return error, {"actor/loss": error}


def equal(tree, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))


def test_a_state_has_an_optimiser_for_every_network_and_copies_of_those_that_have_a_target():
    state = initial()
    assert list(state.params) == list(state.opt_state) == ["actor", "critic", "scale"]
    assert set(state.target_params) == {"critic", "scale"} and state.step == 0 and state.extra == {"seen": 0.0}
    assert equal(state.target_params["critic"], state.params["critic"])
    leaves = jax.tree.leaves((state.params, state.target_params))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)  # the core donates the state
    assert not equal(state.params["actor"], state.params["critic"])  # each has a key of its own
    one = Networks({"actor": NETWORKS.trained["actor"]})
    drawn = {"w": jax.random.normal(jax.random.key(0), X.shape)}
    assert equal(one.init(jax.random.key(0), {"actor": (X,)}).params["actor"], drawn)
    assert equal(one.start({"actor": drawn}).params["actor"], drawn)


def test_a_step_moves_one_network_and_reports_both_norms():
    before = initial()
    after, metrics = NETWORKS.step(before, "actor", loss, X, 1.0)
    np.testing.assert_allclose(after.params["actor"]["w"], before.params["actor"]["w"] - LEARNING_RATE * X, rtol=1e-6)
    assert metrics.keys() == {"actor/loss", "actor/grad_norm", "actor/update_norm"}
    assert metrics["actor/loss"] == pytest.approx(float(jnp.sum(before.params["actor"]["w"] * X) - 1.0))
    assert (metrics["actor/grad_norm"], metrics["actor/update_norm"]) == (3.0, 3.0 * LEARNING_RATE)
    for name in ("critic", "scale"):
        assert equal(after.params[name], before.params[name]) and equal(after.opt_state[name], before.opt_state[name])
    assert equal(after.target_params, before.target_params) and after.extra == before.extra
    along, norms = NETWORKS.apply_gradient(before, "actor", {"w": X})
    assert equal(along, after) and norms == {name: metrics[name] for name in norms}


def test_the_norm_is_that_of_all_leaves_of_any_shape():
    tree = {"a": jnp.arange(6.0).reshape(1, 2, 3), "b": [jnp.float32(2.0), jnp.ones(4)]}
    assert global_norm(tree) == pytest.approx(np.sqrt(55.0 + 4.0 + 4.0))


def test_targets_follow_by_their_own_share_which_may_be_a_schedule():
    state = initial()
    state = state.replace(
        params=jax.tree.map(jnp.ones_like, state.params),
        target_params=jax.tree.map(jnp.zeros_like, state.target_params),
    )
    for step, share in [(0, 1 / 2), (3, 1 / 5)]:
        followed = NETWORKS.follow(state.replace(step=jnp.int32(step)))
        np.testing.assert_allclose(followed.target_params["critic"]["w"], 0.25)
        assert followed.target_params["scale"]["s"] == pytest.approx(share)
    assert equal(followed.params, state.params)


def test_what_is_not_due_leaves_the_state_and_reports_zeros():
    update = lambda state: NETWORKS.step(state, "critic", loss, X, 1.0)  # noqa: E731
    before = initial()
    for due in (True, False):
        after, metrics = jax.jit(lambda due: when(due, update, before))(due)
        assert equal(after.params["critic"], before.params["critic"]) != due
        assert all((value != 0) == due for value in metrics.values())
        assert after.step.dtype == jnp.int32


@pytest.mark.parametrize("period, first, due", [(3, 2, {2, 5}), (2, 0, {0, 2, 4}), (1, 0, set(range(6)))])
def test_an_update_of_every_so_many_steps_reports_the_mean_over_its_steps(period, first, due):
    update = lambda state: (NETWORKS.follow(state), {"metric": jnp.float32(7.0)})  # noqa: E731
    step = jax.jit(lambda state: every(period, update, state, first=first))
    state, metrics = initial(), []
    state = state.replace(target_params=jax.tree.map(lambda x: x + 1.0, state.target_params))
    for number in range(6):
        new, info = step(state.replace(step=jnp.int32(number)))
        assert equal(new.target_params, state.target_params) != (number in due)
        metrics.append(float(info["metric"]))
    assert np.mean(metrics) == pytest.approx(7.0)


def test_nothing_is_computed_while_an_update_waits_and_what_it_does_not_touch_stays_outside_of_the_branch():
    """The whole state goes in and out of `when`: a copy of all of it, a replay buffer included, would cost."""
    update = lambda state: NETWORKS.step(state, "actor", loss, X, 1.0)  # noqa: E731
    program = jax.make_jaxpr(lambda state: when(state.step > 3, update, state))(initial())
    (branch,) = (equation for equation in program.eqns if equation.primitive.name == "cond")
    changed = len(jax.tree.leaves(initial().params["actor"])) + 3  # parameters and three metrics; SGD has no state
    assert len(branch.outvars) == changed
