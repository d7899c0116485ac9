"""The loop that runs every program: restore -> chunk -> log -> evaluate -> save.

`step` is one integer, the number of `Program.step` calls done; every interval counts it. What is due at a step is
decided from the step alone, and what has been done is part of the checkpoint: a run that is stopped anywhere and
started again writes the same numbers as one that was not.
"""

import contextlib
import dataclasses
import functools
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
from rl_jax.core.checkpoint import Checkpointer, saved_steps
from rl_jax.core.config import check_core_config
from rl_jax.core.experiment import Experiment
from rl_jax.core.files import hold
from rl_jax.core.fused import (
    STREAMS,
    Window,
    default_seed_axis,
    finite_leaves,
    init_runs,
    run_keys,
)
from rl_jax.core.init_from import check_source, init_from
from rl_jax.core.mesh import (
    make_mesh,
    path_name,
    replicate,
    resident_shardings,
    state_shardings,
    upload,
    upload_batch,
)
from rl_jax.core.metrics import MetricWriter, ProgressLine, plain
from rl_jax.core.outcomes import add_outcomes, read_outcomes
from rl_jax.core.program import Evaluation, Program, PyTree, TrainState
from rl_jax.core.runtime import (
    NonFiniteError,
    Preempted,
    StopSignal,
    from_main_process,
    is_main_process,
    on_any_process,
)
from rl_jax.core.steps import Steps
from rl_jax.core.system import SystemMonitor


