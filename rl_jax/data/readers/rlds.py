"""Reader of RLDS episodes stored by TFDS in array_record files; needs no TensorFlow."""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rl_jax.core.arrays import readable
from rl_jax.core.extras import require
from rl_jax.core.files import read_json
from rl_jax.data.episodes import Episodes
from rl_jax.data.readers.fields import episode, flat_flags, join
from rl_jax.data.writer import RESERVED

# RLDS's names of the fields of an episode.
NAMES = {
    "observations": "steps/observation", "actions": "steps/action", "rewards": "steps/reward",
    "terminated": "steps/is_terminal", "truncated": "steps/is_last",
}
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # under which features.json names a feature's class


def is_rlds(path: Path) -> bool:
    """Whether `path` is the folder of a prepared TFDS set."""
    return (path / "dataset_info.json").is_file() and (path / "features.json").is_file()


def read_rlds(path: Path) -> tuple[Episodes, dict]:
    """Reads the `train` split (or the only one) of an RLDS set.

    Nested observations or actions are joined into one vector, in the order of their sorted names. Follows RLDS: the
    last step of an episode holds the final observation alone, so T + 1 steps are T transitions; the episode is
    terminated if that step has `is_terminal`, otherwise truncated.

    Returns:
      The episodes, with every further numeric per-step field in `extras`, and {"env_id": ...} ("" if not recorded).
    """
    tfds = require("tensorflow_datasets", "datasets")
    require("array_record", "datasets")
    _check_features(path / "features.json")
    with readable(str(path), "TFDS set"):
        builder = tfds.builder_from_directory(str(path))
        file_format, splits, features = builder.info.file_format, list(builder.info.splits), builder.info.features
        has_steps = "steps" in features
    if file_format is None or file_format.value != "array_record":
        raise ValueError(f"{path}: file format {file_format}, expected array_record; convert the set with "
                         f"`tfds convert_format`")
    if "train" not in splits and len(splits) != 1:
        raise ValueError(f"{path}: splits {splits}: none is called 'train'")
    if not has_steps:
        raise ValueError(f"{path}: field 'steps' is missing: not an RLDS set")
    split = "train" if "train" in splits else splits[0]
    with readable(str(path), "TFDS set", "steps"):
        records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        specs = _flatten(features.get_serialized_info()["steps"])
        connectors = _flatten(features["steps"].feature)
        count = len(records)
    parts = []
    for index in range(count):
        with readable(f"{path}: episode {index}", "record"):
            record = records[index]
        steps = _parse(f"{path}: episode {index}", record, specs, connectors)
        parts.append(_episode(f"{path}: episode {index}", steps))
    metadata_path = path / "metadata.json"
    metadata = read_json(metadata_path) if metadata_path.is_file() else {}
    if not isinstance(metadata or {}, dict):
        raise ValueError(f"{metadata_path}: expected a JSON object with env_id")
    env_id = str((metadata or {}).get("env_id") or "")
    return join(str(path), [part for part in parts if part is not None]), {"env_id": env_id}


