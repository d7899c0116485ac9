"""The compiled steps of a run: one for each number of updates and each kind of batch, made once and kept."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rl_jax.core import memory
from rl_jax.core.fused import ProgramAt, Window, fused_step, metric_names
from rl_jax.core.mesh import replicate
from rl_jax.core.program import Key, Program, PyTree, TrainState

MAX_KINDS = 8  # of batches; more would be a batch whose shape changes all the time
MAX_COUNTS = 8  # of updates

Inputs = tuple[TrainState, PyTree, PyTree, Key, Mapping[str, jax.Array]]  # state, resident, batch, keys, settings


class Step(NamedTuple):
    """A compiled step of `count` updates.

    Attributes:
      names: of the metrics that it reports.
      run: `fused_step`'s function, compiled; state and window are donated.
    """

    count: int
    names: tuple[str, ...]
    run: Callable[..., tuple[TrainState, Window]]


class Steps:
    """Compiles the steps of a run.

    Args:
      program_at: see `core.fused`.
      program: the same of the run's own configuration, whose metrics are looked at.
      shardings: of the state.
      seed_axis, on_nan: see `fused_step`.
    """

    def __init__(
        self, program_at: ProgramAt, program: Program, mesh: Mesh, shardings: TrainState, *, seed_axis: str, on_nan: str
    ):
        self._program_at, self._program, self._mesh, self._shardings = program_at, program, mesh, shardings
        self._how = {"seed_axis": seed_axis, "on_nan": on_nan}
        self._names: dict[Any, tuple[str, ...]] = {}  # by kind of batch
        self._kept: dict[Any, Step] = {}  # by number of updates and kind of batch
        self.compile_seconds = 0.0

    def find(self, count: int, inputs: Inputs) -> Step:
        """The step of `count` updates for such inputs, or, where MAX_COUNTS are kept already, of fewer.

        Raises:
          ValueError: the feed's batches have more than MAX_KINDS structures and shapes.
        """
        leaves, structure = jax.tree.flatten(inputs[2])
        kind = structure, tuple((leaf.shape, leaf.dtype.name) for leaf in leaves)
        if kind not in self._names:
            self._check_kinds(kind)
            self._names[kind] = metric_names(self._program, *jax.eval_shape(lambda *x: x, *inputs[:3]))
        counts = [own for own, other in self._kept if other == kind]
        if count not in counts and len(counts) >= MAX_COUNTS - 1:
            count = max((own for own in counts if own < count), default=1)
        if (count, kind) not in self._kept:
            self._kept[count, kind] = self._compile(count, self._names[kind], inputs)
        return self._kept[count, kind]

    def _check_kinds(self, new: Any) -> None:
        if len(self._names) == MAX_KINDS:
            listed = "; ".join(str([f"{dtype}{list(shape)}" for shape, dtype in own]) for _, own in [*self._names, new])
            raise ValueError(
                f"the feed's batches have more than {MAX_KINDS} structures and shapes, and each is compiled: {listed}: "
                "pad them to a few lengths"
            )

    def _compile(self, count: int, names: tuple[str, ...], inputs: Inputs) -> Step:
        begin = time.perf_counter()
        everywhere = NamedSharding(self._mesh, P())
        fused = fused_step(self._program_at, count, **self._how)
        jitted = jax.jit(fused, donate_argnums=(0, 1), out_shardings=(self._shardings, everywhere))
        state, *others = inputs
        window = replicate(Window.empty(len(inputs[3]), names), self._mesh)
        # Only the paper's pure functions see the mesh: `evaluate` and `collect` may compute on one device.
        with jax.set_mesh(self._mesh):
            compiled = jitted.lower(state, window, *others).compile()
        self.compile_seconds += time.perf_counter() - begin
        memory.check_compiled(compiled)
        return Step(count, names, compiled)
