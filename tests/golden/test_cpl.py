"""CPL's losses and seven updates of each variant against what the authors' own code gave (PROVENANCE.md)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import cpl
from rl_jax.data.segments import Comparisons
from rl_jax.data.transitions import Transitions
from rl_jax.losses.preference import cpl_loss, preference_labels
from tests.golden.given import QUICK, short_name

with np.load(Path(__file__).parent / "authors_cpl.npz", allow_pickle=False) as file:
    GOLDEN = dict(file)
ARMS = {
    "cpl": (cpl.default_config, {"alpha": 0.5}), "cpl_bc": (cpl.cpl_bc_config, {"alpha": 0.5}),
    "cpl_kl": (cpl.cpl_kl_config, {"alpha": 1.0}), "sft": (cpl.sft_config, {}),
}


@pytest.mark.parametrize("bias", [1.0, 0.5])
def test_losses_are_the_authors(bias):
    def of_pairs(first):
        return jnp.mean(cpl_loss(first, GOLDEN["second"], GOLDEN["labels"], bias))

    def of_scores(scores):
        first, second = np.triu_indices(6, 1)
        order = GOLDEN["order"]
        return jnp.mean(cpl_loss(scores[first], scores[second], preference_labels(order[first], order[second]), bias))

    for name, loss, given in (("pairs", of_pairs, "first"), ("scores", of_scores, "scores")):
        value, gradient = jax.value_and_grad(loss)(jnp.asarray(GOLDEN[given]))
        np.testing.assert_allclose(value, GOLDEN[f"{name}/{bias}"], rtol=1e-5)
        np.testing.assert_allclose(gradient, GOLDEN[f"{name}/{bias}/gradient"], atol=1e-6)


@pytest.mark.parametrize("arm", [
    pytest.param(arm, marks=[pytest.mark.slow] if arm in ("cpl_bc", "sft") else []) for arm in ARMS
])
def test_updates_are_the_authors(arm):
    """Cloning, a fresh Adam and its warm-up, and the contrastive phase."""
    make, settings = ARMS[arm]
    config = make()
    config.update(
        hidden_dims=(16, 16), dropout=0.0, learning_rate=1e-2, cloning_steps=3, warmup_steps=3, **settings
    )
    batches = [comparisons(t) for t in range(7)]
    agent = cpl.cpl(config, 2)
    state = agent.init(jax.random.key(0), batches[0])
    actor = jax.tree_util.tree_map_with_path(lambda path, _: jnp.asarray(GOLDEN[f"params/{short_name(path)}"]),
                                             {"actor": state.params["actor"]})
    state = state.replace(params=actor)
    update, losses = jax.jit(agent.update, compiler_options=QUICK), []
    for t, batch in enumerate(batches):
        state, metrics = update(state.replace(step=jnp.int32(t)), batch, jax.random.key(t))
        later = "actor/contrastive_loss" if config.contrastive else "actor/loss"
        losses.append(metrics["actor/cloning_loss" if t < 3 else later])
    np.testing.assert_allclose(losses, GOLDEN[f"{arm}/losses"], rtol=2e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        np.testing.assert_allclose(leaf, GOLDEN[f"{arm}/after/{short_name(path)}"], atol=2e-5, rtol=1e-4)


def comparisons(t: int) -> Comparisons:
    observations, actions = (
        np.concatenate([GOLDEN[f"batch/{name}_{side}"][t] for side in (1, 2)]) for name in ("obs", "action")
    )
    ones = np.ones(actions.shape[:2], np.float32)
    steps = Transitions(observations, actions, 0 * ones, ones, observations)
    return Comparisons(steps, ones, np.arange(4), np.arange(4, 8), GOLDEN["batch/label"][t])