def _check_features(path: Path) -> None:
    """Raises ValueError where features.json names a class that is not of TFDS: TFDS imports the module of any name."""
    def names(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            yield from (node[key] for key in CLASS_KEYS if key in node)
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        for value in inner:
            yield from names(value)

    with readable(str(path.parent), "TFDS set"):
        found = list(names(read_json(path)))
    for name in found:
        if not isinstance(name, str) or not name.startswith("tensorflow_datasets."):
            raise ValueError(f"{path}: a feature is of the class {name!r}: only those of tensorflow_datasets are read")


def _parse(name: str, record: bytes, specs: dict, connectors: dict) -> dict[str, np.ndarray]:
    """The per-step arrays of one episode, taken from the record whole: tfds decodes step by step, 40 times slower."""
    proto = require("tensorflow_datasets.proto", "datasets")
    with readable(name, "record"):
        features = proto.tf_example_pb2.Example.FromString(bytes(record)).features.feature
        if not features:  # what array_record hands out, without an error, where a file is cut off
            raise EOFError("empty record")
    arrays = {}
    for field, spec in specs.items():
        with readable(name, "record", f"steps/{field}"):
            feature = features[f"steps/{field}"]
            kind = feature.WhichOneof("kind")
            if kind == "bytes_list":
                array = _decode(feature.bytes_list.value, connectors[field])
            elif kind is None:
                array = None
            else:
                values = np.array(getattr(feature, kind).value, dtype=spec.np_dtype)
                array = values.reshape([-1 if size is None else size for size in spec.shape])
        if array is not None:
            arrays[field] = array
        elif field.split("/")[0] in RESERVED:
            if kind is None:
                raise ValueError(f"{name}: field 'steps/{field}' is missing in the record")
            raise ValueError(f"{name}: field 'steps/{field}' is {type(connectors[field]).__name__}, which cannot be "
                             "read as numbers: store it as a Tensor of floating-point numbers, or leave it out")
    return arrays


def _decode(values: Sequence[bytes], connector: Any) -> np.ndarray | None:
    """The array [T, ...] of a Tensor that TFDS stores as bytes, a step each; None for text and images.

    Raises:
      ValueError: a step has not as many bytes as its shape needs.
    """
    tfds = require("tensorflow_datasets", "datasets")
    dtype, shape = np.dtype(connector.np_dtype), connector.shape
    if not isinstance(connector, tfds.features.Tensor) or dtype.kind not in "biuf" or None in shape:
        return None
    size = math.prod(shape) * dtype.itemsize
    steps = []
    for value in values:
        if connector._encoding == tfds.features.Encoding.ZLIB:
            value = zlib.decompressobj().decompress(value, size + 1)  # no more than shows that it is too long
        if len(value) != size:
            raise ValueError(f"step {len(steps)} does not have {size} bytes")
        steps.append(np.frombuffer(value, dtype).reshape(shape))
    return np.stack(steps) if steps else np.zeros((0, *shape), dtype)


def _flatten(specs: Any, prefix: str = "") -> dict[str, Any]:
    """A nest of dictionaries as one, its keys joined by slashes."""
    if not hasattr(specs, "items"):
        return {prefix: specs}
    flat = {}
    for key, value in specs.items():
        flat.update(_flatten(value, f"{prefix}/{key}" if prefix else key))
    return flat


def _nest(steps: dict[str, np.ndarray], field: str) -> Any:
    """The array of a field, or the nest of arrays whose names begin with it; None if there is neither."""
    if field in steps:
        return steps[field]
    names = [name.removeprefix(f"{field}/").split("/")[0] for name in steps if name.startswith(f"{field}/")]
    return {name: _nest(steps, f"{field}/{name}") for name in names} or None


def _episode(name: str, steps: dict[str, np.ndarray]) -> Episodes | None:
    fields = {field: _nest(steps, field) for field in RESERVED}
    for field in RESERVED:
        if fields[field] is None and field != "discount":
            raise ValueError(f"{name}: field 'steps/{field}' is missing")
    length = len(steps[next(iter(steps))])
    for field, array in steps.items():
        if len(array) != length:
            raise ValueError(f"{name}: field 'steps/{field}' has {len(array)} steps, 'steps/{next(iter(steps))}' "
                             f"has {length}")
    last, terminal = (flat_flags(name, f"steps/{field}", fields[field], length) for field in ("is_last", "is_terminal"))
    if not length or not last[-1] or last[:-1].any():
        raise ValueError(f"{name}: field 'steps/is_last' must be set at the last step, {length - 1}, and nowhere else")
    if terminal[:-1].any():
        bad = int(np.argmax(terminal))
        raise ValueError(f"{name}: field 'steps/is_terminal' is set at step {bad}, before the last")
    if length == 1:
        return None
    terminated = np.zeros(length - 1, bool)
    terminated[-1] = terminal[-1]
    return episode(
        name, NAMES,
        {"observations": fields["observation"], "actions": jax.tree.map(lambda array: array[:-1], fields["action"]),
         "rewards": fields["reward"][:-1], "terminated": terminated},
        {field: array[:-1] for field, array in steps.items() if field.split("/")[0] not in RESERVED},
    )
