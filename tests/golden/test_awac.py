"""AWAC's updates against the numbers that CORL's code gave (PROVENANCE.md)."""

import jax
import numpy as np

from rl_jax.agents import awac
from tests.golden.given import Golden, check_gradients


def test_awac_updates_are_corls(monkeypatch):
    golden = Golden("corl_awac", awac, awac.awac, hidden_dims=(16, 16, 16))
    state, update = golden.state(), jax.jit(golden.agent.update)
    # The normal draws of CORL's run, for the target's and for the advantage's actions, take the place of the keys.
    monkeypatch.setattr(jax.random, "split", lambda draws: draws)
    monkeypatch.setattr(jax.random, "normal", lambda draws, shape: draws.reshape(shape))
    for t, batch in enumerate(golden.batches):
        state, metrics = update(state, batch, golden.arrays["noise"][t])
        for network in ("critic", "actor"):
            np.testing.assert_allclose(metrics[f"{network}/loss"], golden.arrays[f"losses/{network}"][t], rtol=2e-5)
            if t == 0:
                check_gradients(golden, state, network)
        if t == 0:
            golden.check("after_one/params", state.params, atol=1e-5, rtol=1e-5)
            golden.check("after_one/target_params", state.target_params, atol=1e-5, rtol=1e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)
