"""Named networks that train: how each starts, its optimiser, its slow copy, and one step of one of them.

    networks = Networks({"critic": Trained(critic.init, optax.adam(3e-4), tau=0.005)})
    state = networks.init(key, {"critic": (observations, actions)})
    state, metrics = networks.step(state, "critic", loss, targets, batch)  # loss(params, targets, batch)
    state = networks.follow(state)

All of it is pure: what changes is in the TrainState.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rl_jax.core.program import Key, Metrics, PyTree, TrainState

Loss = Callable[..., tuple[jax.Array, Metrics]]  # (params, ...) -> (loss, metrics)
Update = Callable[[TrainState], tuple[TrainState, Metrics]]


class Trained(NamedTuple):
    """How one network trains.

    Attributes:
      init: (key, inputs...) -> params, such as a Flax module's `init`; only the shapes of the inputs matter.
      tx: its optimiser.
      tau: the share of the network that its target copy takes over whenever `Networks.follow` is called, a number in
        [0, 1] or a schedule of the step; None where there is no target copy.
    """

    init: Callable[..., PyTree]
    tx: optax.GradientTransformation
    tau: optax.ScalarOrSchedule | None = None


class Networks(NamedTuple):
    """The networks of one algorithm.

    Attributes:
      trained: by name; the order is that in which `init` hands out keys.
    """

    trained: Mapping[str, Trained]

    def init(self, key: Key, inputs: Mapping[str, tuple[Any, ...]], extra: PyTree | None = None) -> TrainState:
        """A fresh state at step 0; `inputs` are those of each network's `init`, by name."""
        keys = jax.random.split(key, len(self.trained)) if len(self.trained) > 1 else [key]
        networks = zip(self.trained.items(), keys, strict=True)
        return self.start({name: own.init(key, *inputs[name]) for (name, own), key in networks}, extra)

    def start(self, params: Mapping[str, PyTree], extra: PyTree | None = None) -> TrainState:
        """A state at step 0 with the given parameters, by name; target copies start equal to them."""
        opt_state = {name: own.tx.init(params[name]) for name, own in self.trained.items()}
        # Copies, since the core donates the state: two leaves in one buffer would be an error.
        targets = {
            name: jax.tree.map(jnp.copy, params[name]) for name, own in self.trained.items() if own.tau is not None
        }
        return TrainState.create(dict(params), opt_state, targets, extra)

    def step(self, state: TrainState, name: str, loss: Loss, *inputs: Any) -> tuple[TrainState, Metrics]:
        """One step of one network down the gradient of `loss(params, *inputs)`.

        Returns:
          (state, metrics): the loss's own metrics, and those of `apply_gradient`.
        """
        gradient, info = jax.grad(loss, has_aux=True)(state.params[name], *inputs)
        state, norms = self.apply_gradient(state, name, gradient)
        return state, info | norms

    def apply_gradient(self, state: TrainState, name: str, gradient: PyTree) -> tuple[TrainState, Metrics]:
        """One step of one network's optimiser along a gradient like its parameters.

        Returns:
          (state, metrics): `<name>/grad_norm`, the gradient's global norm, and `<name>/update_norm`, that of what is
            added to the parameters.
        """
        updates, opt_state = self.trained[name].tx.update(gradient, state.opt_state[name], state.params[name])
        params = optax.apply_updates(state.params[name], updates)
        state = state.replace(params=state.params | {name: params}, opt_state=state.opt_state | {name: opt_state})
        return state, {f"{name}/grad_norm": global_norm(gradient), f"{name}/update_norm": global_norm(updates)}

    def follow(self, state: TrainState) -> TrainState:
        """Every target copy after a Polyak step towards its network: (1 - tau) target + tau params."""

        def followed(name: str, tau: optax.ScalarOrSchedule) -> PyTree:
            share = tau(state.step) if callable(tau) else tau
            return optax.incremental_update(state.params[name], state.target_params[name], share)

        targets = {name: followed(name, own.tau) for name, own in self.trained.items() if own.tau is not None}
        return state.replace(target_params=state.target_params | targets)


def global_norm(tree: PyTree) -> jax.Array:
    """The Euclidean norm of all leaves together, a float32 scalar."""
    # As products: on a CPU the sum of squares takes several times as long, which shows in the time of an update.
    product = functools.partial(jnp.tensordot, precision="highest", preferred_element_type=jnp.float32)
    return jnp.sqrt(sum(product(x, x, x.ndim) for x in jax.tree.leaves(tree)))


def when(due: jax.Array, update: Update, state: TrainState) -> tuple[TrainState, Metrics]:
    """`update(state)` where `due`, a scalar bool, is true, and else the state as it is and metrics of zero."""
    metrics = jax.eval_shape(update, state)[1]

    def waiting(state: TrainState) -> tuple[TrainState, Metrics]:
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

    return jax.lax.cond(due, update, waiting, state)


def every(period: int, update: Update, state: TrainState, *, first: int) -> tuple[TrainState, Metrics]:
    """`update(state)` in step `first`, counted from 0, and in every `period`-th step after it.

    Its metrics are multiplied by the period, and zero in between, so that their average over many steps is that over
    the updates.
    """
    state, metrics = when((state.step - first) % period == 0, update, state)
    return state, jax.tree.map(lambda x: x * period, metrics)
