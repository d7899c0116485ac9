"""The fused step: K updates of S runs in one compiled program, state donated, metrics averaged on the device."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from rl_jax.core.mesh import gather
from rl_jax.core.program import Key, Program, PyTree, TrainState

# Independent streams of randomness; each is folded with the seed, then with the step.
STREAMS = {"init": 0, "train": 1, "evaluate": 2, "collect": 3}

# The program of one run with the settings that the run has of its own (`core.sweep.settings`), scalars by field.
ProgramAt = Callable[[Mapping[str, jax.Array]], Program]


class Window(struct.PyTreeNode):
    """Metrics since the last log line, summed where they arise; part of every checkpoint, so no line is ever lost.

    Attributes:
      kept: [S] int32, the updates that were made; fewer than the steps where `on_nan` drops some.
      counts: by metric, [S] int32: the steps that reported it. Batches of two kinds report different ones.
      sums: by metric, [S] float32.
    """

    kept: jax.Array
    counts: dict[str, jax.Array]
    sums: dict[str, jax.Array]

    @classmethod
    def empty(cls, num_runs: int, names: tuple[str, ...] = ()) -> "Window":
        """Nothing of these metrics yet."""
        return cls(
            jnp.zeros(num_runs, jnp.int32),
            {name: jnp.zeros(num_runs, jnp.int32) for name in names},
            {name: jnp.zeros(num_runs, jnp.float32) for name in names},
        )

    def including(self, names: tuple[str, ...]) -> "Window":
        """The window with these metrics too; one that was not there has nothing yet."""
        empty = Window.empty(len(self.kept), tuple(name for name in names if name not in self.sums))
        return self.updated(empty.replace(kept=self.kept))

    def only(self, names: tuple[str, ...]) -> "Window":
        """The part of these metrics."""
        return Window(self.kept, {name: self.counts[name] for name in names}, {name: self.sums[name] for name in names})

    def updated(self, part: "Window") -> "Window":
        """The window with the metrics of `part` in the place of its own of these names."""
        return Window(part.kept, self.counts | part.counts, self.sums | part.sums)


def run_keys(stream: str, seed: int, num_seeds: int, combinations: int = 1) -> Key:
    """The keys [S] of the runs with seeds seed, ..., seed + num_seeds - 1: fold_in(base, seed), whatever S is.

    In a sweep every combination has the same seeds, and S = combinations * num_seeds, a combination's runs together.
    """
    base = jax.random.key(STREAMS[stream])
    seeds = seed + jnp.tile(jnp.arange(num_seeds), combinations)
    return jax.vmap(lambda s: jax.random.fold_in(base, s))(seeds)


def over_runs(fn: Callable[..., Any], seed_axis: str) -> Callable[..., Any]:
    """Lifts a function of one run to arguments with a leading axis S.

    `"vmap"` computes all runs side by side: it fills an accelerator. `"map"` computes them one after another inside
    the same program: on a CPU, which one run fills already, that keeps each run in the cache and makes it bitwise
    equal to the run alone. Under `"vmap"` a batched matrix product adds in another order than a single one: parameters
    of order 1 differ from the run alone by 1.2e-7 after 12 updates of a small network and by 7e-7 after 200 (CPU).
    """

    def lifted(*args: PyTree) -> PyTree:
        if len(jax.tree.leaves(args)[0]) == 1:
            return jax.tree.map(lambda x: x[None], fn(*jax.tree.map(lambda x: x[0], args)))
        if seed_axis == "map":
            return jax.lax.map(lambda one: fn(*one), args)
        return jax.vmap(fn, spmd_axis_name="seed" if in_mesh() else None)(*args)

    return lifted


def evaluated(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Lifts `fn` of one run's parameters, and of arrays that all runs share, to the parameters of all runs.

    The function that it gives is compiled once, so it is made once, outside of `Program.evaluate`. It computes on one
    device whatever the mesh, and gives host arrays [S, ...].
    """
    lifted = jax.jit(lambda params, *shared: over_runs(lambda own: fn(own, *shared), default_seed_axis())(params))

    def of_runs(params: PyTree, *shared: Any) -> Any:
        here = jax.local_devices()[0]
        return jax.device_get(lifted(*jax.device_put(gather((params, *shared)), here)))

    return of_runs


