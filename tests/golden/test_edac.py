"""EDAC's updates against the numbers that CORL's code gave (PROVENANCE.md)."""

import numpy as np

from rl_jax.agents import edac
from tests.golden.given import Golden, check_gradients, use_given_draws

LAYERS = {"hidden_dims": (16, 16, 16), "num_critics": 4}


def test_edac_updates_are_corls(monkeypatch):
    golden = Golden("corl_edac", edac, edac.edac, **LAYERS, eta=1.0)
    state = golden.state()
    use_given_draws(monkeypatch)
    for t, batch in enumerate(golden.batches):
        state, metrics = golden.update(state, batch, golden.arrays["noise"][t])
        for network in ("temperature", "actor", "critic"):
            loss = golden.arrays[f"losses/{network}"][t]
            np.testing.assert_allclose(metrics[f"{network}/loss"], loss, rtol=2e-5, atol=1e-5)
            if t == 0:
                check_gradients(golden, state, network)
        np.testing.assert_allclose(metrics["critic/similarity"], golden.arrays["losses/similarity"][t], atol=1e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)
