"""Readers of D4RL HDF5, npz and Minari, through `load_dataset`: values by hand, and one clear error for each damage."""

import json
import random
import re
import shutil
import zipfile
from types import SimpleNamespace

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari import DataCollector

from rl_jax.data.episodes import STEP_FIELDS, check_episodes
from rl_jax.data.load import load_dataset, own_name
from tests.data.sets import assert_same, make_episode, make_episodes

# Where D4RL's files end an episode by time; the fixture makes these: 2 terminal steps, a time-out at 1000, 3 left over.
D4RL_STEPS = 2 + 1000 + 3


def d4rl_arrays() -> dict[str, np.ndarray]:
    """Flat arrays as in D4RL's files: observation i is filled with i, and episodes follow each other without a gap."""
    rows = np.arange(D4RL_STEPS, dtype=np.float32)
    observations = np.stack([rows, -rows], axis=1)
    terminals, timeouts = np.zeros(D4RL_STEPS, bool), np.zeros(D4RL_STEPS, bool)
    terminals[1], timeouts[1001] = True, True
    next_observations = observations + np.array([1, -1], np.float32)
    next_observations[[1, 1001]] = 0.5  # the true successors of the ends, found nowhere else in the file
    return {
        "observations": observations,
        "actions": np.stack([rows / D4RL_STEPS] * 3, axis=1),
        "rewards": rows / 10,
        "terminals": terminals,
        "timeouts": timeouts,
        "next_observations": next_observations,
        "infos/qpos": observations.astype(np.float64),
    }


def write_d4rl(path, without=(), **changes):
    arrays = {**d4rl_arrays(), **changes}
    with h5py.File(path, "w") as file:
        for field, array in arrays.items():
            if field not in without:
                file.create_dataset(field, data=array, compression="gzip")
        file.create_dataset("metadata/algorithm", data=np.bytes_("SAC"))
    return path


def load(path, tmp_path, **arguments):
    return load_dataset("", path=str(path), data_dir=str(tmp_path / "store"), **arguments)


def test_d4rl_with_next_observations(tmp_path):
    dataset = load(write_d4rl(tmp_path / "hopper_medium-v2.hdf5"), tmp_path)
    episodes, arrays = dataset.episodes, d4rl_arrays()
    assert dataset.env_id == "Hopper-v4" and dataset.name == "hopper_medium-v2"
    np.testing.assert_array_equal(episodes.lengths, [2, 1000, 3])
    np.testing.assert_array_equal(np.flatnonzero(episodes.terminated), [1])
    np.testing.assert_array_equal(np.flatnonzero(episodes.truncated), [1001, 1004])
    for field in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(getattr(episodes, field), arrays[field])
    check_episodes(episodes, "d4rl")


@pytest.mark.parametrize("without", [("next_observations",), ("next_observations", "timeouts")])
def test_d4rl_without_next_observations_drops_what_has_no_successor(tmp_path, without):
    dataset = load(write_d4rl(tmp_path / "set.hdf5", without), tmp_path)
    episodes, arrays = dataset.episodes, d4rl_arrays()
    assert dataset.env_id == ""
    np.testing.assert_array_equal(episodes.lengths, [2, 999, 2])
    np.testing.assert_array_equal(np.flatnonzero(episodes.terminated), [1])
    np.testing.assert_array_equal(np.flatnonzero(episodes.truncated), [1000, 1002])
    kept = np.delete(np.arange(D4RL_STEPS), [1001, 1004])
    np.testing.assert_array_equal(episodes.observations, arrays["observations"][kept])
    np.testing.assert_array_equal(episodes.rewards, arrays["rewards"][kept])
    inside = np.delete(np.arange(len(kept)), 1)  # the successor of the terminal step is unknown
    np.testing.assert_array_equal(episodes.next_observations[inside], arrays["observations"][kept[inside] + 1])


