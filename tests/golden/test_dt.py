"""The decision transformer against the numbers that CORL's code gave (PROVENANCE.md)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import dt
from rl_jax.core.mesh import path_name
from rl_jax.core.program import PyTree
from rl_jax.data.sequences import Sequences
from rl_jax.networks.decision_transformer import DecisionTransformer
from tests.golden.given import QUICK, gradients

SETTINGS = {
    "embedding_dim": 8, "num_layers": 2, "num_heads": 2, "max_timesteps": 20, "dropout": 0.0, "learning_rate": 1e-2,
    "warmup_steps": 3, "weight_decay": 0.05, "clip_norm": 0.9, "return_scale": 1000.0,
}
with np.load(Path(__file__).parent / "corl_dt.npz", allow_pickle=False) as file:
    ARRAYS = dict(file)
BATCHES = [
    Sequences(**{field: ARRAYS[f"batch/{field}"][t] for field in Sequences.__dataclass_fields__}) for t in range(3)
]


def make_agent(**overrides):
    config = dt.default_config()
    config.update({**SETTINGS, **overrides})
    return dt.dt(config, 3)


def given_state(agent):
    state = jax.jit(agent.init)(jax.random.key(0), BATCHES[0])
    params = jax.tree_util.tree_map_with_path(lambda path, x: jnp.asarray(ARRAYS[named("params", path)]), state.params)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, state.params)
    return state.replace(params=params)


def named(prefix: str, path) -> str:
    return f"{prefix}/{path_name(path).removeprefix('actor/params/')}"


def check(prefix: str, tree: PyTree, **tolerance: float) -> None:
    """Every leaf against the golden one of its name.

    The bias of the attention's keys is left out: it adds the same to all scores of a query, so its gradient is zero but
    for rounding, and Adam divides that by its own size.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    assert {named(prefix, path) for path, _ in leaves} == {name for name in ARRAYS if name.startswith(f"{prefix}/")}
    for path, x in leaves:
        name, expected = named(prefix, path), ARRAYS[named(prefix, path)]
        if name.endswith("qkv/bias"):
            x, expected = (np.delete(values, np.s_[8:16]) for values in (x, expected))
        np.testing.assert_allclose(x, expected, **tolerance, err_msg=name)


def test_predictions_are_corls_in_a_padded_batch():
    network = DecisionTransformer(3, *(SETTINGS[field] for field in ("embedding_dim", "num_layers", "num_heads")), 20)
    batch, mask = BATCHES[0], BATCHES[0].mask
    inputs = (batch.observations, batch.actions, batch.returns_to_go / 1000.0, batch.timesteps, mask)
    predicted = jax.jit(network.apply)(given_state(make_agent()).params["actor"], *inputs)
    np.testing.assert_allclose(predicted * mask[:, :, None], ARRAYS["predicted"] * mask[:, :, None], atol=1e-5)


def test_actions_are_corls_in_a_context_that_grows():
    """CORL shows the network the steps so far, as many as there are; here they are padded before."""
    agent, whole = make_agent(), jax.tree.map(lambda x: x[ARRAYS["context/row"]], BATCHES[0])
    contexts = []
    for shown in range(1, 5):
        contexts.append(jax.tree.map(lambda x: np.concatenate([np.zeros_like(x[shown:]), x[:shown]]), whole))
        contexts[-1].actions[-1] = 0.0
    context = jax.tree.map(lambda *x: np.stack(x), *contexts)
    actions = jax.jit(agent.act)(given_state(agent).params, context, jax.random.key(0), 0.0)
    np.testing.assert_allclose(actions, ARRAYS["context/actions"], atol=1e-5)


def test_gradients_are_corls():
    agent = make_agent(clip_norm=1e9)
    state, metrics = jax.jit(agent.update, compiler_options=QUICK)(given_state(agent), BATCHES[0], jax.random.key(0))
    assert metrics["actor/loss"] == pytest.approx(ARRAYS["losses"][0], rel=1e-5)
    check("grads", gradients(state, "actor"), rtol=1e-5, atol=1e-6)


def test_updates_are_corls():
    """Warm-up, the clip of the gradient (of three norms the last lies below it) and AdamW, over three updates."""
    agent = make_agent()
    state, update = given_state(agent), jax.jit(agent.update, compiler_options=QUICK)
    for t, batch in enumerate(BATCHES):
        state, metrics = update(state, batch, jax.random.key(t))
        assert metrics["actor/loss"] == pytest.approx(ARRAYS["losses"][t], rel=2e-5)
    check("after", state.params, rtol=1e-5, atol=1e-5)
