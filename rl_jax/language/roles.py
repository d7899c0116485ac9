"""Models as roles of a dataflow: parameters, where they lie, and pure functions that run there.

One driver, plain Python, calls methods of roles; inside of a role every device runs the same compiled program. A role
lives on all devices, on some, or on one, and what it is given is put onto its mesh at each call: so the driver says
nothing of placement. Where a role has no mesh it is a part of the compiled step that calls it, and the same driver is
one fused program.

Training and generation are two layouts of one mesh. Where training splits a dimension over ("model", "data"), model
major, generation splits it over ("model",) alone: every device's own slice lies inside of the larger one that it gets,
and one all-gather over `data` makes the rollout copy (Sheng et al. 2025, HybridFlow, arXiv 2409.19256, section 5.3).
"""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rl_jax.core.mesh import Rule, partition_spec, path_name, resident_shardings, upload
from rl_jax.core.program import PyTree

HOST, DEVICE = "pinned_host", "device"


def split_rules(axes: str | tuple[str, ...]) -> tuple[Rule, ...]:
    """A decoder's layout: heads, hidden units and vocabulary are split over these axes, the major one first."""
    return (
        (r"(attention/[qkv]|mlp/(gate|up))/kernel$", (None, None, axes)),
        (r"(attention/o|mlp/down)/kernel$", (None, axes, None)),
        (r"embed/embedding$", (axes, None)),
        (r"head/kernel$", (None, axes)),
    )


TRAINING_RULES = split_rules(("model", "data"))


@dataclass(frozen=True)
class Role:
    """A model with its place.

    Attributes:
      params: parameters, with what else its functions change, such as the state of an optimiser.
      rules: how they lie on the mesh.
      mesh: None inside of a compiled step, which has one or needs none.
    """

    params: PyTree
    rules: Sequence[Rule] = ()
    mesh: Mesh | None = None

    def placed(self, mesh: Mesh, rules: Sequence[Rule] | None = None) -> Self:
        """The role on a mesh, its own parameters put there."""
        rules = self.rules if rules is None else rules
        return replace(self, params=place(self.params, mesh, rules), rules=rules, mesh=mesh)

    def relaid(self, rules: Sequence[Rule]) -> Self:
        """The role in another layout of its mesh, as a copy."""
        if self.mesh is None:
            return replace(self, params=constrained(self.params, rules), rules=rules)
        return replace(self, params=relayout(self.params, self.mesh, rules), rules=rules)

    def run(self, function: Callable[..., PyTree], *batch: PyTree, **static: Any) -> PyTree:
        """`function(params, *batch)` where the role lives; the batch is put there, its leading axis along `data`.

        Args:
          function: compiled (`jax.jit`), and the same object at every call.
        """
        if self.mesh is None:
            return function(self.params, *batch, **static)
        with jax.set_mesh(self.mesh):
            return function(self.params, *put_batch(batch, self.mesh), **static)

    def free(self, shared: PyTree = None) -> None:
        """Gives the parameters' memory back at once, but for arrays that are a part of `shared` too."""
        if self.mesh is not None:
            kept = {id(x) for x in jax.tree.leaves(shared)}
            for leaf in jax.tree.leaves(self.params):
                if id(leaf) not in kept:
                    leaf.delete()


def generation_rules(rules: Sequence[Rule], kept: Collection[str] = ("model",)) -> tuple[Rule, ...]:
    """The layout of a rollout copy: the training layout's rules with the other axes of the mesh dropped."""

    def without(kind: Any) -> Any:
        if isinstance(kind, str):
            return "replicate"
        axes = [() if axis is None else axis if isinstance(axis, tuple) else (axis,) for axis in kind]
        return tuple(tuple(axis for axis in dim if axis in kept) or None for dim in axes)

    return tuple((pattern, without(kind)) for pattern, kind in rules)


def place(tree: PyTree, mesh: Mesh, rules: Sequence[Rule]) -> PyTree:
    """Puts arrays, of the host or of any devices, onto a mesh by rules of their paths."""
    return upload(tree, resident_shardings(tree, rules, mesh))


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Puts a batch onto a mesh: leading axes along `data` where they divide, else whole on every device.

    A compiled function refuses arrays of two meshes, so every role does it with what it is given.
    """

    def put(x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        divides = x.ndim > 0 and x.shape[0] % mesh.shape["data"] == 0
        return jax.device_put(x, NamedSharding(mesh, P("data") if divides else P()))

    return jax.tree.map(put, batch)


def constrained(tree: PyTree, rules: Sequence[Rule]) -> PyTree:
    """Inside of a compiled step: its arrays in the layout of the rules; as they are where no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree

    def one(path: Sequence[Any], x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, partition_spec(path_name(path), x.shape, rules, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def relayout(tree: PyTree, mesh: Mesh, rules: Sequence[Rule], *, free: bool = False, dtype: Any = None) -> PyTree:
    """A tree in another layout of the devices that it lies on, or on other devices.

    On the same devices it is one compiled program, whose collectives are those that the two layouts need; arrays that
    lie right already are passed on and not copied. Between other devices they are sent.

    Args:
      free: whether the old arrays are deleted. Donating them would not do it: a buffer is only reused by a result of
        its size, and shards of two layouts differ.
      dtype: of the copy, for instance bfloat16; cast before anything is sent, which halves the traffic.
    """
    targets = resident_shardings(tree, rules, mesh)
    leaves, structure = jax.tree.flatten(tree)
    goals = jax.tree.leaves(targets)
    moved = [
        place for place, (x, goal) in enumerate(zip(leaves, goals, strict=True))
        if dtype is not None or not x.sharding.is_equivalent_to(goal, x.ndim)
    ]
    old, goals = [leaves[place] for place in moved], tuple(goals[place] for place in moved)
    if moved and old[0].sharding.device_set == goals[0].device_set:
        new = relayout_program(tuple(x.sharding for x in old), goals, dtype)(old)
    else:
        new = [
            jax.device_put(x if dtype is None else x.astype(dtype), goal) for x, goal in zip(old, goals, strict=True)
        ]
    for place, x in zip(moved, new, strict=True):
        leaves[place] = x
    if free:
        jax.block_until_ready(new)
        for x in old:
            x.delete()
    return jax.tree.unflatten(structure, leaves)


@functools.cache
def relayout_program(
    sources: tuple[NamedSharding, ...], targets: tuple[NamedSharding, ...], dtype: Any = None
) -> Callable[[list[jax.Array]], list[jax.Array]]:
    """The compiled function from arrays in some layouts to the same in others, one object for the same layouts."""

    def copy(arrays: list[jax.Array]) -> list[jax.Array]:
        if dtype is None:
            return arrays
        # The cast stays on the side of the source.
        return [
            jax.lax.with_sharding_constraint(x.astype(dtype), source)
            for x, source in zip(arrays, sources, strict=True)
        ]

    return jax.jit(copy, out_shardings=list(targets))


def offload(tree: PyTree) -> PyTree:
    """The arrays in pinned memory of the host, each device's shard apart; `fetch` brings them back."""
    return _in_memory(tree, HOST)


def fetch(tree: PyTree) -> PyTree:
    """Arrays of `offload` on their devices again, in the layout that they had."""
    return _in_memory(tree, DEVICE)


def _in_memory(tree: PyTree, kind: str) -> PyTree:
    return jax.tree.map(lambda x: jax.device_put(x, x.sharding.with_memory_kind(kind)), tree)
