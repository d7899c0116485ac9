"""The loop that runs every program: restore -> chunk -> log -> evaluate -> save.

`step` is one integer, the number of `Program.step` calls done; every interval counts it. What is due at a step is
decided from the step alone, and what has been done is part of the checkpoint: a run that is stopped anywhere and
started again writes the same numbers as one that was not.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from rl_jax.core import memory, provenance, sweep
from rl_jax.core.checkpoint import Checkpointer
from rl_jax.core.config import check_core_config
from rl_jax.core.fused import (
    STREAMS,
    Window,
    default_seed_axis,
    empty_window,
    finite_leaves,
    fused_step,
    init_runs,
    run_keys,
)
from rl_jax.core.mesh import make_mesh, path_name, replicate, state_shardings, upload_batch
from rl_jax.core.metrics import MetricWriter, ProgressLine, plain
from rl_jax.core.program import Feed, Program, PyTree, TrainState
from rl_jax.core.runtime import (
    NonFiniteError,
    Preempted,
    StopSignal,
    from_main_process,
    is_main_process,
    on_any_process,
    sync_processes,
)
from rl_jax.core.system import SystemMonitor


@dataclasses.dataclass
class Records:
    """What the loop remembers beside the train state; saved with every checkpoint as JSON."""

    logged: int = 0  # the step of the last training line
    evaluated: int = 0  # the step of the last evaluation
    lines: int = 0  # lines in metrics.jsonl
    train_seconds: float = 0.0  # without compilation, evaluation and saving
    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    collected: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # a Feed's metrics: [sum, count]
    window: dict[str, Any] | None = None  # core.fused.Window as lists


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
      state: the final state of all S runs.
      step: the steps done.
      evaluations: one dict an evaluation: `step` and the metrics.
      updates_per_s: updates of all S runs a second, over the whole run, without compilation, evaluation and saving.
      compile_seconds: of this start; 0 where nothing was left to train.
      trained_steps: of this start; 0 for a run that was finished before.
    """

    state: TrainState
    step: int
    evaluations: list[dict[str, Any]]
    updates_per_s: float
    compile_seconds: float
    trained_steps: int


def run(
    program: Program,
    config: ConfigDict,
    workdir: str | Path,
    *,
    headline: str = "",
    inputs: Mapping[str, Any] | None = None,
) -> Result:
    """Trains `program` to `config.num_steps`, from its newest checkpoint in `workdir` or from the start.

    Args:
      config: holds the fields of `core.config.core_config()`.
      headline: the evaluation metric that the progress line shows and the best checkpoint maximises.
      inputs: what the run reads, for its provenance, e.g. the data set's name and checksum.

    Raises:
      ValueError: the configuration cannot work, or `workdir` holds a run of another one.
      DeviceMemoryError: state and data do not fit the devices.
      NonFiniteError: a metric or a parameter became NaN or infinite; healthy checkpoints are kept.
      Preempted: SIGTERM or Ctrl-C; the state is saved, and the process ends with PREEMPTED_EXIT_CODE.
    """
    check_core_config(config, len(sweep.side_by_side(config)))
    sweep.check_settings(config, program.settings)
    workdir = Path(workdir).expanduser().absolute()
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir={workdir} is a file: name a folder")
    provenance.check_same_run(workdir, config)
    with StopSignal() as stop:
        return _Run(program, config, workdir, headline).train(stop, inputs or {})


