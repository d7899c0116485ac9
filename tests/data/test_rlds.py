"""The RLDS writer and reader: round trips through TFDS's own reader and through ours, and one error for each damage."""

import json
import random
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rl_jax.data.episodes import check_episodes
from rl_jax.data.load import load_dataset
from rl_jax.data.readers.rlds import read_rlds
from rl_jax.data.writer import rlds_features, write_rlds
from tests.data.sets import assert_same, make_episode, make_episodes


@pytest.fixture
def folder(tmp_path):
    return write_rlds([make_episodes(extras=True)], tmp_path / "written", "toy_set", env_id="Hopper-v4")


def test_round_trip_through_our_reader(folder, tmp_path):
    episodes, info = read_rlds(folder)
    assert_same(episodes, make_episodes(extras=True))
    assert info == {"env_id": "Hopper-v4"}
    check_episodes(episodes, "rlds")
    dataset = load_dataset("", path=str(folder), data_dir=str(tmp_path / "store"))
    assert dataset.env_id == "Hopper-v4"
    assert_same(dataset.episodes, episodes)


def test_round_trip_through_tfds(folder):
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.name == "toy_set" and builder.info.file_format.value == "array_record"
    stored = builder.as_data_source("train")
    episodes = make_episodes(extras=True)
    assert len(stored) == episodes.num_episodes
    for example, start, length in zip(stored, episodes.starts, episodes.lengths):
        steps = list(example["steps"])
        assert len(steps) == length + 1
        for t, step in enumerate(steps[:-1]):
            np.testing.assert_array_equal(step["observation"], episodes.observations[start + t])
            np.testing.assert_array_equal(step["action"], episodes.actions[start + t])
            np.testing.assert_array_equal(step["step_cost"], episodes.extras["step_cost"][start + t])
            assert step["reward"] == episodes.rewards[start + t]
            assert (step["is_first"], step["is_last"], step["is_terminal"]) == (t == 0, False, False)
        end = start + length - 1
        np.testing.assert_array_equal(steps[-1]["observation"], episodes.next_observations[end])
        assert steps[-1]["is_last"] and steps[-1]["is_terminal"] == episodes.terminated[end]
        assert steps[-1]["discount"] == 1.0 - episodes.terminated[end]
    assert "tensorflow" not in sys.modules


def test_whole_arrays_are_encoded_as_tfds_encodes_steps():
    """The writer's short cut past `Dataset.encode_example` leaves the stored bytes as they were."""
    ours = rlds_features(2, 1, {})
    plain = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(dict(ours["steps"].feature))})
    rng = np.random.default_rng(0)
    arrays = {
        "observation": rng.standard_normal((3, 2)).astype(np.float32),
        "action": rng.standard_normal((3, 1)).astype(np.float32),
        "reward": np.arange(3, dtype=np.float32),
        "discount": np.ones(3, np.float32),
        "is_first": np.array([True, False, False]),
        "is_last": np.array([False, False, True]),
        "is_terminal": np.array([False, False, True]),
    }
    steps = [{field: array[t] for field, array in arrays.items()} for t in range(3)]
    encode = tfds.core.example_parser.ExampleParserNp(ours.get_serialized_info()).parse_example
    a = encode(ours.serialize_example(ours.encode_example({"steps": arrays})))["steps"]
    b = encode(plain.serialize_example(plain.encode_example({"steps": steps})))["steps"]
    assert set(a) == set(b) == set(arrays)
    for field in arrays:
        np.testing.assert_array_equal(a[field], b[field])