def test_d4rl_agrees_with_an_independent_reading(tmp_path):
    """The loop of D4RL's own `qlearning_dataset`, written out, on random flags."""
    rng = np.random.default_rng(0)
    size = 400
    observations = rng.standard_normal((size, 2)).astype(np.float32)
    terminals, timeouts = rng.random(size) < 0.1, rng.random(size) < 0.1
    rewards = rng.standard_normal(size).astype(np.float32)
    arrays = {"observations": observations, "actions": observations, "rewards": rewards}
    arrays.update(terminals=terminals, timeouts=timeouts)
    path = write_d4rl(tmp_path / "set.hdf5", ("next_observations", "infos/qpos"), **arrays)
    expected = []
    for i in range(size - 1):
        if timeouts[i] and not terminals[i]:
            continue
        successor = observations[i] if terminals[i] else observations[i + 1]
        expected.append((observations[i], rewards[i], 1.0 - terminals[i], successor))
    if terminals[-1]:
        expected.append((observations[-1], rewards[-1], 0.0, observations[-1]))
    transitions = load(path, tmp_path).episodes.to_transitions()
    assert len(transitions) == len(expected)
    for i, (observation, reward, mask, successor) in enumerate(expected):
        np.testing.assert_array_equal(transitions.observations[i], observation)
        np.testing.assert_array_equal(transitions.next_observations[i], successor)
        assert (transitions.rewards[i], transitions.masks[i]) == (reward, mask)


def test_d4rl_unflagged_jump_ends_an_episode(tmp_path):
    arrays = d4rl_arrays()
    arrays["next_observations"][500] = 7.0
    episodes = load(write_d4rl(tmp_path / "set.h5", **arrays), tmp_path).episodes
    np.testing.assert_array_equal(episodes.lengths, [2, 499, 501, 3])


def changed(field, index, value):
    arrays = d4rl_arrays()
    arrays[field] = arrays[field].astype(np.float32)
    arrays[field][index] = value
    return {field: arrays[field]}


@pytest.mark.parametrize(
    "changes, without, message",
    [
        (changed("rewards", 77, np.nan), (), r"field 'rewards' at step 77 is nan"),
        (changed("observations", (5, 1), np.inf), (), r"field 'observations' at step 5, component 1 is inf"),
        (changed("terminals", 9, 0.5), (), r"field 'terminals' at step 9 is 0.5, expected 0 or 1"),
        ({"rewards": np.zeros(7, np.float32)}, (), r"field 'rewards' has shape \(7,\), expected \(1005\)"),
        ({"actions": np.zeros((1005, 2), np.int64)}, (), r"field 'actions' has dtype int64"),
        ({"next_observations": np.zeros((1005, 3), np.float32)}, (), r"field 'next_observations' has shape \(1005, 3"),
        ({}, ("rewards",), r"field 'rewards' is missing; the file has actions, infos, metadata"),
    ],
)
def test_d4rl_damage_is_named(tmp_path, changes, without, message):
    path = write_d4rl(tmp_path / "set.hdf5", without, **changes)
    with pytest.raises(ValueError, match=r"set\.hdf5: " + message):
        load(path, tmp_path)


