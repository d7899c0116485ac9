"""Reader of RLDS episodes stored by TFDS in array_record files; needs no TensorFlow."""

import json
from pathlib import Path

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.data.writer import RESERVED


def is_rlds(path: Path) -> bool:
    """Whether `path` is the folder of a prepared TFDS set."""
    return (path / "dataset_info.json").is_file() and (path / "features.json").is_file()


def read_rlds(path: Path) -> tuple[Episodes, dict]:
    """Reads the `train` split (or the only one) of an RLDS set.

    Nested observations or actions are joined into one vector, in the order of their names. Follows RLDS: the last step
    of an episode holds the final observation alone, so T + 1 steps are T transitions; the episode is terminated if that
    step has `is_terminal`, otherwise truncated.

    Returns:
      The episodes, with every further numeric per-step field in `extras`, and {"env_id": ...} ("" if not recorded).
    """
    tfds = require("tensorflow_datasets", "datasets")
    require("array_record", "datasets")
    try:
        builder = tfds.builder_from_directory(str(path))
    except Exception as error:  # TFDS raises what its JSON parser, its file reader or a feature's constructor raises
        raise ValueError(f"{path}: not a readable TFDS set: {error}") from error
    if builder.info.file_format is None or builder.info.file_format.value != "array_record":
        raise ValueError(f"{path}: file format {builder.info.file_format}, expected array_record; convert the set with "
                         f"`tfds convert_format`")
    splits = list(builder.info.splits)
    if "train" not in splits and len(splits) != 1:
        raise ValueError(f"{path}: splits {splits}: none is called 'train'")
    if "steps" not in builder.info.features:
        raise ValueError(f"{path}: field 'steps' is missing: not an RLDS set")
    split = "train" if "train" in splits else splits[0]
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    specs = _flatten(builder.info.features.get_serialized_info()["steps"])
    parts = []
    for index in range(len(records)):
        try:
            steps = _parse(records[index], specs)
        except Exception as error:  # damage surfaces as a C++ status or a protobuf error, each with its own type
            raise ValueError(f"{path}: episode {index} cannot be read (damaged or cut off?): {error}") from error
        parts.append(_episode(path, index, steps))
    parts = [part for part in parts if part is not None]
    if not parts:
        raise ValueError(f"{path}: field 'steps': no episode has a transition")
    metadata_file = path / "metadata.json"
    metadata = json.loads(metadata_file.read_text()) if metadata_file.is_file() else {}
    return concatenate_episodes(parts), {"env_id": str((metadata or {}).get("env_id", ""))}


def _parse(record: bytes, specs: dict) -> dict[str, np.ndarray]:
    """The per-step arrays of one episode, taken from the record whole: tfds decodes step by step, 40 times slower."""
    proto = require("tensorflow_datasets.proto", "datasets")
    features = proto.tf_example_pb2.Example.FromString(bytes(record)).features.feature
    if not features:  # what array_record hands out, without an error, where a file is cut off
        raise ValueError("empty record")
    arrays = {}
    for field, spec in specs.items():
        feature = features[f"steps/{field}"]
        kind = feature.WhichOneof("kind")
        if kind not in ("float_list", "int64_list"):
            continue  # text and images are no part of a transition
        values = np.array(getattr(feature, kind).value, dtype=spec.np_dtype)
        arrays[field] = values.reshape([-1 if size is None else size for size in spec.shape])
    return arrays


def _flatten(specs, prefix: str = "") -> dict:
    if not isinstance(specs, dict):
        return {prefix: specs}
    flat = {}
    for key, value in specs.items():
        flat.update(_flatten(value, f"{prefix}/{key}" if prefix else key))
    return flat


def _join_nested(steps: dict[str, np.ndarray], field: str) -> None:
    """Replaces the arrays `field/...` of a nested field by one array [T, D], in the order of their names."""
    inner = sorted(name for name in steps if name.startswith(f"{field}/"))
    if inner:
        arrays = [steps.pop(name) for name in inner]
        steps[field] = np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def _episode(path: Path, index: int, steps: dict[str, np.ndarray]) -> Episodes | None:
    _join_nested(steps, "observation")
    _join_nested(steps, "action")
    for field in ("observation", "action", "reward", "is_first", "is_last", "is_terminal"):
        if field not in steps:
            raise ValueError(f"{path}: episode {index}: field 'steps/{field}' is missing")
    length = len(steps["observation"]) - 1
    for field, array in steps.items():
        if len(array) != length + 1:
            raise ValueError(f"{path}: episode {index}: field 'steps/{field}' has {len(array)} steps, 'observation' "
                             f"has {length + 1}")
    if not steps["is_last"][-1] or steps["is_last"][:-1].any():
        raise ValueError(f"{path}: episode {index}: field 'steps/is_last' must be set at the last step, {length}, and "
                         f"nowhere else")
    if steps["is_terminal"][:-1].any():
        bad = int(np.argmax(steps["is_terminal"]))
        raise ValueError(f"{path}: episode {index}: field 'steps/is_terminal' is set at step {bad}, before the last")
    if length < 1:
        return None
    terminated, truncated = np.zeros(length, bool), np.zeros(length, bool)
    terminated[-1] = bool(steps["is_terminal"][-1])
    truncated[-1] = not terminated[-1]
    observations = steps["observation"].astype(np.float32, copy=False)
    return Episodes(
        observations=observations[:-1],
        actions=steps["action"][:-1].astype(np.float32, copy=False),
        rewards=steps["reward"][:-1].astype(np.float32, copy=False),
        terminated=terminated,
        truncated=truncated,
        next_observations=observations[1:],
        starts=np.zeros(1, np.int64),
        extras={field: array[:-1] for field, array in steps.items() if field not in RESERVED},
    )