def write_foreign(folder, observation, action, episodes):
    """Somebody else's set: its steps, dictionaries by episode, are encoded by TFDS; returns the set's folder."""
    class Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """RLDS with one level more than ours."""

        name = "foreign"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"observation": observation, "action": tfds.features.Tensor(shape=(1,), dtype=action),
                        "reward": np.float64, "discount": np.float32, "is_first": np.bool_, "is_last": np.bool_,
                        "is_terminal": np.bool_, "note": tfds.features.Text()}
            steps = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(features)})
            return tfds.core.DatasetInfo(builder=self, features=steps, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"demos": ((i, {"steps": steps}) for i, steps in enumerate(episodes))}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Foreign(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare(download_dir=str(folder / "downloads"))
    return folder / "foreign" / "1.0.0"


def foreign_steps(observation, action, length=3):
    return [{"observation": observation(t), "action": action, "reward": float(t), "discount": 1.0, "is_first": t == 0,
             "is_last": t == length, "is_terminal": t == length, "note": "text"} for t in range(length + 1)]


@pytest.mark.parametrize("encoding", ["zlib", "bytes", "none"])
def test_arrays_that_tfds_stores_as_bytes(tmp_path, encoding):
    force = tfds.features.Tensor(shape=(2, 2), dtype=np.float32, encoding=encoding)
    observation = {"state": tfds.features.Tensor(shape=(3,), dtype=np.float32), "force": force}
    steps = foreign_steps(
        lambda t: {"state": np.full(3, t, np.float32), "force": np.full((2, 2), -t, np.float32)}, np.ones(1, np.float32)
    )
    episodes, _ = read_rlds(write_foreign(tmp_path, observation, np.float32, [steps]))
    np.testing.assert_array_equal(episodes.observations, [[-t] * 4 + [t] * 3 for t in range(3)])


@pytest.mark.parametrize("feature, value, action, message", [
    (tfds.features.Text(), "left", np.float32, "field 'steps/observation/seen' is Text, which cannot be read"),
    (np.uint8, 7, np.float32, "field 'steps/observation/seen' has dtype uint8, expected floating-point"),
    (np.float32, 7.0, np.int64, "field 'steps/action' has dtype int64, expected floating-point"),
])
def test_what_is_no_floating_point_number_is_named(tmp_path, feature, value, action, message):
    observation = {"state": tfds.features.Tensor(shape=(3,), dtype=np.float32), "seen": feature}
    steps = foreign_steps(lambda t: {"state": np.zeros(3, np.float32), "seen": value}, np.ones(1, action))
    with pytest.raises(ValueError, match=f"1.0.0: episode 0: {message}"):
        read_rlds(write_foreign(tmp_path, observation, action, [steps]))


def test_no_module_is_imported_for_a_set(folder, tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    features = folder / "features.json"
    name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    features.write_text(features.read_text().replace(name, "planted.Feature"))
    with pytest.raises(ValueError, match="features.json: a feature is of the class 'planted.Feature'"):
        read_rlds(folder)
    assert "planted" not in sys.modules


@pytest.mark.parametrize("tries", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_random_damage_gives_one_error_that_names_the_set(folder, tries):
    files = [file for file in folder.iterdir() if file.is_file()]
    whole, rng, refused = {file: file.read_bytes() for file in files}, random.Random(tries), 0
    for _ in range(tries):
        file = rng.choice(files)
        content = bytearray(whole[file])
        for _ in range(rng.choice([1, 8])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        file.write_bytes(content)
        try:
            read_rlds(folder)
        except ValueError as error:
            assert str(folder) in str(error)
            refused += 1
        file.write_bytes(whole[file])
    assert refused >= 10


def test_a_set_that_tfds_encoded_step_by_step(tmp_path):
    """Somebody else's set: nested fields, text beside the steps, float64 rewards, an episode without a transition."""
    def example(length):
        for t in range(length + 1):
            observation = {"state": np.full(2, t, np.float32), "goal": -float(t)}
            yield {"observation": observation, "action": np.full(1, 0.5, np.float32),
                   "reward": float(t), "discount": 1.0, "is_first": t == 0, "is_last": t == length,
                   "is_terminal": t == length, "note": "text"}

    observation = {"state": tfds.features.Tensor(shape=(2,), dtype=np.float32), "goal": np.float32}
    folder = write_foreign(tmp_path, observation, np.float32, [list(example(length)) for length in (3, 0, 2)])
    episodes, info = read_rlds(folder)
    check_episodes(episodes, "foreign")
    assert info == {"env_id": ""}
    np.testing.assert_array_equal(episodes.lengths, [3, 2])
    np.testing.assert_array_equal(episodes.observations, [[-t, t, t] for t in (0, 1, 2, 0, 1)])
    np.testing.assert_array_equal(episodes.next_observations, [[-t, t, t] for t in (1, 2, 3, 1, 2)])
    np.testing.assert_array_equal(episodes.rewards, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(episodes.terminated, [False, False, True, False, True])
    assert not episodes.extras


def test_write_refuses(tmp_path, folder):
    episodes = make_episodes()
    with pytest.raises(FileExistsError, match="exists already"):
        write_rlds([episodes], tmp_path / "written", "toy_set")
    with pytest.raises(ValueError, match="no episodes to write"):
        write_rlds([], tmp_path, "empty_set")
    with pytest.raises(ValueError, match="'Bad-Name': use lower-case"):
        write_rlds([episodes], tmp_path, "Bad-Name")


def test_a_failed_write_leaves_nothing(tmp_path):
    def parts():
        yield make_episodes()
        raise RuntimeError("the simulator exploded")

    with pytest.raises(RuntimeError, match="exploded"):
        write_rlds(parts(), tmp_path, "toy_set")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    write_rlds([make_episodes()], tmp_path, "toy_set")  # and does not stand in the way of the next try


def test_writing_prints_nothing(tmp_path, capfd):
    write_rlds([make_episodes()], tmp_path, "toy_set")
    assert capfd.readouterr().out == ""


def test_damage_is_named(tmp_path, folder):
    def copy(name):
        return shutil.copytree(folder, tmp_path / name)

    path = copy("cut")
    record = next(path.glob("*.array_record*"))
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut: .*(damaged|not a readable)"):
        read_rlds(path)
    path = copy("flipped")
    record = next(path.glob("*.array_record*"))
    content = bytearray(record.read_bytes())
    middle = content.index(b"steps/") if b"steps/" in content else len(content) // 4
    content[middle + 20] ^= 0xFF
    record.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped: .*(damaged|not a readable)"):
        read_rlds(path)
    path = copy("gone")
    next(path.glob("*.array_record*")).unlink()
    with pytest.raises(ValueError, match=r"gone: .*(damaged|not a readable)"):
        read_rlds(path)
    path = copy("json")
    (path / "features.json").write_text("{")
    with pytest.raises(ValueError, match=r"json: not a readable TFDS set"):
        read_rlds(path)
    path = copy("format")
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match=r"format: .*expected array_record"):
        read_rlds(path)


def test_bad_values_are_named(tmp_path):
    episode = make_episode(5, True, 0)
    episode.rewards[2] = np.nan
    path = write_rlds([make_episode(3, True, 1), episode], tmp_path, "nan_set")
    with pytest.raises(ValueError, match=r"nan_set.*: episode 1: field 'steps/reward' at step 2 is nan"):
        load_dataset("", path=str(path), data_dir=str(tmp_path / "store"))
    assert not list((tmp_path / "store").rglob("*.npy"))
