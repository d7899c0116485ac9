"""The device mesh and where every array lies on it.

One mesh with the axes `seed` (independent runs), `data` (the batch, and parameters under FSDP) and `model` (tensor
parallel). Parameters follow a rule table: the first regular expression found in a leaf's path decides.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rl_jax.core.program import PyTree, TrainState

AXES = ("seed", "data", "model")
REPLICATE = "replicate"
FSDP = "fsdp"
# A rule is (path regex, REPLICATE | FSDP | for each dimension None, a mesh axis or a tuple of axes), e.g.
# ("attention/query/kernel", (None, "model")) or ("mlp/kernel", (("data", "model"), None)).
Rule = tuple[str, Any]


def make_mesh(seed: int = 1, data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices of all processes; the one size given as -1 takes what the others leave.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [seed, data, model]
    asked = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise ValueError(f"config.mesh ({asked}): sizes are positive, and at most one is -1 (the rest of the devices)")
    if -1 in sizes:
        sizes[sizes.index(-1)] = max(1, len(devices) // math.prod(size for size in sizes if size != -1))
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"config.mesh ({asked}) needs {math.prod(sizes)} devices and there are {len(devices)} "
            f"({devices[0].device_kind}): set --config.mesh.seed/data/model so that they multiply to {len(devices)}"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def shard_batch(batch: PyTree) -> PyTree:
    """Lays the leading axis of every leaf along `data`; does nothing where no mesh is set (a notebook, a unit test).

    Call it inside a `Program.step`, on the batch of one run.

    Raises:
      ValueError: the batch size does not divide evenly over the `data` axis.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("data", 1) == 1:
        return batch

    def constrain(x: jax.Array) -> jax.Array:
        _check_divides(x.shape[0], mesh)
        return jax.lax.with_sharding_constraint(x, P("data"))

    return jax.tree.map(constrain, batch)


def _check_divides(size: int, mesh: Mesh | AbstractMesh) -> None:
    if size % mesh.shape["data"]:
        raise ValueError(
            f"a batch of {size} does not divide over data={mesh.shape['data']} devices: "
            "change --config.batch_size or --config.mesh.data"
        )


def path_name(path: Sequence[Any]) -> str:
    """A tree path as text, e.g. `params/critic/Dense_0/kernel`."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def partition_spec(path: str, shape: tuple[int, ...], rules: Sequence[Rule], mesh: Mesh) -> P:
    """The spec of one leaf of one run, by the first rule whose regex is found in `path`; no rule means replicated.

    Raises:
      ValueError: the rule names an unknown axis, or does not fit the shape of a parameter.
    """
    kind = next((kind for pattern, kind in rules if re.search(pattern, path)), REPLICATE)
    if kind == REPLICATE or not shape:
        return P()
    if kind == FSDP:
        size = mesh.shape["data"]
        divisible = [dim for dim, length in enumerate(shape) if length % size == 0]
        if size == 1 or not divisible:
            return P()
        largest = max(divisible, key=lambda dim: shape[dim])
        return P(*(["data" if dim == largest else None for dim in range(len(shape))]))
    if isinstance(kind, str):
        raise ValueError(f"sharding rule for {path}: {kind!r} is not {REPLICATE!r}, {FSDP!r} or a tuple of mesh axes")
    axes = [() if axis is None else axis if isinstance(axis, tuple) else (axis,) for axis in kind]
    unknown = [axis for dim in axes for axis in dim if axis not in AXES]
    if unknown:
        raise ValueError(f"sharding rule for {path} names the axis {unknown[0]!r}; the mesh has {AXES}")
    if len(kind) != len(shape):
        # An optimiser may keep statistics of another rank than its parameter (factored moments): those replicate.
        if path.startswith(("params/", "target_params/")):
            raise ValueError(f"sharding rule {tuple(kind)} for {path} does not fit its shape {shape}")
        return P()
    for dim, names in enumerate(axes):
        size = math.prod(mesh.shape[axis] for axis in names)
        if shape[dim] % size:
            raise ValueError(f"{path}: dimension {dim} of {shape} does not divide over {' x '.join(names)} = {size}")
    return P(*kind)


def state_shardings(state: TrainState, rules: Sequence[Rule], mesh: Mesh) -> TrainState:
    """NamedShardings of a state of S runs (leaves [S, ...], `step` a scalar): runs along `seed`, the rest by rule."""

    def sharding(path: Sequence[Any], leaf: Any) -> NamedSharding:
        if leaf.ndim == 0:
            return NamedSharding(mesh, P())
        return NamedSharding(mesh, P("seed", *partition_spec(path_name(path), leaf.shape[1:], rules, mesh)))

    return jax.tree_util.tree_map_with_path(sharding, state)


def resident_shardings(resident: PyTree, rules: Sequence[Rule], mesh: Mesh) -> PyTree:
    """NamedShardings of what all runs share, by the rules of `config.resident_rules`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition_spec(path_name(path), np.shape(leaf), rules, mesh)), resident
    )


def upload(tree: PyTree, shardings: PyTree) -> PyTree:
    """Lays arrays, the same on every process, on the devices as `shardings` says."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    return jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index]),
        tree, shardings,
    )


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Uploads host arrays, the same on every process, as copies on every device."""
    return upload(tree, jax.tree.map(lambda _: NamedSharding(mesh, P()), tree))


def upload_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Uploads a collected batch, leaves [S, this process's share of B, ...]: runs along `seed`, B along `data`.

    Raises:
      ValueError: B does not divide evenly over the `data` axis.
    """

    def upload_leaf(x: Any) -> jax.Array:
        spec = P("seed")
        if np.ndim(x) > 1:
            spec = P("seed", "data")
            _check_divides(np.shape(x)[1] * jax.process_count(), mesh)
        return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), np.asarray(x))

    return jax.tree.map(upload_leaf, batch)


def gather(tree: PyTree) -> PyTree:
    """A whole copy of every leaf on this process's first device, e.g. for an evaluation on the host.

    Every process must call it. Only for trees that fit on one device; host arrays stay what they are.
    """

    def local(x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        if not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1:
            return x
        # One at a time: on a CPU, programs whose collectives run side by side can wait for each other for ever.
        return jax.block_until_ready(_copy_to_all(x.sharding.mesh)(x)).addressable_data(0)

    return jax.tree.map(local, tree)


def first_run(tree: PyTree) -> PyTree:
    """The first run's part of leaves [S, ...], as `gather`: what a finished run leaves behind as its model."""
    return jax.tree.map(lambda x: x[0], gather(tree))


@functools.cache
def _copy_to_all(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """One function a mesh, so that a shape is compiled once and not at every evaluation."""
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))


def bytes_per_device(tree: PyTree) -> int:
    """Bytes that a tree of arrays (or ShapeDtypeStructs with shardings) takes on the fullest device."""

    def size(x: Any) -> int:
        sharding = getattr(x, "sharding", None)
        shape = sharding.shard_shape(x.shape) if sharding is not None else np.shape(x)
        return math.prod(shape) * getattr(x, "dtype", np.dtype(np.float64)).itemsize

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))
