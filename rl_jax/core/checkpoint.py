"""Checkpoints of the whole run through Orbax: asynchronous, atomic, verified when read.

A step folder holds the train state (sharded arrays), the loop's records (JSON) and the source's state (one file a
process). Orbax writes a folder under a temporary name and renames it when it is complete,
so a killed save leaves nothing that looks like a checkpoint. A fingerprint of every array is stored with it: a
checkpoint that cannot be read, or reads as something else, is set aside with a warning for the one before.
"""

import dataclasses
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from flax import serialization

from rl_jax.core.files import naming, read_object
from rl_jax.core.fused import fingerprint, init_runs, run_keys
from rl_jax.core.mesh import path_name
from rl_jax.core.program import Program, PyTree, TrainState
from rl_jax.core.runtime import is_main_process, sync_processes

policies = ocp.checkpoint_managers

FORMAT = 2  # of the records; another one is of another release


class CheckpointMismatchError(ValueError):
    """A checkpoint holds another tree than the program's: not damage, but another configuration."""


class _SourceHandler(ocp.CheckpointHandler):
    """Saves what `Feed.save` gives: one file a process, a checksum and msgpack, committed with the rest of the step."""

    def _file(self, directory: Any) -> Path:
        return Path(directory) / f"process_{jax.process_index()}.msgpack"

    def save(self, directory: Any, args: "_SourceSave") -> None:
        packed = serialization.msgpack_serialize(args.item)
        self._file(directory).write_bytes(zlib.crc32(packed).to_bytes(4, "big") + packed)

    def restore(self, directory: Any, args: "_SourceRestore | None" = None) -> PyTree:
        del args
        raw = self._file(directory).read_bytes()
        if zlib.crc32(raw[4:]) != int.from_bytes(raw[:4], "big"):
            raise ValueError("the source's state is not what was saved")
        return serialization.msgpack_restore(raw[4:])


@ocp.args.register_with_handler(_SourceHandler, for_save=True)
@dataclasses.dataclass
class _SourceSave(ocp.args.CheckpointArgs):
    item: PyTree


