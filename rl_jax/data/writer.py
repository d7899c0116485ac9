"""Writes episodes as an RLDS data set (TFDS, array_record files, no TensorFlow needed) that opens anywhere.

RLDS (Ramos et al. 2021, arXiv 2111.02767) stores an episode as T + 1 steps: step t holds the observation, the action
taken there and its reward; the last step holds the final observation alone (action and reward are zeros and mean
nothing) and says with `is_terminal` whether the environment ended or time was up.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.episodes import Episodes

VERSION = "1.0.0"
RESERVED = ("observation", "action", "reward", "discount", "is_first", "is_last", "is_terminal")


def rlds_features(observation_dim: int, action_dim: int, extras: dict[str, tuple[tuple[int, ...], np.dtype]]):
    """TFDS features of an RLDS set; `extras` maps the name of a further per-step field to its (shape, dtype)."""
    tfds = require("tensorflow_datasets", "datasets")
    clash = sorted(set(extras) & set(RESERVED))
    if clash:
        raise ValueError(f"extra field {clash[0]!r} has the name of an RLDS field")
    steps = tfds.features.Dataset({
        "observation": tfds.features.Tensor(shape=(observation_dim,), dtype=np.float32),
        "action": tfds.features.Tensor(shape=(action_dim,), dtype=np.float32),
        "reward": np.float32,
        "discount": np.float32,
        "is_first": np.bool_,
        "is_last": np.bool_,
        "is_terminal": np.bool_,
        **{field: tfds.features.Tensor(shape=shape, dtype=dtype) for field, (shape, dtype) in extras.items()},
    })
    # The steps come as whole arrays, already in the file's layout; Dataset would take them apart and encode one by one.
    steps.encode_example = lambda arrays: arrays
    return tfds.features.FeaturesDict({"steps": steps})


def rlds_examples(parts: Iterable[Episodes]) -> Iterator[tuple[int, dict]]:
    """(episode index, TFDS example) of every episode of `parts`, in order."""
    index = 0
    for part in parts:
        for start, length in zip(part.starts, part.lengths):
            yield index, {"steps": _steps(part, slice(start, start + length))}
            index += 1


def _steps(episodes: Episodes, span: slice) -> dict[str, np.ndarray]:
    length = span.stop - span.start
    terminal = np.zeros(length + 1, bool)
    terminal[-1] = episodes.terminated[span.stop - 1]
    first, last = np.zeros(length + 1, bool), np.zeros(length + 1, bool)
    first[0], last[-1] = True, True

    def padded(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[span], np.zeros_like(array[:1])])

    return {
        "observation": np.concatenate([episodes.observations[span], episodes.next_observations[span][-1:]]),
        "action": padded(episodes.actions),
        "reward": padded(episodes.rewards),
        "discount": 1.0 - terminal.astype(np.float32),
        "is_first": first,
        "is_last": last,
        "is_terminal": terminal,
        **{field: padded(array) for field, array in episodes.extras.items()},
    }


def write_rlds(
    parts: Iterable[Episodes],
    data_dir: str | Path,
    name: str,
    *,
    env_id: str = "",
    description: str = "Roll-outs of a policy.",
) -> Path:
    """Writes the episodes of `parts` (taken one by one, so that they need not fit in memory) as the RLDS set `name`.

    Returns:
      The folder `data_dir/name/1.0.0`, which `tfds.builder_from_directory` opens.

    Raises:
      FileExistsError: if that folder is there already.
      ValueError: if `parts` is empty or `name` is not lower-case letters, digits and underscores.
    """
    tfds = require("tensorflow_datasets", "datasets")
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"data set name {name!r}: use lower-case letters, digits and underscores")
    folder = Path(data_dir).expanduser() / name / VERSION
    if folder.exists():
        raise FileExistsError(f"{folder}: the data set exists already; remove it or choose another name")
    parts = iter(parts)
    head = next(parts, None)
    if head is None:
        raise ValueError(f"{folder}: there are no episodes to write")

    def all_parts() -> Iterator[Episodes]:
        yield head
        yield from parts

    class Rollouts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The builder of this one set."""

        VERSION = tfds.core.Version(VERSION)

        def _info(self):
            shapes = {field: (array.shape[1:], array.dtype) for field, array in head.extras.items()}
            return rlds_info(self, description, env_id, head.observations.shape[1], head.actions.shape[1], shapes)

        def _split_generators(self, dl_manager):
            return {"train": rlds_examples(all_parts())}

        def _generate_examples(self):
            raise NotImplementedError  # _split_generators hands the examples over

    Rollouts.name = name
    prepare(Rollouts(data_dir=str(Path(data_dir).expanduser()), file_format="array_record"))
    return folder


def rlds_info(builder, description: str, env_id: str, observation_dim: int, action_dim: int, extras: dict):
    """The DatasetInfo of an RLDS set whose episodes keep their order; the task's id goes into its metadata."""
    tfds = require("tensorflow_datasets", "datasets")
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=rlds_features(observation_dim, action_dim, extras),
        metadata=tfds.core.MetadataDict({"env_id": env_id}),
        disable_shuffling=True,
    )


def prepare(builder) -> None:
    """Runs a TFDS builder without its chatter on standard output.

    TFDS writes to a temporary folder beside the set's own, renames it at the end and removes it if anything fails.
    """
    tfds = require("tensorflow_datasets", "datasets")
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as download_dir, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=download_dir)
