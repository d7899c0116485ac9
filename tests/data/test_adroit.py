"""The `adroit` sets: what is embedded, the replay of the demonstrations, the expert, and one training."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import offline_rl
from experiments.offline_rl.experiment import experiment
from rl_jax.core.arrays import read_arrays
from rl_jax.core.extras import MissingExtraError
from rl_jax.core.main import run
from rl_jax.data.adroit.demonstrations import DEMONSTRATIONS, replay, replay_demonstrations
from rl_jax.data.adroit.sets import ENV_ID, FOLDER, IMPORTED_ID, SETS
from rl_jax.data.episodes import check_episodes, concatenate_episodes
from rl_jax.data.load import Dataset, load_dataset
from rl_jax.data.locomotion.policies import load_policy
from rl_jax.data.readers.d4rl_hdf5 import _task
from tests.data.sets import assert_same, make_episode

RECORDED = Path(__file__).parents[1] / "golden" / "dapg_door.npz"


def test_source_page_lists_every_file_with_its_checksum():
    page = (FOLDER / "SOURCE.md").read_text()
    files = sorted(FOLDER.glob("*.npz"))
    assert [path.stem for path in files] == ["door_expert", "door_human"]
    for path in files:
        assert f"| {path.name} | {hashlib.sha256(path.read_bytes()).hexdigest()} |" in page
    assert sum(path.stat().st_size for path in files) < 2**20


def test_embedded_actions_are_the_recorded_ones_clipped():
    arrays, recorded = read_arrays(DEMONSTRATIONS), read_arrays(RECORDED)["actions"]
    assert arrays["actions"].shape == (SETS["door-human"].num_steps, SETS["door-human"].dimensions[1]) == (6729, 28)
    lengths = arrays["lengths"]
    assert (len(lengths), lengths.sum(), lengths.min(), lengths.max()) == (25, 6729, 223, 300)
    last = arrays["actions"][-lengths[-1] :][: len(recorded)]
    assert np.abs(recorded).max() > 1, "the recorded actions leave the box"
    np.testing.assert_array_equal(last, np.clip(recorded, -1, 1))


def test_the_expert_in_two_lines():
    """Its first layer in float64, by the authors' formula on the arrays of the file."""
    arrays = read_arrays(FOLDER / "door_expert.npz")
    observation = np.random.default_rng(0).normal(arrays["obs_mean"], np.sqrt(arrays["obs_var"]))
    hidden = (observation - arrays["obs_mean"]) / np.sqrt(arrays["obs_var"])
    for layer in (0, 1):
        hidden = np.tanh(hidden @ arrays[f"W{layer}"].astype(np.float64) + arrays[f"b{layer}"])
    expected = np.clip(hidden @ arrays["W2"] + arrays["b2"], -1, 1)
    got = load_policy(str(FOLDER / "door_expert")).act(observation[None], None)
    np.testing.assert_allclose(got[0], expected, atol=1e-5)
    assert np.abs(expected).max() > 0.2


def test_behaviour_counts_within_the_time_limit():
    episodes = concatenate_episodes(make_episode(*shape) for shape in ((5, False, 0), (3, True, 1), (2, False, 2)))
    rewards = episodes.rewards.astype(np.float64)
    # The third is broken off after 2 of 4 steps; the second ended by itself.
    np.testing.assert_allclose(episodes.returns_within(4), [rewards[:4].sum(), rewards[5:8].sum()])
    np.testing.assert_allclose(episodes.returns_within(2), [rewards[:2].sum(), rewards[5:7].sum(), rewards[8:].sum()])
    cut = make_episode(3, False, 0)
    np.testing.assert_allclose(cut.returns_within(4), [cut.rewards.astype(np.float64).sum()])
    doors = Dataset(make_episode(300, False, 0), "mine", ENV_ID, "", "")
    np.testing.assert_allclose(doors.behaviour_returns, [doors.episodes.rewards[:200].sum(dtype=np.float64)])


