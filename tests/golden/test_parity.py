"""Updates of the agents against the numbers that their authors' and CORL's code gave (PROVENANCE.md)."""

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.agents import bc, iql, td3_bc
from tests.golden.given import Golden, check_gradients, use_given_draws


def test_iql_losses_and_gradients_are_corls():
    """At a learning rate of zero V stands still, and CORL's order (the policy sees the old V) is ours."""
    golden = Golden("corl_iql", iql, iql.iql, learning_rate=0.0)
    state, metrics = golden.update(golden.state(), golden.batches[0], jax.random.key(0))
    # CORL halves the critics' loss: it averages over the two where the authors add.
    for network, factor in [("value", 1.0), ("actor", 1.0), ("critic", 0.5)]:
        loss = factor * metrics[f"{network}/loss"]
        np.testing.assert_allclose(loss, golden.arrays[f"losses/{network}"][0], rtol=1e-5)
        check_gradients(golden, state, network, factor)


def test_iql_updates_are_the_authors():
    golden = Golden("authors_iql", iql, iql.iql)
    state = golden.state()
    for t, batch in enumerate(golden.batches):
        state, metrics = golden.update(state.replace(step=jnp.int32(t)), batch, jax.random.key(t))
        for network in ("value", "actor", "critic"):
            np.testing.assert_allclose(metrics[f"{network}/loss"], golden.arrays[f"losses/{network}"][t], rtol=2e-5)
        if t == 0:
            golden.check("after_one/params", state.params, atol=2e-6, rtol=1e-5)
            golden.check("after_one/target_params", state.target_params, atol=2e-6, rtol=1e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)


def test_td3_bc_updates_are_corls(monkeypatch):
    golden = Golden("corl_td3_bc", td3_bc, td3_bc.td3_bc)
    state = golden.state()
    use_given_draws(monkeypatch)
    actor_losses = []
    for t, batch in enumerate(golden.batches):
        state, metrics = golden.update(state.replace(step=jnp.int32(t)), batch, golden.arrays["noise"][t])
        np.testing.assert_allclose(metrics["critic/loss"], golden.arrays["losses/critic"][t], rtol=2e-5)
        actor_losses.append(float(metrics["actor/loss"]) / 2)  # logged so that the mean over all updates is the loss
        if t == 0:
            check_gradients(golden, state, "critic")
        if t == 1:
            check_gradients(golden, state, "actor")
    assert (actor_losses[0], actor_losses[2]) == (0.0, 0.0)
    np.testing.assert_allclose(actor_losses[1::2], golden.arrays["losses/actor"], rtol=2e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)


def test_bc_updates_are_corls():
    golden = Golden("corl_bc", bc, bc.bc)
    state = golden.state()
    for t, batch in enumerate(golden.batches):
        state, metrics = golden.update(state.replace(step=jnp.int32(t)), batch, jax.random.key(t))
        np.testing.assert_allclose(metrics["actor/loss"], golden.arrays["losses/actor"][t], rtol=1e-5)
        if t == 0:
            check_gradients(golden, state, "actor")
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
