"""AWAC's updates against the numbers that CORL's code gave (PROVENANCE.md)."""

import numpy as np

from rl_jax.agents import awac
from tests.golden.given import Golden, check_gradients, use_given_draws


def test_awac_updates_are_corls(monkeypatch):
    golden = Golden("corl_awac", awac, awac.awac, hidden_dims=(16, 16, 16))
    state = golden.state()
    use_given_draws(monkeypatch)  # for the target's and for the advantage's actions
    for t, batch in enumerate(golden.batches):
        state, metrics = golden.update(state, batch, golden.arrays["noise"][t])
        for network in ("critic", "actor"):
            np.testing.assert_allclose(metrics[f"{network}/loss"], golden.arrays[f"losses/{network}"][t], rtol=2e-5)
            if t == 0:
                check_gradients(golden, state, network)
        if t == 0:
            golden.check("after_one/params", state.params, atol=1e-5, rtol=1e-5)
            golden.check("after_one/target_params", state.target_params, atol=1e-5, rtol=1e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)