def test_errors_name_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="adroit/door-human: num_steps is 6730, expected 1 to 6729"):
        load_dataset("adroit/door-human", num_steps=6730, data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="unknown data set 'adroit/door-humans': did you mean adroit/door-human"):
        load_dataset("adroit/door-humans")
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    for name in SETS:
        with pytest.raises(MissingExtraError, match=r"pip install 'rl_jax\[adroit\]'"):
            load_dataset(f"adroit/{name}", num_steps=32, data_dir=str(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".npy" or "array_record" in path.name]


def test_replay_is_the_same_twice_and_clipping_changes_nothing():
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("gymnasium_robotics")
    part = concatenate_episodes(replay_demonstrations(350))  # all of the first, 50 steps of the second
    check_episodes(part, "replayed", action_bound=1.0)
    assert part.starts.tolist() == [0, 300] and np.flatnonzero(part.truncated).tolist() == [299, 349]
    assert_same(part, concatenate_episodes(replay_demonstrations(350)))
    # D4RL's own recipe: the actions as recorded, which the task clips.
    environment, arrays = gymnasium.make(IMPORTED_ID).unwrapped, read_arrays(DEMONSTRATIONS)
    recorded = read_arrays(RECORDED)["actions"]
    raw, clipped = (replay(environment, arrays["door_positions"][-1], x) for x in (recorded, np.clip(recorded, -1, 1)))
    np.testing.assert_array_equal(raw.next_observations, clipped.next_observations)
    np.testing.assert_array_equal(raw.rewards, clipped.rewards)
    # Rewards begin as recorded, although the observations do not: the authors' model of the hand was another.
    np.testing.assert_allclose(raw.rewards, read_arrays(RECORDED)["rewards"][:20], atol=0.01)


def test_a_tiny_training(tmp_path):
    pytest.importorskip("gymnasium_robotics")
    config = offline_rl.get_config("tiny-bc")
    config.dataset.update(name="adroit/door-human", num_steps=600, data_dir=str(tmp_path / "data"))
    config.update(num_seeds=1, num_steps=20, tensorboard=False)
    config.loop.eval_every = 20
    result = run(experiment, config, tmp_path / "run")
    assert result["step"] == 20 and -2.0 < result["score"] < 1.0  # a hand that does nothing yet
    dataset = load_dataset("adroit/door-human", num_steps=600, data_dir=str(tmp_path / "data"))
    assert dataset.env_id == ENV_ID and "the first 200 steps" in dataset.inputs["source"]
    returns = [dataset.episodes.rewards[start : start + 200].sum(dtype=np.float64) for start in (0, 300)]
    expected = 100 * (np.mean(returns) + 56.512833) / (2880.5693087298737 + 56.512833)
    assert result["behaviour_score"] == pytest.approx(expected, rel=1e-6)


def test_presets_have_corls_settings():
    config = offline_rl.get_config("iql/adroit-door-human")
    assert (config.dataset.name, config.agent.expectile, config.agent.temperature) == ("adroit/door-human", 0.8, 3.0)
    assert config.dataset.normalize_observations and not config.dataset.normalize_rewards
    for agent in ("bc", "bc10", "td3_bc", "awac", "cql", "iql"):
        assert offline_rl.get_config(f"{agent}/adroit-door-human").eval_episodes == 100
    assert offline_rl.get_config("cql/adroit-door-human").agent.conservatism == 1.0
    with pytest.raises(ValueError, match="edac/adroit-door-human"):
        offline_rl.get_config("edac/adroit-door-human")  # nobody has published settings


def test_d4rls_own_files_tell_their_task():
    assert [_task(["door", kind, "v1"]) for kind in ("human", "cloned", "expert")] == [ENV_ID] * 3
    assert _task(["door", "opening"]) == _task(["door"]) == ""


@pytest.mark.slow
def test_returns_of_the_whole_sets(tmp_path):
    """Against D4RL's scale: 29 whole, 7.7 within the time limit; the expert is above its reference, also with noise."""
    pytest.importorskip("gymnasium_robotics")
    human = load_dataset("adroit/door-human", data_dir=str(tmp_path))
    assert human.episodes.returns.mean() == pytest.approx(795, abs=40)
    assert human.behaviour_returns.mean() == pytest.approx(170, abs=40)
    expert = load_dataset("adroit/door-expert", num_steps=4000, data_dir=str(tmp_path))
    assert expert.episodes.lengths.tolist() == [200] * 20 and 2700 < expert.episodes.returns.mean() < 3100
