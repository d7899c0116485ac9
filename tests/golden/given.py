"""Golden numbers that another library's code gave (PROVENANCE.md), and an agent set to the same weights."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rl_jax.agents.agent import Agent
from rl_jax.core.program import PyTree, TrainState
from rl_jax.data.transitions import Transitions

SETTINGS = {
    "hidden_dims": (16, 16), "learning_rate": 1e-2, "decay_steps": 4, "discount": 0.99, "tau": 0.05, "expectile": 0.7,
    "temperature": 3.0, "alpha": 2.5, "policy_noise": 0.2, "noise_clip": 0.3, "policy_freq": 2,
}


QUICK = {"xla_backend_optimization_level": 0}  # compiling is most of the time here


class Golden:
    """One file of golden numbers, and the agent and its compiled update that must give them."""

    def __init__(self, name: str, module: Any, factory: Any, **overrides: Any):
        with np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = dict(file)
        config = module.default_config()
        config.update({field: value for field, value in {**SETTINGS, **overrides}.items() if field in config})
        self.agent: Agent = factory(config, self.arrays["batch/actions"].shape[-1])
        self.update = jax.jit(self.agent.update, compiler_options=QUICK)
        columns = self.under("batch")
        self.batches = [Transitions(**{name: x[t] for name, x in columns.items()}) for t in range(self.steps)]

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
    """critic/params/.../Dense_1/kernel is critic/1/kernel, and .../LayerNorm_1/scale is critic/1/norm_scale."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    network, last = name.split("/")[0], name.split("/")[-1]
    if last in ("log_std", "log_alpha"):
        return f"{network}/{last}"
    (kind, layer) = re.findall(r"(Dense|LayerNorm)_(\d+)/", name)[-1]
    return f"{network}/{layer}/{'norm_' if kind == 'LayerNorm' else ''}{last}"


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


def use_given_draws(monkeypatch: Any) -> None:
    """Stored draws take the place of an update's key, in the tree that the agent splits the key into."""
    uniform = jax.random.uniform

    def given_uniform(draws: jax.Array, shape: tuple[int, ...], *args: Any, **fields: Any) -> jax.Array:
        is_key = jnp.issubdtype(draws.dtype, jax.dtypes.prng_key)  # flax asks an initialiser for its shape
        return uniform(draws, shape, *args, **fields) if is_key else draws.reshape(shape)

    monkeypatch.setattr(jax.random, "split", lambda draws, num=2: draws)
    monkeypatch.setattr(jax.random, "normal", lambda draws, shape: draws.reshape(shape))
    monkeypatch.setattr(jax.random, "uniform", given_uniform)
