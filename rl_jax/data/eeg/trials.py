"""Motor-imagery trials: cut from EDF+ runs or read from the embedded file, filtered, and split so that nothing leaks.

The runs are those of PhysioNet's EEG Motor Movement/Imagery set: what annotations T1 and T2 mean depends on the number
of the run. A trial keeps its run, by which it is split; windows of a trial stay with it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.signal import butter, sosfiltfilt

from rl_jax.core.arrays import read_arrays
from rl_jax.data.eeg.edf import Recording, read_edf

EMBEDDED = Path(__file__).parent / "s001_imagery.npz"
CLASSES = ("left fist", "right fist", "both fists", "both feet")
FISTS = (0, 1)
# By task: runs of fists, left and right, and runs of both fists and both feet.
RUNS = {"imagery": ((4, 8, 12), (6, 10, 14)), "movement": ((3, 7, 11), (5, 9, 13))}
RATE = 80  # samples a second that are kept: the bands end below half of it
STORED_BAND = (4.0, 38.0)  # Hz
STORED_SPAN = (-0.5, 4.5)  # seconds from the cue; a trial lasts 4.1


class Trials(NamedTuple):
    """Trials of one person.

    Attributes:
      signals: float32 [N, T, bands, channels], microvolts.
      labels: int32 [N], places in `classes`.
      runs: int32 [N], numbers of the runs.
      channels: names.
      classes: names.
    """

    signals: np.ndarray
    labels: np.ndarray
    runs: np.ndarray
    channels: tuple[str, ...]
    classes: tuple[str, ...] = CLASSES


def band_pass(signals: np.ndarray, rate: float, band: Sequence[float]) -> np.ndarray:
    """A Butterworth filter of order 4, forwards and backwards (zero-phase), over the last axis."""
    return sosfiltfilt(butter(4, band, "bandpass", fs=rate, output="sos"), signals, axis=-1)


def epochs_of(recording: Recording, run: int, pair: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(int16 [N, channels, T] in microvolts, labels [N], runs [N]) of the trials of one run.

    The whole run is filtered to `STORED_BAND` without a look at a label, and thinned to 80 Hz.

    Args:
      pair: the classes of T1 and T2. T0, rest, is no trial.

    Raises:
      ValueError: the rate is no multiple of 80 Hz, or the recording ends in a trial.
    """
    step = recording.rate / RATE
    if step != int(step):
        raise ValueError(f"run {run} has {recording.rate:g} samples a second: a multiple of {RATE} is needed")
    filtered = band_pass(recording.signals, recording.rate, STORED_BAND)[:, :: int(step)]
    first, last = (round(x * RATE) for x in STORED_SPAN)
    cues = [(round(one.onset * RATE), pair[int(one.text == "T2")]) for one in recording.annotations
            if one.text in ("T1", "T2")]
    if not cues or cues[0][0] + first < 0 or cues[-1][0] + last > filtered.shape[1]:
        raise ValueError(f"run {run} has no trial, or one that goes over its ends: {len(cues)} annotations T1 and T2")
    cut = np.stack([filtered[:, cue + first : cue + last] for cue, _ in cues])
    labels = np.array([label for _, label in cues], np.int32)
    return np.round(cut).astype(np.int16), labels, np.full(len(cues), run, np.int32)


def read_folder(folder: Path, task: str = "imagery") -> dict[str, np.ndarray]:
    """What the embedded file holds, of a folder with one person's runs, `*R<two digits>.edf`.

    Raises:
      FileNotFoundError: a run is missing, or is there twice.
      ValueError: the runs have different channels, or one cannot be read.
    """
    parts, channels = [], None
    by_number = sorted((run, pair) for runs, pair in zip(RUNS[task], (CLASSES[:2], CLASSES[2:])) for run in runs)
    for run, pair in by_number:
        found = sorted(Path(folder).glob(f"*R{run:02d}.edf"))
        if len(found) != 1:
            raise FileNotFoundError(f"{folder}: {len(found)} files *R{run:02d}.edf, one is needed for each of runs "
                                    f"{', '.join(str(number) for number, _ in by_number)}")
        recording = read_edf(found[0])
        channels = channels or recording.channels
        if recording.channels != channels:
            raise ValueError(f"{found[0]} has other channels than the runs before it")
        parts.append(epochs_of(recording, run, [CLASSES.index(name) for name in pair]))
    epochs, labels, runs = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {"epochs": epochs, "labels": labels, "runs": runs, "channels": np.array(channels)}


def load_trials(
    folder: str = "", task: str = "imagery", bands: Sequence[Sequence[float]] = ((8.0, 30.0),),
    classes: Sequence[int] = (), span: Sequence[float] = (0.5, 3.5),
) -> Trials:
    """Reads trials, takes the mean over channels off (common average reference) and filters them to each band.

    Args:
      folder: one person's EDF files; "" for the embedded trials, which are of imagery.
      bands: in Hz.
      classes: which to keep; () for all.
      span: seconds from the cue, of the part that is kept once the filters have run.

    Raises:
      ValueError: there is no such task, band, class or span.
    """
    if task not in RUNS or (not folder and task != "imagery"):
        raise ValueError(f"config.data.task={task!r}: it is one of {', '.join(RUNS)}, and what is embedded is imagery")
    for low, high in bands:
        if not STORED_BAND[0] <= low < high <= STORED_BAND[1]:
            raise ValueError(f"config.data.bands: ({low}, {high}) is no band within {STORED_BAND} Hz")
    if not STORED_SPAN[0] <= span[0] < span[1] <= STORED_SPAN[1]:
        raise ValueError(f"config.data.span={tuple(span)}: it lies within {STORED_SPAN} s from the cue")
    kept = tuple(classes) or tuple(range(len(CLASSES)))
    if len(set(kept)) < 2 or not set(kept) <= set(range(len(CLASSES))):
        raise ValueError(f"config.data.classes={kept}: two or more of 0 to {len(CLASSES) - 1}")
    stored = read_folder(Path(folder).expanduser(), task) if folder else read_arrays(EMBEDDED)
    chosen = np.isin(stored["labels"], kept)
    epochs = stored["epochs"][chosen].astype(np.float64)
    epochs = epochs - epochs.mean(1, keepdims=True)
    first, last = (round((x - STORED_SPAN[0]) * RATE) for x in span)
    signals = np.stack([band_pass(epochs, RATE, band)[..., first:last] for band in bands], 1)  # [N, bands, C, T]
    return Trials(
        signals.transpose(0, 3, 1, 2).astype(np.float32),
        np.searchsorted(sorted(kept), stored["labels"][chosen]).astype(np.int32),
        stored["runs"][chosen].astype(np.int32), tuple(re.sub(r"^FP", "Fp", name.upper().replace("Z", "z"))
                                                       for name in stored["channels"].tolist()),
        tuple(CLASSES[place] for place in sorted(kept)),
    )


def folds_by_run(runs: np.ndarray, task: str = "imagery") -> np.ndarray:
    """The fold [N] that each trial is tested in: the first run of each kind is fold 0, the second 1, the third 2.

    No run is on both sides of a fold, and each side has all classes.
    """
    order = {run: place for kind in RUNS[task] for place, run in enumerate(kind)}
    return np.array([order[run] for run in runs.tolist()], np.int32)