@ocp.args.register_with_handler(_SourceHandler, for_restore=True)
@dataclasses.dataclass
class _SourceRestore(ocp.args.CheckpointArgs):
    item: PyTree | None = None


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held: `state` placed on the devices, `records` the JSON, `source` of a Feed or None."""

    step: int
    state: TrainState
    records: dict[str, Any]
    source: PyTree


class Checkpointer:
    """Saves and restores one run's checkpoints under `directory`.

    Args:
      keep: how many of the latest to keep; the best one is kept besides.
      has_source: whether a Feed's state is part of each checkpoint.
    """

    def __init__(self, directory: Path, *, keep: int, has_source: bool):
        if is_main_process():
            directory.mkdir(parents=True, exist_ok=True)
        sync_processes("checkpoint directory")
        self.directory = directory
        self._has_source = has_source
        self._fingerprint = jax.jit(fingerprint)
        self._manager = ocp.CheckpointManager(
            directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "records": ocp.JsonCheckpointHandler(),
                "source": _SourceHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        policies.BestN(get_metric_fn=lambda metrics: metrics["score"], n=1,
                                       keep_checkpoints_without_metrics=False),
                    ]
                ),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    def steps(self) -> list[int]:
        """The complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self, step: int, state: TrainState, records: dict[str, Any], source: PyTree = None, score: float | None = None
    ) -> None:
        """Starts a save; returns once `state` may be donated. An error of the save before is raised here.

        Args:
          score: how good the run is, higher is better; None for a checkpoint that cannot be the best.
        """
        fingerprints = [int(x) for x in self._fingerprint(state)]
        records = records | {"format": FORMAT, "fingerprint": fingerprints, "processes": jax.process_count()}
        records = records | {"crc": _crc(records)}
        items = {"state": ocp.args.StandardSave(state), "records": ocp.args.JsonSave(records)}
        if self._has_source:
            items["source"] = _SourceSave(source)
        metrics = None if score is None else {"score": score}
        with naming(self.directory):
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)

    def wait(self) -> None:
        """Blocks until the last save is committed."""
        with naming(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        with naming(self.directory):
            self._manager.close()

    def restore(self, abstract: TrainState) -> Restored | None:
        """The newest sound checkpoint, placed as `abstract` says; None where there is none.

        Checkpoints newer than the one returned are damaged: they are moved to `damaged/` with a warning.

        Args:
          abstract: a state of ShapeDtypeStructs with shardings.

        Raises:
          CheckpointMismatchError: the newest readable checkpoint has other arrays than this program.
        """
        steps = self.steps()
        damaged = {}
        for step in reversed(steps):
            try:
                restored = self._read(step, abstract)
            except CheckpointMismatchError:
                raise
            except Exception as error:  # noqa: BLE001: storage fails in many ways; each means "try the one before"
                damaged[step] = (str(error).strip().splitlines() or [type(error).__name__])[0]
                continue
            for bad, reason in damaged.items():
                logging.warning("checkpoint of step %d cannot be read (%s): going on from step %d", bad, reason, step)
                self._set_aside(bad)
            return restored
        if damaged:
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
            raise ValueError(
                f"no checkpoint in {self.directory} can be read ({reasons}): move that folder away to train from "
                "the start, or use another --workdir"
            )
        return None

    def _read(self, step: int, abstract: TrainState) -> Restored:
        self._compare(step, abstract)
        items = {"state": ocp.args.StandardRestore(abstract), "records": ocp.args.JsonRestore()}
        if self._has_source:
            items["source"] = _SourceRestore()
        composite = self._manager.restore(step, args=ocp.args.Composite(**items))
        state, records = composite["state"], composite["records"]
        if records.pop("crc", None) != _crc(records):
            raise ValueError("its records are not what was saved")
        for name in ("processes", "format"):
            records.pop(name)
        for (path, _), stored, read in zip(
            jax.tree_util.tree_leaves_with_path(state),
            records.pop("fingerprint"),
            self._fingerprint(state),
            strict=True,
        ):
            if stored != int(read):
                raise ValueError(f"{path_name(path)} is not what was saved")
        return Restored(step, state, records, composite["source"] if self._has_source else None)

    def _compare(self, step: int, abstract: TrainState) -> None:
        """Raises CheckpointMismatchError naming the first array that differs, or the number of processes of a Feed."""
        records = read_object(self.directory / str(step) / "records" / "metadata")
        if (found := records.get("format", 1)) != FORMAT:
            raise CheckpointMismatchError(
                f"checkpoint of step {step} in {self.directory} has format {found}, and this release reads {FORMAT}: "
                "go on with the release that began the run, or train in another --workdir"
            )
        processes = records["processes"]
        if self._has_source and processes != jax.process_count():
            raise CheckpointMismatchError(
                f"checkpoint of step {step} in {self.directory} holds the source of {processes} processes and "
                f"{jax.process_count()} run now: start {processes}"
            )
        metadata = self._manager.item_metadata(step)["state"]
        if metadata is None:
            raise ValueError("its array metadata is missing")
        _compare_shapes(step, self.directory, metadata, abstract)

    def _set_aside(self, step: int) -> None:
        """Moves a damaged step out of the manager's sight, so that its step can be saved again."""
        sync_processes(f"set aside {step}")
        if is_main_process():
            target = self.directory / "damaged" / str(step)
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            (self.directory / str(step)).rename(target)
        sync_processes(f"set aside {step} done")
        self._manager.reload()


def _crc(records: Mapping[str, Any]) -> int:
    """A checksum of what a JSON file holds, whatever the order of its fields."""
    return zlib.crc32(json.dumps(records, sort_keys=True).encode())


def load_state(workdir: str | Path, program: Program, num_runs: int) -> TrainState:
    """The newest state that a run saved in `workdir`, on this process's first device; the run itself is left alone.

    For whoever looks at a run: an analysis, a rendering. A feed's state is not read.

    Args:
      program: the run's own; its `init` gives the shapes.
      num_runs: S, the leading axis of the saved leaves.

    Raises:
      FileNotFoundError: there is no checkpoint in `workdir`.
      CheckpointMismatchError: the checkpoint holds other arrays than the program's.
    """
    keys = jax.eval_shape(lambda: run_keys("init", 0, num_runs))
    abstract = jax.eval_shape(
        lambda keys, resident: init_runs(lambda settings: program, keys, {}, resident, "vmap"), keys, program.resident
    )
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract)
    step, folder, metadata = _saved(workdir)
    _compare_shapes(step, folder, metadata, abstract)
    return _read_state(folder, abstract)


