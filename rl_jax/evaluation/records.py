"""The raw outcome of every evaluated episode of a training run, in one npz file beside its metrics."""

import os
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from rl_jax.evaluation.rollouts import EpisodeResults


class EvaluationRecord(NamedTuple):
    """T evaluations of S runs for E episodes each."""

    steps: np.ndarray  # [T] int64, increasing
    episodes: EpisodeResults  # arrays [T, S, E]


def record_episodes(path: str | os.PathLike, step: int, results: EpisodeResults) -> None:
    """Adds the evaluation at `step` to the file; those at the same or a later step go, as a resumed run redoes them.

    The file is replaced in one rename.

    Raises:
      ValueError: the file is damaged, or holds evaluations of another number of runs or episodes.
    """
    steps, episodes = np.array([step], np.int64), EpisodeResults(*(x[None] for x in results))
    if os.path.exists(path):
        old = read_episodes(path)
        if old.episodes.returns.shape[1:] != results.returns.shape:
            raise ValueError(
                f"{path} holds {old.episodes.returns.shape[1:]} (runs, episodes) an evaluation, not "
                f"{results.returns.shape}: it is of another run"
            )
        keep = old.steps < step
        steps = np.concatenate([old.steps[keep], steps])
        episodes = EpisodeResults(*(np.concatenate([x[keep], y]) for x, y in zip(old.episodes, episodes)))
    temporary = f"{os.fspath(path)}.tmp"
    with open(temporary, "wb") as file:
        np.savez_compressed(file, steps=steps, **episodes._asdict())
    os.replace(temporary, path)


def read_episodes(path: str | os.PathLike) -> EvaluationRecord:
    """Reads what `record_episodes` wrote.

    Raises:
      ValueError: the file is not such a record or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return EvaluationRecord(file["steps"], EpisodeResults(*(file[name] for name in EpisodeResults._fields)))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a record of evaluations: {error}") from error
