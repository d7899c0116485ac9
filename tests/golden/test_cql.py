"""CQL's and Cal-QL's updates against the numbers that CORL's code gave (PROVENANCE.md)."""

import numpy as np
import pytest

from rl_jax.agents import cql
from tests.golden.given import Golden, check_gradients, use_given_draws


@pytest.mark.parametrize("name", ["cql", "cal_ql"])
def test_updates_are_corls(name, monkeypatch):
    settings = {"actor_learning_rate": 5e-3, "num_samples": 3, "calibrated": name == "cal_ql"}
    golden = Golden(f"corl_{name}", cql, cql.cql, **settings)
    state = golden.state()
    use_given_draws(monkeypatch)
    for t, batch in enumerate(golden.batches):
        (own, next_own), uniform = golden.arrays["noise/normal"][t], golden.arrays["noise/uniform"][t]
        draws = (own[0], next_own[0], (uniform, own[1:], next_own[1:]))
        state, metrics = golden.update(state, batch, draws)
        for metric in golden.under("losses"):
            reported = metrics[f"critic/{metric}" if metric in ("gap", "bounded") else f"{metric}/loss"]
            np.testing.assert_allclose(reported, golden.arrays[f"losses/{metric}"][t], rtol=1e-5, err_msg=metric)
        if t == 0:
            for network in ("temperature", "actor", "critic"):
                check_gradients(golden, state, network)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)


def test_the_returns_bound_some_values_and_not_others_in_the_golden_batches():
    bounded = Golden("corl_cal_ql", cql, cql.cql).arrays["losses/bounded"]
    assert bounded.min() > 0.1 and bounded.max() < 0.9