def default_seed_axis() -> str:
    """How `over_runs` lifts best on this process's devices: "map" on a CPU, "vmap" on an accelerator."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def in_mesh() -> bool:
    """Whether a mesh is set, as inside a compiled step."""
    return not jax.sharding.get_abstract_mesh().empty


def init_runs(
    program_at: ProgramAt, keys: Key, settings: Mapping[str, jax.Array], resident: PyTree, seed_axis: str
) -> TrainState:
    """The initial states [S, ...] of all runs, `step` a scalar that they share."""

    def one_run(key: Key, settings: Mapping[str, jax.Array]) -> TrainState:
        return program_at(settings).init(key, resident).replace(step=None)

    return over_runs(one_run, seed_axis)(keys, settings).replace(step=jnp.zeros((), jnp.int32))


def metric_names(program: Program, state: TrainState, resident: PyTree, batch: PyTree) -> tuple[str, ...]:
    """The metrics that `program.step` returns for batches of these shapes; only shapes are read.

    Args:
      state: of all S runs, as `init_runs` gives it.
      batch: of all S runs, or None.

    Raises:
      ValueError: the step returns something else than (TrainState, dict of scalars).
    """

    def of_one_run(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)

    state = of_one_run(state.replace(step=None)).replace(step=jax.ShapeDtypeStruct((), jnp.int32))
    out = jax.eval_shape(program.step, state, resident, of_one_run(batch), jax.random.key(0))
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[0], TrainState) and isinstance(out[1], dict)):
        raise ValueError("Program.step must return (TrainState, dict of metrics)")
    for name, value in out[1].items():
        if value.shape != ():
            raise ValueError(f"metric {name!r} has shape {value.shape}: a step's metrics are scalars, reduce it")
    before, after = jax.tree.structure(state), jax.tree.structure(out[0])
    if before != after:
        raise ValueError(f"Program.step changes the structure of the state: {before} becomes {after}")
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(out[0]), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"Program.step changes {name} from {old.dtype}{old.shape} to {new.dtype}{new.shape}")
    return tuple(sorted(out[1]))


def fused_step(
    program_at: ProgramAt, num_steps: int, *, seed_axis: str, on_nan: str
) -> Callable[..., tuple[TrainState, Window]]:
    """The function (state, window, resident, batch, run keys [S], settings [S]) -> (state, window) that does
    `num_steps` updates of S runs.

    The key of an update is fold_in(run key, step): neither the chunk size nor a resume can change it. `window` holds
    the metrics that the step returns for such a batch; `batch` leaves are [S, B, ...], or it is None.

    Args:
      seed_axis: see `over_runs`.
      on_nan: "abort" lets a non-finite metric pass, for the loop to stop on; "skip" drops the updates that make one.
    """

    def chunk(
        state: TrainState, window: Window, resident: PyTree, batch: PyTree, keys: Key, settings: Mapping[str, jax.Array]
    ) -> tuple[TrainState, Window]:
        first_step = state.step

        def one_run(
            state: TrainState, window: Window, batch: PyTree, key: Key, settings: Mapping[str, jax.Array]
        ) -> tuple[TrainState, Window]:
            program = program_at(settings)

            def update(carry: tuple[TrainState, Window], _: None) -> tuple[tuple[TrainState, Window], None]:
                old, window = carry
                new, metrics = program.step(old, resident, batch, jax.random.fold_in(key, old.step))
                kept = jnp.ones((), bool)
                if on_nan == "skip":
                    kept = jnp.all(jnp.stack([*finite_leaves(metrics), *finite_leaves(new.params)]))
                    new = jax.tree.map(lambda n, o: jnp.where(kept, n, o), new, old)
                one = kept.astype(jnp.int32)
                window = Window(
                    window.kept + one,
                    {name: count + one for name, count in window.counts.items()},
                    {
                        name: total + jnp.where(kept, metrics[name], 0).astype(jnp.float32)
                        for name, total in window.sums.items()
                    },
                )
                return (new.replace(step=old.step + 1), window), None

            carry = (state.replace(step=first_step), window)
            if num_steps == 1:
                # XLA takes a scan of one step apart and fuses its body otherwise, which rounds otherwise. A length
                # that it cannot know keeps the loop, so that a chunk of one is bitwise a part of a longer one.
                one = jnp.where(first_step >= 0, 1, 0)
                state, window = jax.lax.fori_loop(0, one, lambda _, carry: update(carry, None)[0], carry)
            else:
                (state, window), _ = jax.lax.scan(update, carry, None, length=num_steps)
            return state.replace(step=None), window

        lifted = over_runs(one_run, seed_axis)
        state, window = lifted(state.replace(step=None), window, batch, keys, settings)
        return state.replace(step=first_step + num_steps), window

    return chunk


def fingerprint(tree: PyTree) -> tuple[jax.Array, ...]:
    """A uint32 checksum a leaf, of its bits and their places; computed where the leaf lies, on any sharding."""

    def leaf(x: jax.Array) -> jax.Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        if x.dtype == jnp.bool_:
            x = x.astype(jnp.uint8)
        bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}")).astype(jnp.uint32)
        place = jnp.zeros(bits.shape, jnp.uint32)
        for dim in range(bits.ndim):
            place = place * jnp.uint32(1000003) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, dim)
        return jnp.sum((bits ^ jnp.uint32(0x9E3779B9)) * (2 * place + 1), dtype=jnp.uint32)

    return tuple(leaf(x) for x in jax.tree.leaves(tree))


def finite_leaves(tree: PyTree) -> tuple[jax.Array, ...]:
    """A bool a leaf: whether all its values are finite (integers always are)."""
    return tuple(jnp.all(jnp.isfinite(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.ones((), bool)
                 for x in jax.tree.leaves(tree))
