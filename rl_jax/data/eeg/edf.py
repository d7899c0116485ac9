"""A reader of EDF+ files: signals of one sampling rate and their annotations.

Kemp and Olivan 2003, "European data format 'plus' (EDF+), an EDF alike standard format for the exchange of
physiological data", Clinical Neurophysiology 114. A file is a header in ASCII, 256 bytes and 256 more a signal, and
records one after the other, each with some samples of every signal, little-endian int16. The signal "EDF Annotations"
holds text in their place: time-stamped lists, each "+onset[\\x15duration]\\x14text\\x14...\\x14\\x00".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

ANNOTATIONS = "EDF Annotations"
# Width in bytes of each field of a signal's header, in their order.
SIGNAL_FIELDS = {
    "label": 16, "transducer": 80, "unit": 8, "physical_min": 8, "physical_max": 8, "digital_min": 8, "digital_max": 8,
    "prefilter": 80, "samples": 8, "reserved": 32,
}


class Annotation(NamedTuple):
    """Something that happened: when and for how long, in seconds from the start of the file."""

    onset: float
    duration: float
    text: str


class Recording(NamedTuple):
    """What a file holds.

    Attributes:
      signals: float32 [channels, samples], in the file's physical unit.
      channels: their names, without trailing dots and blanks.
      rate: samples a second.
      annotations: in the order of the file.
    """

    signals: np.ndarray
    channels: tuple[str, ...]
    rate: float
    annotations: tuple[Annotation, ...]


def read_edf(path: Path) -> Recording:
    """Reads a file.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is no EDF file, is interrupted (EDF+D), has another size than its header says, or its signals have
        different rates; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    content = path.read_bytes()
    try:
        count, records, seconds = int(content[252:256]), int(content[236:244]), float(content[244:252])
        fields, at = {}, 256
        for name, width in SIGNAL_FIELDS.items():
            part = content[at : at + width * count].decode("ascii")
            fields[name] = [part[i * width : (i + 1) * width].strip() for i in range(count)]
            at += width * count
        samples = np.array(fields["samples"], int)
        scales = {name: np.array(fields[name], float) for name in fields if name.startswith(("physical", "digital"))}
    except ValueError as error:
        raise ValueError(f"{path} is no EDF file: {error}") from None
    if content[192:197] == b"EDF+D":
        raise ValueError(f"{path} is an interrupted recording (EDF+D): only continuous ones are read")
    size = at + 2 * records * samples.sum()
    if len(content) != size:
        raise ValueError(
            f"{path} has {len(content):,} bytes and its header says {size:,}: fetch it again; a copy whose line ends "
            "were converted is too long"
        )
    table = np.frombuffer(content, "<i2", offset=at).reshape(records, samples.sum())
    parts = np.split(table, np.cumsum(samples)[:-1], axis=1)
    real = [i for i, label in enumerate(fields["label"]) if label != ANNOTATIONS]
    if len({samples[i] for i in real}) != 1:
        raise ValueError(f"{path}: its signals have different rates or there is none")
    raw = np.stack([parts[i].reshape(-1) for i in real]).astype(np.float64)
    low, high, below, above = (
        scales[name][real][:, None] for name in ("physical_min", "physical_max", "digital_min", "digital_max")
    )
    signals = low + (raw - below) * (high - low) / (above - below)
    texts = [parts[i].tobytes() for i, label in enumerate(fields["label"]) if label == ANNOTATIONS]
    return Recording(
        signals.astype(np.float32), tuple(fields["label"][i].rstrip(". ") for i in real),
        float(samples[real[0]] / seconds), tuple(one for text in texts for one in read_annotations(text)),
    )


def read_annotations(content: bytes) -> list[Annotation]:
    """The annotations of all records of one signal; lists without a text, which only say when a record starts, are
    none."""
    found = []
    for part in content.split(b"\x00"):
        stamp, *texts = part.split(b"\x14")
        onset, _, duration = stamp.partition(b"\x15")
        found += [Annotation(float(onset), float(duration or 0.0), text.decode()) for text in texts if text]
    return found
