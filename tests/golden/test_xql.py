"""XQL's updates against the numbers that its authors' code gave (PROVENANCE.md)."""

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.agents import xql
from tests.golden.given import Golden, check_gradients

# The third update fits V to two uniform actions an observation besides, the fourth to noisy ones.
STAGES = [{}, {"random_actions": 2}, {"noise_std": 0.3}]
STAGE = [0, 0, 1, 2]  # of an update


def test_xql_updates_are_the_authors(monkeypatch):
    stages = [Golden("authors_xql", xql, xql.xql, beta=0.5, max_clip=4.0, **stage) for stage in STAGES]
    golden = stages[0]
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: golden.arrays["noise"][3].reshape(shape))
    # The authors repeat each observation where we tile all of them: the same pairs in another order.
    uniform = golden.arrays["uniform"].reshape(8, 2, 3).swapaxes(0, 1).reshape(16, 3)
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **_: uniform[: shape[0]])
    state = golden.state()
    for t, batch in enumerate(golden.batches):
        state, metrics = stages[STAGE[t]].update(state.replace(step=jnp.int32(t)), batch, jax.random.key(t))
        for network in ("value", "actor", "critic"):
            np.testing.assert_allclose(metrics[f"{network}/loss"], golden.arrays[f"losses/{network}"][t], rtol=2e-5)
            if t == 0:
                check_gradients(golden, state, network)
        assert metrics["value/clipped"] > 0  # the clip acts in every batch
        if t == 0:
            golden.check("after_one/params", state.params, atol=1e-5, rtol=1e-5)
            golden.check("after_one/target_params", state.target_params, atol=1e-5, rtol=1e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)
