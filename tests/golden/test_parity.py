"""Updates of the agents against the numbers that their authors' and CORL's code gave (PROVENANCE.md)."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rl_jax.agents import bc, iql, td3_bc
from rl_jax.agents.agent import Agent
from rl_jax.core.program import PyTree, TrainState
from rl_jax.data.transitions import Transitions

FIELDS = Transitions.__dataclass_fields__
SETTINGS = {
    "hidden_dims": (16, 16), "learning_rate": 1e-2, "decay_steps": 4, "discount": 0.99, "tau": 0.05, "expectile": 0.7,
    "temperature": 3.0, "alpha": 2.5, "policy_noise": 0.2, "noise_clip": 0.3, "policy_freq": 2,
}  # fmt: skip


class Golden:
    """One file of golden numbers and the agent that must give them."""

    def __init__(self, name: str, module: Any, factory: Any, **overrides: Any):
        with np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = dict(file)
        config = module.default_config()
        config.update({field: value for field, value in {**SETTINGS, **overrides}.items() if field in config})
        self.agent: Agent = factory(config, self.arrays["batch/actions"].shape[-1])
        self.batches = [Transitions(**{f: self.arrays[f"batch/{f}"][t] for f in FIELDS}) for t in range(self.steps)]

    @property
    def steps(self) -> int:
        return self.arrays["batch/rewards"].shape[0]

    def state(self) -> TrainState:
        """A fresh state with the given weights."""
        state = jax.eval_shape(self.agent.init, jax.random.key(0), self.batches[0])
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
        networks = {prefix: self.fill(prefix, getattr(zeros, prefix)) for prefix in ("params", "target_params")}
        return zeros.replace(**networks)

    def fill(self, prefix: str, tree: PyTree) -> PyTree:
        def leaf(path: Any, x: jax.Array) -> jax.Array:
            given = self.arrays[f"{prefix}/{short_name(path)}"]
            assert given.shape == x.shape
            return jnp.asarray(given)

        return jax.tree_util.tree_map_with_path(leaf, tree)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(f"{prefix}/"): x for name, x in self.arrays.items() if name.startswith(f"{prefix}/")}

    def check(self, prefix: str, tree: PyTree, **tolerance: float) -> None:
        """Every leaf against the golden one of its name; both have the same names."""
        ours = {short_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
        expected = self.under(prefix)
        assert sorted(ours) == sorted(expected)
        for name, x in ours.items():
            np.testing.assert_allclose(x, expected[name], **tolerance, err_msg=f"{prefix}/{name}")


def short_name(path: Any) -> str:
    """critic/params/.../Dense_1/kernel is critic/1/kernel."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    network = name.split("/")[0]
    if name.endswith("log_std"):
        return f"{network}/log_std"
    return "/".join([network, *re.findall(r"Dense_(\d+)/(\w+)", name)[0]])


def gradients(state: TrainState, network: str) -> PyTree:
    """The gradients of the first update, read from Adam's first moment."""
    return {network: jax.tree.map(lambda mu: mu / (1 - 0.9), optax.tree_utils.tree_get(state.opt_state[network], "mu"))}


def check_gradients(golden: Golden, state: TrainState, network: str, factor: float = 1.0) -> None:
    ours = jax.tree.map(lambda x: factor * x, gradients(state, network))
    scale = max(np.abs(x).max() for x in golden.under(f"grads/{network}").values())
    nested = {f"{network}/{name}": x for name, x in golden.under(f"grads/{network}").items()}
    for path, x in jax.tree_util.tree_leaves_with_path(ours):
        np.testing.assert_allclose(x, nested.pop(short_name(path)), rtol=1e-5, atol=1e-5 * max(scale, 1.0))
    assert not nested


def test_iql_losses_and_gradients_are_corls():
    """At a learning rate of zero V stands still, and CORL's order (the policy sees the old V) is ours."""
    golden = Golden("corl_iql", iql, iql.iql, learning_rate=0.0)
    state, metrics = jax.jit(golden.agent.update)(golden.state(), golden.batches[0], jax.random.key(0))
    # CORL halves the critics' loss: it averages over the two where the authors add.
    for network, factor in [("value", 1.0), ("actor", 1.0), ("critic", 0.5)]:
        loss = factor * metrics[f"{network}/loss"]
        np.testing.assert_allclose(loss, golden.arrays[f"losses/{network}"][0], rtol=1e-5)
        check_gradients(golden, state, network, factor)


def test_iql_updates_are_the_authors():
    golden = Golden("authors_iql", iql, iql.iql)
    state, update = golden.state(), jax.jit(golden.agent.update)
    for t, batch in enumerate(golden.batches):
        state, metrics = update(state.replace(step=jnp.int32(t)), batch, jax.random.key(t))
        for network in ("value", "actor", "critic"):
            np.testing.assert_allclose(metrics[f"{network}/loss"], golden.arrays[f"losses/{network}"][t], rtol=2e-5)
        if t == 0:
            golden.check("after_one/params", state.params, atol=2e-6, rtol=1e-5)
            golden.check("after_one/target_params", state.target_params, atol=2e-6, rtol=1e-5)
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
    golden.check("after/target_params", state.target_params, atol=1e-5, rtol=1e-5)


def test_td3_bc_updates_are_corls(monkeypatch):
    golden = Golden("corl_td3_bc", td3_bc, td3_bc.td3_bc)
    # The standard normal draws of CORL's run come in where ours would be drawn from the key.
    monkeypatch.setattr(jax.random, "normal", lambda draws, shape: draws.reshape(shape))
    state, update = golden.state(), jax.jit(golden.agent.update)
    actor_losses = []
    for t, batch in enumerate(golden.batches):
        state, metrics = update(state.replace(step=jnp.int32(t)), batch, golden.arrays["noise"][t])
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
    state, update = golden.state(), jax.jit(golden.agent.update)
    for t, batch in enumerate(golden.batches):
        state, metrics = update(state.replace(step=jnp.int32(t)), batch, jax.random.key(t))
        np.testing.assert_allclose(metrics["actor/loss"], golden.arrays["losses/actor"][t], rtol=1e-5)
        if t == 0:
            check_gradients(golden, state, "actor")
    golden.check("after/params", state.params, atol=1e-5, rtol=1e-5)