@dataclasses.dataclass
class Records:
    """What the loop remembers beside the train state; saved with every checkpoint as JSON."""

    logged: int = 0  # the step of the last training line
    evaluated: int = -1  # the step of the last evaluation
    lines: int = 0  # lines in metrics.jsonl
    lines_crc: int | None = None  # their checksum
    raw: bool = False  # whether evaluations have outcomes, and so outcomes.npz is there
    train_seconds: float = 0.0  # without compilation, evaluation and saving
    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    collected: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # a Feed's metrics: [sum, count]
    window: dict[str, Any] | None = None  # core.fused.Window as lists


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
      state: the final state of all S runs.
      resident: what they shared, on the devices.
      step: the steps done.
      evaluations: one dict an evaluation: `step` and the metrics.
      updates_per_s: updates of all S runs a second, over the whole run, without compilation, evaluation and saving.
      compile_seconds: of this start; 0 where nothing was left to train.
      trained_steps: of this start; 0 for a run that was finished before.
    """

    state: TrainState
    resident: PyTree
    step: int
    evaluations: list[dict[str, Any]]
    updates_per_s: float
    compile_seconds: float
    trained_steps: int


def run(experiment: Experiment, config: ConfigDict, workdir: str | Path) -> Result:
    """Trains to `config.num_steps` or until the program is done, from the newest checkpoint in `workdir` or the start.

    Args:
      config: holds the fields of `core.config.core_config()`.

    Raises:
      ValueError: the configuration cannot work, or `workdir` holds a run of another one.
      DeviceMemoryError: state and resident do not fit the devices.
      NonFiniteError: a metric or a parameter became NaN or infinite; healthy checkpoints are kept.
      Preempted: SIGTERM or Ctrl-C; the state is saved, and the process ends with PREEMPTED_EXIT_CODE.
    """
    check_core_config(config, len(sweep.side_by_side(config)))
    sweep.check_one_folder(config)
    workdir = Path(workdir).expanduser().absolute()
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir={workdir} is a file: name a folder")
    with contextlib.ExitStack() as stack:
        program = experiment.program(config)
        if program.feed:
            stack.callback(program.feed.close)
        provenance.check_same_run(workdir, config)
        if not saved_steps(workdir):
            check_source(config)
        stop = stack.enter_context(StopSignal())
        started = Run(experiment, program, config, workdir)
        from_main_process(lambda: stack.enter_context(_held(workdir)))
        return started.train(stop)


@contextlib.contextmanager
def _held(workdir: Path) -> Iterator[None]:
    """The run's folder, made if it is missing, is this process's alone."""
    workdir.mkdir(parents=True, exist_ok=True)
    with hold(workdir / ".lock", "wait for it, stop it, or use another --workdir"):
        yield


class Run:
    """One start of a run: its place on the devices, its compiled steps and its records."""

    def __init__(self, experiment: Experiment, program: Program, config: ConfigDict, workdir: Path):
        self.experiment, self.program, self.config, self.workdir = experiment, program, config, workdir
        self.headline, self.feed = experiment.headline, program.feed
        self.groups = sweep.groups(config)
        self.num_runs = sweep.num_runs(config)
        self.mesh = make_mesh(**config.mesh)
        self.everywhere = NamedSharding(self.mesh, P())
        self.seed_axis = config.loop.seed_axis
        if self.seed_axis == "auto":
            # One run after another needs the runs on one device: not where the mesh spreads them.
            self.seed_axis = default_seed_axis() if self.mesh.shape["seed"] == 1 else "vmap"
        self.keys = {stream: self.make_keys(stream) for stream in ("init", "train", "collect")}
        self.settings = replicate(sweep.settings(config), self.mesh)
        self.finite_leaves = jax.jit(finite_leaves, out_shardings=self.everywhere)
        self.cut = jax.jit(functools.partial(_runs_from, config.num_seeds))
        self.records = Records()
        self.checked = 0  # everything was finite up to this step
        self.reached: int | None = None  # the step done; None until this start is recorded
        self.system = SystemMonitor()

        resident = program.resident
        places = resident_shardings(resident, config.resident_rules, self.mesh)
        abstract_resident = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            jax.eval_shape(lambda tree: tree, resident), places,
        )
        with jax.set_mesh(self.mesh):
            abstract = jax.eval_shape(self.init_runs, self.keys["init"], self.settings, abstract_resident)
        self.shardings = state_shardings(abstract, config.sharding_rules, self.mesh)
        self.abstract_state = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract, self.shardings
        )
        self.steps = Steps(
            self.program_at, program, self.mesh, self.shardings,
            seed_axis=self.seed_axis, on_nan=config.loop.on_nan,
        )
        memory.check_fits(self.abstract_state, abstract_resident, self.feed.bytes if self.feed else 0)
        self.resident = upload(resident, places)
        self.window = self.put_window(Window.empty(self.num_runs))
        # A combination is judged by its own program, so that a paper's evaluation sees an ordinary configuration.
        self.judges = [
            (rows, experiment.program(sweep.at(config, setting)) if setting else program)
            for setting, rows in zip(sweep.side_by_side(config), self.groups.values(), strict=True)
        ]

    def program_at(self, settings: Mapping[str, jax.Array]) -> Program:
        """The program of a run with settings of its own, for use inside a compiled function."""
        return self.experiment.program(sweep.with_settings(self.config, settings))

    def make_keys(self, stream: str) -> jax.Array:
        make = jax.jit(run_keys, static_argnums=(0, 1, 2, 3), out_shardings=self.everywhere)
        return make(stream, self.config.seed, self.config.num_seeds, len(self.groups))

    def init_runs(self, keys: jax.Array, settings: Mapping[str, jax.Array], resident: PyTree) -> TrainState:
        return init_runs(self.program_at, keys, settings, resident, self.seed_axis)

    def train(self, stop: StopSignal) -> Result:
        config, records = self.config, self.records
        self.checkpoints = Checkpointer(
            self.workdir / "checkpoints", keep=config.checkpoint.keep, has_source=self.feed is not None
        )
        self.writer = None
        with contextlib.ExitStack() as stack:
            # First in and so last out: it sees what goes wrong in the others too.
            stack.push(self.record_end)
            stack.callback(self.checkpoints.close)
            state, inputs = self.restore_or_init()
            step = first_step = self.checked = int(state.step)
            # Other inputs end every process, not the main one alone.
            elapsed = from_main_process(lambda: provenance.record(self.workdir, config, step, inputs))
            self.first_start, self.reached = time.perf_counter() - elapsed, step
            if is_main_process():
                self.writer = MetricWriter(
                    self.workdir, step=step, lines=records.lines, tensorboard=config.tensorboard,
                    wandb_project=config.wandb_project, config=provenance.plain_config(config),
                    groups=self.groups, crc=records.lines_crc,
                )
                self.check_outcomes()
                stack.callback(self.writer.close)
            if self.ended(step):
                logging.info("the run in %s is finished: %d steps are done, nothing to train", self.workdir, step)
            self.progress = stack.enter_context(ProgressLine(config.num_steps, step))
            self.profiled = step + config.profile
            stack.callback(self.end_profile)
            while True:
                if records.logged < step and self.due(step, config.loop.log_every):
                    self.log(step, state)
                if self.evaluation_due(step) and not stop.raised():
                    self.evaluate(step, state)
                if records.logged < step and self.ended(step):
                    self.log(step, state)
                finished = self.ended(step) and records.evaluated == step
                if not finished and stop.raised():
                    self.save(step, state)
                    self.checkpoints.wait()
                    logging.warning("told to stop: step %d is saved in %s; start again to go on", step, self.workdir)
                    raise Preempted(step)
                if self.due(step, config.checkpoint.every) or finished and step > 0:
                    self.save(step, state)
                if finished:
                    break
                state, step = self.advance(step, state, stop)
        rate = step * self.num_runs / records.train_seconds if records.train_seconds else 0.0
        return Result(
            state, self.resident, step, records.evaluations, rate, self.steps.compile_seconds, step - first_step
        )

    def ended(self, step: int) -> bool:
        """Whether all steps are done, or the program says after the last evaluation that these are enough."""
        if step >= self.config.num_steps:
            return True
        done, evaluations = self.program.done, self.records.evaluations
        return done is not None and bool(evaluations) and bool(done(evaluations))

    def record_end(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        del kind, traceback
        if self.reached is not None and is_main_process():
            seconds = {"train": self.records.train_seconds, "compile": self.steps.compile_seconds}
            provenance.record_end(self.workdir, self.reached, error, seconds)

    def due(self, step: int, every: int) -> bool:
        return step > 0 and (step >= self.config.num_steps or (every > 0 and step % every == 0))

    def evaluation_due(self, step: int) -> bool:
        loop = self.config.loop
        at_start = step == 0 and (loop.eval_at_start or self.config.num_steps == 0)
        return self.records.evaluated < step and (at_start or self.due(step, loop.eval_every))

    def restore_or_init(self) -> tuple[TrainState, dict[str, Any]]:
        """The state to go on from, and the run's inputs for its provenance."""
        inputs = dict(self.experiment.inputs)
        restored = self.checkpoints.restore(self.abstract_state)
        if restored is None:
            with jax.set_mesh(self.mesh):
                init = jax.jit(self.init_runs, out_shardings=self.shardings)
                state = init(self.keys["init"], self.settings, self.resident)
            state, source = init_from(self.config, state, inputs)
            return state, inputs | source
        for name, value in restored.records.items():
            setattr(self.records, name, value)
        if self.records.window is not None:
            kept, counts, sums = (self.records.window[name] for name in ("kept", "counts", "sums"))
            self.window = self.put_window(
                Window(
                    np.asarray(kept, np.int32), {name: np.asarray(x, np.int32) for name, x in counts.items()},
                    {name: np.asarray(x, np.float32) for name, x in sums.items()},
                )
            )
        if self.feed:
            self.feed.restore(restored.source)
        logging.info("resuming %s at step %d", self.workdir, restored.step)
        return restored.state, inputs

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
            if step < self.profiled:
                count = min(count, self.profiled - step)
            batch = None
            if self.feed:
                with self.clock():
                    batch = self.collect(step, state)
            inputs = self.resident, batch, self.keys["train"], self.settings
            compiled = self.steps.find(count, (state, *inputs))
            if not self.window.sums.keys() >= set(compiled.names):
                self.window = self.put_window(self.window.including(compiled.names))
            if config.profile and step + config.profile == self.profiled:
                jax.profiler.start_trace(str(self.workdir / "profile"))
            with self.clock(), jax.transfer_guard("disallow"):
                state, part = compiled.run(state, self.window.only(compiled.names), *inputs)
                # The host waits for every chunk, so that a stop is heard and nothing queues up on the device.
                jax.block_until_ready(part)
            self.window = self.window.updated(part)
            step += compiled.count
            self.reached = step
            if step == self.profiled:
                self.end_profile()
            self.progress.update(step)
            if stop.raised():
                break
        return state, step

    def end_profile(self) -> None:
        """Writes the trace of the first steps, if one is being made."""
        with contextlib.suppress(RuntimeError):  # none is
            jax.profiler.stop_trace()

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.records.train_seconds += time.perf_counter() - begin

    def collect(self, step: int, state: TrainState) -> PyTree:
        """One batch of the Feed, uploaded; its metrics join the window."""
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.keys["collect"], step)
        try:
            batch, metrics = self.feed.collect(state, self.resident, keys, step)
        except (ValueError, ArithmeticError):
            if not all(jax.device_get(self.finite_leaves(state.params))):
                self.log(step, state)  # says that they are not, which is the cause
            raise
        for name, value in metrics.items():
            total, seen = self.records.collected.get(name, (0.0, 0))
            self.records.collected[name] = [total + float(value), seen + 1]
        return upload_batch(batch, self.mesh)

    # Log, evaluate, save

    def log(self, step: int, state: TrainState) -> None:
        """Writes the means since the last line and empties the window."""
        records = self.records
        metrics = self.window_means()
        if self.config.loop.on_nan == "skip":
            metrics["train/skipped_updates"] = step - records.logged - np.asarray(self.window.kept)
        rate = step * self.num_runs / records.train_seconds
        times = {"time/updates_per_s": rate, "time/train_seconds": records.train_seconds}
        self.write(step, metrics | times | self.system.read())
        self.progress.update(step, rate=rate)
        self.check_finite(step, state, metrics)
        records.logged, records.collected = step, {}
        self.window = self.put_window(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.window))

    def window_means(self) -> dict[str, Any]:
        window = jax.device_get(self.window)
        means = {
            name: total / np.maximum(window.counts[name], 1)
            for name, total in window.sums.items()
            if self.config.loop.on_nan == "skip" or window.counts[name].any()  # no batch of its kind came
        }
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
        """Judges all runs; raw outcomes go to outcomes.npz, their means and the other metrics to metrics.jsonl."""
        key = jax.random.fold_in(jax.random.key(STREAMS["evaluate"]), step)
        found = [program.evaluate(self.rows_of(state, rows), self.resident, key) for rows, program in self.judges]
        metrics, outcomes = found[0] if len(found) == 1 else _joined(found, self.config.num_seeds)
        means = {f"eval/{name}": np.asarray(x, np.float64).mean(-1) for name, x in outcomes.items()}
        metrics = {name: plain(value) for name, value in (means | dict(metrics)).items()}
        if is_main_process() and outcomes:
            add_outcomes(self.workdir / "outcomes.npz", step, self.records.train_seconds, outcomes)
        self.records.raw = bool(outcomes)
        if metrics and self.headline.name not in metrics:
            logging.warning("the headline %s is not among the metrics: %s", self.headline.name, ", ".join(metrics))
        if metrics:
            self.write(step, metrics)
            self.records.evaluations.append({"step": step} | metrics)
        self.records.evaluated = step
        if (value := self.headline_mean(metrics)) is not None:
            self.progress.update(step, headline=f"{self.headline.label} {value:.4g}")
            logging.info("step %d: %s %.4g", step, self.headline.label, value)

    def check_outcomes(self) -> None:
        """Warns where outcomes.npz lacks evaluations that the run had made."""
        path, steps = self.workdir / "outcomes.npz", {line["step"] for line in self.records.evaluations}
        there = set(read_outcomes(path).steps.tolist()) if path.exists() else set()
        if there and not steps <= there or not there and self.records.raw:
            logging.warning("%s lacks evaluations that the run had made: put a copy of it back before it goes on", path)

    def rows_of(self, state: TrainState, rows: slice) -> TrainState:
        """The runs of a combination, as a state of their own."""
        if rows == slice(0, self.num_runs):
            return state
        return self.cut(state.replace(step=None), rows.start).replace(step=state.step)

    def headline_mean(self, metrics: Mapping[str, Any]) -> float | None:
        """The headline of all runs; None where the metrics lack it or it is not finite."""
        if self.headline.name not in metrics:
            return None
        mean = float(np.mean(np.asarray(metrics[self.headline.name], np.float64)))
        return mean if np.isfinite(mean) else None

    def save(self, step: int, state: TrainState) -> None:
        """Starts a checkpoint of a state that is known to be finite; a step is saved once."""
        if step in self.checkpoints.steps():
            return
        records = self.records
        self.check_finite(step, state, self.window_means())
        window = jax.device_get(self.window)
        counts, sums = ({name: x.tolist() for name, x in part.items()} for part in (window.counts, window.sums))
        records.window = {"kept": window.kept.tolist(), "counts": counts, "sums": sums}
        latest = records.evaluations[-1] if records.evaluations else {"step": -1}
        # A score that is not finite would compare as the best of all.
        score = self.headline_mean(latest) if latest["step"] == step else None
        if score is not None and self.headline.better == "lower":
            score = -score
        records.lines_crc = self.writer.crc if self.writer else None
        source = self.feed.save() if self.feed else None
        self.checkpoints.save(step, state, dataclasses.asdict(records), source, score)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.records.lines += 1
        if self.writer is not None:
            # Since the run's first start, with all that came between: compilation, evaluation, saving and stops.
            wall_seconds = time.perf_counter() - self.first_start
            self.writer.write(step, {**metrics, "time/wall_seconds": wall_seconds})


def _runs_from(count: int, runs: PyTree, start: jax.Array) -> PyTree:
    """`count` runs of a tree of all, leaves [S, ...] -> [count, ...]."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, count), runs)


def _joined(found: list[Evaluation], num_seeds: int) -> Evaluation:
    """The evaluations of all combinations, one after another along the axis of runs."""

    def join(values: list[Any]) -> np.ndarray:
        return np.concatenate([np.broadcast_to(np.asarray(x), np.shape(x) or (num_seeds,)) for x in values])

    return Evaluation(
        *({name: join([part[name] for part in parts]) for name in parts[0]} for parts in zip(*found, strict=True))
    )