def load_leaves(
    workdir: str | Path, shardings: Mapping[str, Any], step: int | None = None
) -> tuple[int, dict[str, jax.Array]]:
    """The step of a run's checkpoint and those of its leaves that are asked for, [S, ...] by name.

    Args:
      shardings: shape -> where to lay a leaf of it, by names such as "params/actor/params/Dense_0/kernel"; what is not
        named is not read.
      step: of the checkpoint; None for the newest.

    Raises:
      FileNotFoundError: there is no such checkpoint in `workdir`.
    """
    step, folder, metadata = _saved(workdir, step)

    def asked(path: Any, leaf: Any) -> Any:
        name = path_name(path)
        if name not in shardings:
            return ocp.PLACEHOLDER
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name](leaf.shape))

    restored = _read_state(folder, jax.tree_util.tree_map_with_path(asked, metadata))
    found = jax.tree_util.tree_leaves_with_path(restored, is_leaf=lambda x: x is ocp.PLACEHOLDER)
    return step, {path_name(path): leaf for path, leaf in found if leaf is not ocp.PLACEHOLDER}


def saved_names(workdir: str | Path) -> list[str]:
    """The names of the leaves of a run's newest checkpoint, as `load_leaves` takes them.

    Raises:
      FileNotFoundError: there is no checkpoint in `workdir`.
    """
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(_saved(workdir)[2])]


def saved_steps(workdir: str | Path) -> list[int]:
    """The steps of a run's checkpoints; none where it has no folder of them."""
    # What is being written has another name until it is complete.
    paths = (Path(workdir).expanduser().absolute() / "checkpoints").glob("*")
    return [int(path.name) for path in paths if path.name.isdigit()]


def _saved(workdir: str | Path, step: int | None = None) -> tuple[int, Path, PyTree]:
    """The newest checkpoint of another run, or that of `step`: its step, its folder, and shape and type of its arrays.
    """
    directory = Path(workdir).expanduser().absolute() / "checkpoints"
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder; name the --workdir of a run that has saved")
    if not (steps := saved_steps(workdir)):
        raise FileNotFoundError(f"{directory} holds no checkpoint: the run has not saved yet")
    if step is None:
        step = max(steps)
    elif step not in steps:
        raise FileNotFoundError(f"{directory} holds no checkpoint of step {step}: it has {sorted(steps)}")
    folder = directory / str(step)
    return step, folder, ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree


def _read_state(folder: Path, wanted: PyTree) -> PyTree:
    """The leaves of a checkpoint, laid as `wanted` says; those that are PLACEHOLDER are not read."""
    args = ocp.args.PyTreeRestore(item=wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted))
    return ocp.PyTreeCheckpointHandler().restore(folder / "state", args=args)


def _compare_shapes(step: int, directory: Path, metadata: PyTree, abstract: TrainState) -> None:
    """Raises CheckpointMismatchError naming the first array that differs."""
    saved, asked = _shapes(metadata), _shapes(abstract)
    for name in [*asked, *saved]:
        if saved.get(name) != asked.get(name):
            raise CheckpointMismatchError(
                f"checkpoint of step {step} in {directory} has {name}: {saved.get(name, 'nothing')}, and this "
                f"program has {asked.get(name, 'nothing')}: use the run's own config, or another --workdir"
            )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    def stored(x: Any) -> tuple[int, ...]:
        # A random key is stored as the words it is made of.
        is_key = x.dtype is not None and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return tuple(jax.eval_shape(jax.random.key_data, x).shape if is_key else x.shape)

    return {path_name(path): stored(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}