class _Run:
    """One start of a run: its place on the devices, its compiled steps and its records."""

    def __init__(self, program: Program, config: ConfigDict, workdir: Path, headline: str):
        self.program, self.config, self.workdir, self.headline = program, config, workdir, headline
        self.groups = sweep.groups(config)
        self.num_runs = sweep.num_runs(config)
        self.mesh = make_mesh(**config.mesh)
        self.everywhere = NamedSharding(self.mesh, P())
        self.feed = program.source if isinstance(program.source, Feed) else None
        self.seed_axis = config.loop.seed_axis
        if self.seed_axis == "auto":
            # One run after another needs the runs on one device: not where the mesh spreads them.
            self.seed_axis = default_seed_axis() if self.mesh.shape["seed"] == 1 else "vmap"
        self.keys = {stream: self.make_keys(stream) for stream in ("init", "train", "collect")}
        self.finite_leaves = jax.jit(finite_leaves, out_shardings=self.everywhere)
        self.records = Records()
        self.window: Window | None = None
        self.compiled: dict[int, jax.stages.Compiled] = {}
        self.compile_seconds = 0.0
        self.checked = 0  # everything was finite up to this step
        self.reached: int | None = None  # the step done; None until this start is recorded
        self.system = SystemMonitor()

        with jax.set_mesh(self.mesh):
            abstract = jax.eval_shape(self.init_runs, self.keys["init"])
        self.shardings = state_shardings(abstract, config.sharding_rules, self.mesh)
        self.abstract_state = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract, self.shardings
        )
        data = () if self.feed else program.source.data
        memory.check_fits(self.abstract_state, data)
        self.data = replicate(data, self.mesh)

    def make_keys(self, stream: str) -> jax.Array:
        make = jax.jit(run_keys, static_argnums=(0, 1, 2, 3), out_shardings=self.everywhere)
        return make(stream, self.config.seed, self.config.num_seeds, len(self.groups))

    def init_runs(self, keys: jax.Array) -> TrainState:
        return init_runs(self.program, keys, self.seed_axis)

    def train(self, stop: StopSignal, inputs: Mapping[str, Any]) -> Result:
        config, records = self.config, self.records
        if is_main_process():
            self.workdir.mkdir(parents=True, exist_ok=True)
        sync_processes("workdir")
        self.checkpoints = Checkpointer(
            self.workdir / "checkpoints", keep=config.checkpoint.keep, has_source=self.feed is not None
        )
        self.writer = None
        with contextlib.ExitStack() as stack:
            # First in and so last out: it sees what goes wrong in the others too.
            stack.push(self.record_end)
            stack.callback(self.checkpoints.close)
            state = self.restore_or_init()
            step = first_step = self.checked = int(state.step)
            # Other inputs end every process, not the main one alone.
            elapsed = from_main_process(lambda: provenance.record(self.workdir, config, step, inputs))
            self.first_start, self.reached = time.perf_counter() - elapsed, step
            if is_main_process():
                self.writer = MetricWriter(
                    self.workdir, step=step, lines=records.lines, tensorboard=config.tensorboard,
                    wandb_project=config.wandb_project, config=provenance.plain_config(config),
                    groups=self.groups,
                )
                stack.callback(self.writer.close)
            if step >= config.num_steps:
                logging.info("the run in %s is finished: all %d steps are done, nothing to train", self.workdir, step)
            self.progress = stack.enter_context(ProgressLine(config.num_steps, step))
            while True:
                if records.logged < step and self.due(step, config.loop.log_every):
                    self.log(step, state)
                if records.evaluated < step and self.due(step, config.loop.eval_every) and not stop.raised():
                    self.evaluate(step, state)
                finished = step >= config.num_steps and records.evaluated == step
                if not finished and stop.raised():
                    self.save(step, state)
                    self.checkpoints.wait()
                    logging.warning("told to stop: step %d is saved in %s; start again to go on", step, self.workdir)
                    raise Preempted(step)
                if self.due(step, config.checkpoint.every):
                    self.save(step, state)
                if finished or config.num_steps == 0:
                    break
                state, step = self.advance(step, state, stop)
        rate = step * self.num_runs / records.train_seconds if records.train_seconds else 0.0
        return Result(state, step, records.evaluations, rate, self.compile_seconds, step - first_step)

    def record_end(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        del kind, traceback
        if self.reached is not None and is_main_process():
            seconds = {"train": self.records.train_seconds, "compile": self.compile_seconds}
            provenance.record_end(self.workdir, self.reached, error, seconds)

    def due(self, step: int, every: int) -> bool:
        return step > 0 and (step >= self.config.num_steps or (every > 0 and step % every == 0))

    def restore_or_init(self) -> TrainState:
        restored = self.checkpoints.restore(self.abstract_state)
        if restored is None:
            with jax.set_mesh(self.mesh):
                return jax.jit(self.init_runs, out_shardings=self.shardings)(self.keys["init"])
        for name, value in restored.records.items():
            setattr(self.records, name, value)
        if self.records.window is not None:
            counts, sums = self.records.window["count"], self.records.window["sums"]
            self.window = self.put_window(
                Window(np.asarray(counts, np.int32), {name: np.asarray(x, np.float32) for name, x in sums.items()})
            )
        if self.feed:
            self.feed.restore(restored.source)
        logging.info("resuming %s at step %d", self.workdir, restored.step)
        return restored.state

    def put_window(self, window: Window) -> Window:
        return replicate(window, self.mesh)

    # Chunk: train up to the step at which something is due.

    def advance(self, step: int, state: TrainState, stop: StopSignal) -> tuple[TrainState, int]:
        """Trains to the next step at which something is due, or to the end of the chunk that a stop falls into."""
        config = self.config
        intervals = (config.loop.log_every, config.loop.eval_every, config.checkpoint.every)
        boundary = min(config.num_steps, *((step // every + 1) * every for every in intervals if every))
        while step < boundary:
            count = 1 if self.feed else min(config.loop.chunk, boundary - step)
            data = self.data
            if self.feed:
                with self.clock():
                    data = self.collect(step, state)
            if self.window is None:
                self.window = self.put_window(
                    empty_window(self.program, self.abstract_state, data, data_by_run=self.feed is not None)
                )
            compiled = self.compile(count, state, data)
            with self.clock(), jax.transfer_guard("disallow"):
                state, self.window = compiled(state, self.window, data, self.keys["train"])
                # The host waits for every chunk, so that a stop is heard and nothing queues up on the device.
                jax.block_until_ready(self.window)
            step += count
            self.reached = step
            self.progress.update(step)
            if stop.raised():
                break
        return state, step

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.records.train_seconds += time.perf_counter() - begin

    def collect(self, step: int, state: TrainState) -> PyTree:
        """One batch of the Feed, uploaded; its metrics join the window."""
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.keys["collect"], step)
        batch, metrics = self.feed.collect(state, keys, step)
        for name, value in metrics.items():
            total, seen = self.records.collected.get(name, (0.0, 0))
            self.records.collected[name] = [total + float(value), seen + 1]
        return upload_batch(batch, self.mesh)

    def compile(self, count: int, state: TrainState, data: PyTree) -> jax.stages.Compiled:
        """The fused step of `count` updates, compiled once."""
        if count not in self.compiled:
            begin = time.perf_counter()
            step = fused_step(
                self.program, count, seed_axis=self.seed_axis, on_nan=self.config.loop.on_nan,
                data_by_run=self.feed is not None,
            )
            jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=(self.shardings, self.everywhere))
            # Only the paper's pure functions see the mesh: `evaluate` and `collect` may compute on one device.
            with jax.set_mesh(self.mesh):
                compiled = jitted.lower(state, self.window, data, self.keys["train"]).compile()
            self.compile_seconds += time.perf_counter() - begin
            memory.check_compiled(compiled)
            self.compiled[count] = compiled
        return self.compiled[count]

    # Log, evaluate, save

    def log(self, step: int, state: TrainState) -> None:
        """Writes the means since the last line and empties the window."""
        records = self.records
        metrics = self.window_means()
        if self.config.loop.on_nan == "skip":
            metrics["train/skipped_updates"] = step - records.logged - np.asarray(self.window.count)
        rate = step * self.num_runs / records.train_seconds
        times = {"time/updates_per_s": rate, "time/train_seconds": records.train_seconds}
        self.write(step, metrics | times | self.system.read())
        self.progress.update(step, rate=rate)
        self.check_finite(step, state, metrics)
        records.logged, records.collected = step, {}
        self.window = self.put_window(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.window))

    def window_means(self) -> dict[str, Any]:
        window = jax.device_get(self.window)
        means = {name: total / np.maximum(window.count, 1) for name, total in window.sums.items()}
        return means | {name: total / seen for name, (total, seen) in self.records.collected.items()}

    def check_finite(self, step: int, state: TrainState, metrics: Mapping[str, Any]) -> None:
        """Raises NonFiniteError naming the first metrics or parameters that are not finite."""
        finite = jax.device_get(self.finite_leaves(state.params))
        paths = jax.tree_util.tree_leaves_with_path(state.params)
        broken = [
            f"{name} is {np.asarray(value).ravel().tolist()}"
            for name, value in metrics.items()
            if not np.all(np.isfinite(value))
        ] + [f"parameter {path_name(path)}" for (path, _), ok in zip(paths, finite, strict=True) if not ok]
        if on_any_process(bool(broken)):
            broken = broken or ["a metric of another process"]
            healthy = max(self.checkpoints.steps(), default=None)
            raise NonFiniteError(
                f"not finite in steps {self.checked + 1} to {step}: {', '.join(broken[:3])}"
                + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
                + (f"; the checkpoint of step {healthy} is healthy" if healthy is not None else "; no checkpoint yet")
                + ": lower the learning rate, check the data, or drop such updates with --config.loop.on_nan=skip"
            )
        self.checked = step

    def evaluate(self, step: int, state: TrainState) -> None:
        key = jax.random.fold_in(jax.random.key(STREAMS["evaluate"]), step)
        metrics = {name: plain(value) for name, value in self.program.evaluate(state, key).items()}
        if metrics:
            self.write(step, metrics)
            self.records.evaluations.append({"step": step} | metrics)
        self.records.evaluated = step
        if self.headline in metrics:
            mean = np.mean(np.asarray(metrics[self.headline], np.float64))
            self.progress.update(step, headline=f"{self.headline} {mean:.4g}")
            logging.info("step %d: %s %.4g", step, self.headline, mean)

    def save(self, step: int, state: TrainState) -> None:
        """Starts a checkpoint of a state that is known to be finite; a step is saved once."""
        if step in self.checkpoints.steps():
            return
        records = self.records
        if self.window is not None:
            self.check_finite(step, state, self.window_means())
            window = jax.device_get(self.window)
            sums = {name: value.tolist() for name, value in window.sums.items()}
            records.window = {"count": window.count.tolist(), "sums": sums}
        latest = records.evaluations[-1] if records.evaluations else {"step": -1}
        score = None
        if latest["step"] == step and self.headline in latest:
            mean = float(np.mean(np.asarray(latest[self.headline], np.float64)))
            # A score that is not finite would compare as the best of all.
            score = mean if np.isfinite(mean) else None
        source = self.feed.save() if self.feed else None
        self.checkpoints.save(step, state, dataclasses.asdict(records), source, score)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.records.lines += 1
        if self.writer is not None:
            # Since the run's first start, with all that came between: compilation, evaluation, saving and stops.
            wall_seconds = time.perf_counter() - self.first_start
            self.writer.write(step, {**metrics, "time/wall_seconds": wall_seconds})
