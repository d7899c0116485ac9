"""ReBRAC's updates against the numbers that CORL's code gave (PROVENANCE.md)."""

import jax.numpy as jnp
import numpy as np

from rl_jax.agents import rebrac
from tests.golden.given import Golden, check_gradients, use_given_draws


def test_rebrac_updates_are_corls(monkeypatch):
    golden = Golden("corl_rebrac", rebrac, rebrac.rebrac, actor_penalty=0.4, critic_penalty=0.3)
    state = golden.state()
    use_given_draws(monkeypatch)
    actor_losses = []
    for t, batch in enumerate(golden.batches):
        state, metrics = golden.update(state.replace(step=jnp.int32(t)), batch, golden.arrays["noise"][t])
        np.testing.assert_allclose(metrics["critic/loss"], golden.arrays["losses/critic"][t], rtol=2e-5)
        actor_losses.append(float(metrics["actor/loss"]) / 2)  # logged so that the mean over all updates is the loss
        if t == 0:
            check_gradients(golden, state, "critic")
            check_gradients(golden, state, "actor")
    assert (actor_losses[1], actor_losses[3]) == (0.0, 0.0)
    np.testing.assert_allclose(actor_losses[::2], golden.arrays["losses/actor"], rtol=2e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)
