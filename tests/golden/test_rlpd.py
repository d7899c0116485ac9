"""RLPD's updates against the numbers that its authors' code gave (PROVENANCE.md)."""

import jax
import numpy as np

from rl_jax.agents import rlpd
from tests.golden.given import Golden, check_gradients, use_given_draws


def test_rlpd_updates_are_the_authors(monkeypatch):
    golden = Golden("authors_rlpd", rlpd, rlpd.rlpd, num_critics=4, num_min_critics=2, utd=2)
    state = golden.state()
    use_given_draws(monkeypatch)
    monkeypatch.setattr(jax.random, "choice", lambda drawn, *args, **fields: drawn)
    actor_noise, next_noise, members = (golden.arrays[name] for name in ("noise/actor", "noise/next", "members"))
    for t, batch in enumerate(golden.batches):
        # Their minibatches are the halves of a batch, ours every second row.
        ours = jax.tree.map(lambda x: np.stack(np.split(x, 2), 1).reshape(x.shape), batch)
        state, metrics = golden.update(state, ours, (actor_noise[t], (next_noise[t], members[t])))
        for network in ("critic", "actor", "temperature"):
            loss = np.mean(golden.arrays[f"losses/{network}"][t])
            np.testing.assert_allclose(metrics[f"{network}/loss"], loss, rtol=2e-5, atol=1e-5)
        if t == 0:
            check_gradients(golden, state, "actor")
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)