@pytest.mark.parametrize("suffix", ["hdf5", "npz"])
def test_a_cut_or_foreign_file_is_named(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    write_d4rl(whole) if suffix == "hdf5" else np.savez(whole, **vars_of(make_episodes()))
    for name, content in (("cut", whole.read_bytes()[: whole.stat().st_size // 2]), ("text", b"hello"), ("empty", b"")):
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.{suffix}: not a readable"):
            load(path, tmp_path)


def vars_of(episodes) -> dict[str, np.ndarray]:
    return {field: getattr(episodes, field) for field in STEP_FIELDS} | episodes.extras


def test_npz(tmp_path):
    episodes = make_episodes(extras=True)
    np.savez(tmp_path / "set.npz", env_id="Pendulum-v1", **vars_of(episodes))
    dataset = load(tmp_path / "set.npz", tmp_path)
    assert_same(dataset.episodes, episodes)
    assert dataset.env_id == "Pendulum-v1"


def test_npz_damage_is_named(tmp_path):
    arrays = vars_of(make_episodes())
    path = tmp_path / "set.npz"
    for changes, message in (
        ({"truncated": np.zeros(14, bool)}, "field 'next_observations' at step 10"),
        ({"rewards": np.zeros(3, np.float32)}, r"field 'rewards' has shape \(3,\), expected \(14\)"),
        ({"cost": np.zeros(3)}, r"field 'extras/cost' has shape \(3,\)"),
        ({"actions": np.array([{}])}, r"not a readable npz file"),
    ):
        np.savez(path, **{**arrays, **changes})
        with pytest.raises(ValueError, match=r"set\.npz: " + message):
            load(path, tmp_path)
    del arrays["truncated"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="field 'truncated' is missing"):
        load(path, tmp_path)


@pytest.fixture(scope="module")
def minari_set(tmp_path_factory):
    """A set of Pendulum episodes (one cut by a reset) made by Minari itself: its folder and its own view of it."""
    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        env = DataCollector(gymnasium.make("Pendulum-v1", max_episode_steps=20))
        env.action_space.seed(0)
        for seed, steps in enumerate((20, 5, 20)):
            env.reset(seed=seed)
            for _ in range(steps):
                env.step(env.action_space.sample())
        dataset = env.create_dataset("pendulum/test-v0", algorithm_name="random", code_permalink="none", author="none",
                                     author_email="none", description="test")
        parts = [(e.observations, e.actions, e.rewards) for e in dataset.iterate_episodes()]
        env.close()
    return root / "pendulum" / "test-v0", parts


def test_minari(tmp_path, minari_set):
    folder, parts = minari_set
    for path in (folder, folder / "data"):
        dataset = load(path, tmp_path)
        episodes = dataset.episodes
        assert dataset.env_id == "Pendulum-v1"
        np.testing.assert_array_equal(episodes.lengths, [20, 5, 20])
        np.testing.assert_array_equal(episodes.observations, np.concatenate([part[0][:-1] for part in parts]))
        np.testing.assert_array_equal(episodes.next_observations, np.concatenate([part[0][1:] for part in parts]))
        np.testing.assert_array_equal(episodes.actions, np.concatenate([part[1] for part in parts]))
        np.testing.assert_array_equal(episodes.rewards, np.concatenate([part[2] for part in parts]).astype(np.float32))
        np.testing.assert_array_equal(np.flatnonzero(episodes.truncated), [19, 24, 44])
        assert not episodes.terminated.any()


def test_minari_dictionary_observations(tmp_path):
    """Flattened as gymnasium.spaces.flatten orders them; terminated episodes stay terminated."""
    space = gymnasium.spaces.Dict(
        {"b": gymnasium.spaces.Box(-9, 9, (2,)), "a": gymnasium.spaces.Box(-9, 9, (1, 1))}
    )
    rows = [{"b": np.full(2, i, np.float32), "a": np.full((1, 1), -i, np.float32)} for i in range(3)]
    buffer = minari.data_collector.EpisodeBuffer(
        id=0, seed=None, options=None, observations={key: [row[key] for row in rows] for key in "ba"},
        actions=[np.zeros(1, np.float32)] * 2, rewards=[1.0, 2.0], terminations=[False, True],
        truncations=[False, False], infos={},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        minari.create_dataset_from_buffers(
            "toy/dict-v0", [buffer], observation_space=space, action_space=gymnasium.spaces.Box(-1, 1, (1,)),
            algorithm_name="none", code_permalink="none", author="none", author_email="none", description="test",
        )
    episodes = load(tmp_path / "toy" / "dict-v0", tmp_path).episodes
    expected = [gymnasium.spaces.flatten(space, row) for row in rows[:2]]
    np.testing.assert_array_equal(episodes.observations, expected)
    np.testing.assert_array_equal(episodes.terminated, [False, True])
    assert not episodes.truncated.any()


def test_minari_damage_is_named(tmp_path, minari_set):
    def copy(name):
        target = tmp_path / name / "data"
        target.mkdir(parents=True)
        for file in (minari_set[0] / "data").iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    data = copy("short")
    metadata = json.loads((data / "metadata.json").read_text())
    (data / "metadata.json").write_text(json.dumps({**metadata, "total_episodes": 4}))
    with pytest.raises(ValueError, match="metadata.json names 4 episodes, the data hold 3"):
        load(data, tmp_path)
    data = copy("nan")
    with h5py.File(data / "main_data.hdf5", "r+") as file:
        file["episode_1/rewards"][3] = np.nan
    with pytest.raises(ValueError, match=r"main_data.hdf5, episode_1: field 'rewards' at step 3 is nan"):
        load(data, tmp_path)
    data = copy("missing")
    with h5py.File(data / "main_data.hdf5", "r+") as file:
        del file["episode_2/actions"]
    with pytest.raises(ValueError, match=r"main_data.hdf5, episode_2: field 'actions' is missing"):
        load(data, tmp_path)
    data = copy("cut")
    (data / "main_data.hdf5").write_bytes((data / "main_data.hdf5").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"main_data.hdf5: not a readable HDF5 file"):
        load(data, tmp_path)
    data = copy("gone")
    (data / "main_data.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=r"main_data.hdf5: no such file"):
        load(data, tmp_path)


def test_missing_and_unknown(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.hdf5: no such file or folder"):
        load(tmp_path / "nowhere.hdf5", tmp_path)
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(ValueError, match="table.csv: unknown format; expected an .hdf5 file"):
        load(tmp_path / "table.csv", tmp_path)
    message = "unknown data set 'locomotion-2/hoper-medium': did you mean locomotion-2/hopper-medium"
    with pytest.raises(ValueError, match=message):
        load_dataset("locomotion-2/hoper-medium")


def test_num_steps_of_a_path(tmp_path):
    np.savez(tmp_path / "set.npz", **vars_of(make_episodes()))
    whole, cut = load(tmp_path / "set.npz", tmp_path), load(tmp_path / "set.npz", tmp_path, num_steps=7)
    assert_same(cut.episodes, make_episodes().first_steps(7))
    assert cut.checksum != whole.checksum
    with pytest.raises(ValueError, match="num_steps is 15, the set has only 14"):
        load(tmp_path / "set.npz", tmp_path, num_steps=15)


def test_the_checksum_is_of_the_content(tmp_path):
    episodes = make_episode(5, True, 0)
    np.savez(tmp_path / "a.npz", **vars_of(episodes))
    np.savez_compressed(tmp_path / "b.npz", **vars_of(episodes))
    first, second = load(tmp_path / "a.npz", tmp_path), load(tmp_path / "b.npz", tmp_path)
    assert first.checksum == second.checksum
    episodes.rewards[0] += 1
    np.savez(tmp_path / "a.npz", **vars_of(episodes))
    changed_set = load(tmp_path / "a.npz", tmp_path)
    assert changed_set.checksum != first.checksum
    assert changed_set.episodes.rewards[0] == episodes.rewards[0]


@pytest.fixture
def warnings(caplog):
    """What was logged as a warning, as text."""
    caplog.set_level("WARNING")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", ["episode_terminals", "truncations"])
def test_other_names_of_time_outs(tmp_path, name, warnings):
    """d4rlpy's files, with episode_terminals: five episodes of 40 steps, the last of each without a successor."""
    ends = np.arange(200) % 40 == 39
    rows = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    arrays = {"observations": rows, "actions": rows, "rewards": rows[:, 0], "terminals": np.zeros(200, np.float32),
              name: ends.astype(np.float32)}
    without = {*d4rl_arrays()} - {*arrays}
    episodes = load(write_d4rl(tmp_path / "set.h5", without, **arrays), tmp_path).episodes
    np.testing.assert_array_equal(episodes.lengths, [39] * 5)
    np.testing.assert_array_equal(episodes.observations, rows[~ends])
    np.testing.assert_array_equal(episodes.next_observations, rows[1:][~ends[:-1]])
    assert not warnings()


def test_what_is_guessed_is_a_warning_at_every_load(tmp_path, warnings, caplog):
    arrays = d4rl_arrays()
    arrays["next_observations"][500] = 7.0
    for changes, without, message in (
        ({}, ("next_observations", "timeouts"), "no field says where time ends episodes .* 1000 steps of one, 1 times"),
        (arrays, (), "1 steps .first: 500. .* guessed that their episodes end there"),
        ({}, ("timeouts",), "1 steps .first: 1001. .* guessed that their episodes end there"),
    ):
        path = write_d4rl(tmp_path / "hopper.hdf5", without, **changes)
        for _ in range(2):
            caplog.clear()
            load(path, tmp_path)
            assert re.search(rf"hopper.hdf5: .*{message}", warnings())
            assert "its task is guessed from the file's name, Hopper-v4" in warnings()


@pytest.mark.parametrize("where, name", [
    ("mine.hdf5", "mine"), ("hopper/short-v0/data", "short-v0"), ("my_set/1.0.0", "my_set"), ("run.1/v2", "run.1"),
])
def test_a_set_on_disk_is_called_as_its_file_is(tmp_path, where, name):
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix == ".hdf5" else path.mkdir()
    assert own_name(path) == name


def test_the_name_of_a_built_in_set_is_no_label_of_a_file(tmp_path):
    np.savez(tmp_path / "mine.npz", **vars_of(make_episodes()))
    arguments = {"path": str(tmp_path / "mine.npz"), "data_dir": str(tmp_path / "store")}
    assert load_dataset("locomotion-2/hopper-medium", **arguments).inputs["dataset"] == "mine"
    assert load_dataset("label", **arguments).name == "label"


def test_minari_specification(tmp_path, minari_set):
    assert load(minari_set[0], tmp_path).env_spec == {"max_episode_steps": 20}


@pytest.mark.parametrize("field", ["../../../../X", "/etc/X", "../observations", "a//b", "a\nb"])
def test_a_field_that_reads_like_a_path_is_refused(tmp_path, field):
    path = tmp_path / "set.npz"
    np.savez(path, **vars_of(make_episodes()), **{field: np.zeros(14, np.float32)})
    with pytest.raises(ValueError, match=f"set.npz: field {re.escape(repr(field))} has a name that reads like a path"):
        load(path, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["set.npz"]


def test_a_field_with_a_slash_is_read(tmp_path):
    np.savez(tmp_path / "set.npz", **vars_of(make_episodes()), **{"infos/cost": np.arange(14.0)})
    for _ in range(2):
        extras = load(tmp_path / "set.npz", tmp_path).episodes.extras
        np.testing.assert_array_equal(extras["infos/cost"], np.arange(14.0))


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_more_than_the_memory_holds_is_refused_before_it_is_read(tmp_path, suffix):
    """Small files that declare terabytes: zeros that compress a thousandfold, and chunks that were never written."""
    path = tmp_path / f"bomb.{suffix}"
    if suffix == "hdf5":
        write_d4rl(path, ("observations",))
        with h5py.File(path, "r+") as file:
            file.create_dataset("observations", (1 << 40, 4), np.float32, chunks=(1024, 4))
        message = r"field 'observations' declares 17592\.19 GB"
    else:
        np.savez_compressed(path, **{**vars_of(make_episodes()), "zeros": np.zeros((14, 1 << 18), np.float32)})
        message = "field 'zeros' declares 0.01 GB"
    with pytest.MonkeyPatch.context() as patch:
        if suffix == "npz":
            patch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1 << 24))
        with pytest.raises(ValueError, match=message + ".*at most 50% of it are read"):
            load(path, tmp_path)


def test_an_array_that_declares_more_than_its_file_holds(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("observations.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)})
    with pytest.raises(ValueError, match="not a readable npz file, field 'observations' .damaged.*is declared in 128"):
        load(path, tmp_path)


def test_links_of_hdf5_are_refused(tmp_path):
    """A set reads no other file of the machine it is read on."""
    write_d4rl(tmp_path / "other.h5")
    for link in (h5py.ExternalLink(str(tmp_path / "other.h5"), "/rewards"), h5py.SoftLink("/actions")):
        path = write_d4rl(tmp_path / "set.h5", ("rewards",))
        with h5py.File(path, "r+") as file:
            file["rewards"] = link
        with pytest.raises(ValueError, match="set.h5: field 'rewards' is a link"):
            load(path, tmp_path)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut off, or with some bytes changed, near its beginning where a format's headers are or anywhere."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    changed_content, end = bytearray(content), rng.choice([2000, len(content)])
    for _ in range(rng.choice([1, 8])):
        changed_content[rng.randrange(min(end, len(content)))] = rng.randrange(256)
    return bytes(changed_content)


@pytest.mark.parametrize("tries", [40, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["npz", "hdf5", "minari"])
def test_damage_gives_one_error_that_names_the_file(tmp_path, minari_set, kind, tries):
    if kind == "minari":
        path = tmp_path / "set"
        shutil.copytree(minari_set[0], path)
    else:
        path = tmp_path / f"set.{kind}"
        np.savez(path, **vars_of(make_episodes())) if kind == "npz" else write_d4rl(path)
    files = [file for file in path.rglob("*") if file.is_file()] or [path]
    whole, rng, refused = {file: file.read_bytes() for file in files}, random.Random(tries), 0
    for _ in range(tries):
        file = rng.choice(files)
        file.write_bytes(damaged(whole[file], rng))
        try:
            load(path, tmp_path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        file.write_bytes(whole[file])
    assert refused >= 10
