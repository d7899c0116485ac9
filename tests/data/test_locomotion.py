"""The `locomotion-2` sets: policies against their published returns, determinism, shares, the builder and loading."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds

from rl_jax.data.builder import set_config
from rl_jax.data.episodes import check_episodes, concatenate_episodes
from rl_jax.data.load import load_dataset
from rl_jax.data.locomotion import collect as collect_module
from rl_jax.data.locomotion import describe
from rl_jax.data.locomotion.builder import Locomotion
from rl_jax.data.locomotion.collect import WorkerPool, collect
from rl_jax.data.locomotion.policies import POLICY_DIR, load_policy, policy_from_arrays
from rl_jax.data.locomotion.rollout import BLOCK_EPISODES, returns_of, roll_out_block
from rl_jax.data.locomotion.sets import DIMENSIONS, ENV_IDS, SETS
from rl_jax.data.progress import ProgressBar
from tests.data.sets import assert_same


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """MuJoCo writes a log of warnings into the working directory."""
    monkeypatch.chdir(tmp_path)


def test_the_table():
    assert len(SETS) == 15
    assert set(Locomotion.builder_configs) == set(SETS)
    for name, spec in SETS.items():
        assert name.startswith(spec.task) and len(set(spec.policies)) == len(spec.policies)
        for policy in spec.policies:
            observation_dim, action_dim = DIMENSIONS[spec.task]
            layers = load_policy(policy).layers
            assert layers[0][0].shape[0] == observation_dim and layers[-1][0].shape[1] == action_dim
    used = {policy for spec in SETS.values() for policy in spec.policies}
    assert used == {path.stem for path in POLICY_DIR.glob("*.npz")}  # no file that nothing needs


def test_source_page_lists_every_policy_with_its_checksum():
    page = (POLICY_DIR / "SOURCE.md").read_text()
    for path in POLICY_DIR.glob("*.npz"):
        assert f"| {path.name} | {hashlib.sha256(path.read_bytes()).hexdigest()} |" in page
    assert sum(path.stat().st_size for path in POLICY_DIR.iterdir()) < 4 * 2**20


def test_a_policy_is_described_by_what_it_does():
    """Its own samples are as noisy as its file says: one deviation for all states, but for what the box cuts off."""
    with WorkerPool(1) as pool:
        found = describe.facts(pool, "trpo_hopper_it0000", "Hopper-v4")
    deviations = np.exp(load_policy("trpo_hopper_it0000").log_std)
    assert 0.5 * deviations.mean() < found.noise < deviations.mean()
    assert found.samples.shape == found.mode.shape == found.lengths.shape == (describe.BLOCKS * BLOCK_EPISODES,)
    assert found.mode.mean() > found.samples.mean() and 0 < found.faces < 1
    assert found.misfits == ["its noise is not in 0.1 to 0.5"]
    with pytest.raises(ValueError, match="unknown set 'hoper-random': did you mean hopper-random"):
        describe.main(["describe", "hoper-random"])


@pytest.mark.slow
def test_sets_are_described_in_two_tables():
    command = [sys.executable, "-m", "rl_jax.data.locomotion.describe", "hopper-random"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert lines[2].startswith("| hopper-random | 1,000,000 | trpo_hopper_it0000 |"), done.stderr
    assert lines[-1].startswith("| trpo_hopper_it0000 |") and len(lines) == 7


def policy_arrays(**changes):
    """One linear layer from two observations to one action."""
    arrays = dict(W0=np.array([[1.0], [0.5]]), b0=np.array([0.25]), n_layers=1, activation="none", head="clip")
    return {key: np.asarray(value) for key, value in {**arrays, **changes}.items()}


def test_policy_forward_by_hand():
    observations = np.array([[0.5, -1.0], [4.0, 0.0]])
    mode = policy_from_arrays(policy_arrays()).act(observations, None)
    np.testing.assert_allclose(mode, [[0.25], [1.0]])
    assert mode.dtype == np.float32
    noisy = policy_from_arrays(policy_arrays(log_std=np.log([0.5]))).act(observations, np.array([[-1.0], [2.0]]))
    np.testing.assert_allclose(noisy, [[-0.25], [1.0]])
    squashed = policy_from_arrays(policy_arrays(head="tanh")).act(observations, None)
    np.testing.assert_allclose(squashed, np.tanh([[0.25], [4.25]]), rtol=1e-6)
    # The noise scale of a squashed policy depends on the state: log std = 2 * (first observation) - 2.
    arrays = policy_arrays(head="tanh", logstd_W=np.array([[2.0], [0.0]]), logstd_b=np.array([-2.0]))
    noisy = policy_from_arrays(arrays).act(observations[:1], np.array([[1.0]]))
    np.testing.assert_allclose(noisy, np.tanh([[0.25 + np.exp(-1.0)]]), rtol=1e-6)
    # Observations are standardised and then clipped: (0.5 - 0) / 0.5 = 1 and (-1 + 9) / 2 = 4 -> 3.
    arrays = policy_arrays(obs_mean=[0.0, -9.0], obs_var=[0.25, 3.0], obs_eps=1.0, obs_clip=3.0, W0=[[0.1], [0.1]])
    normalised = policy_from_arrays(arrays).act(np.array([[0.5 * np.sqrt(5), -1.0]]), None)
    np.testing.assert_allclose(normalised, [[0.1 * 1.0 + 0.1 * 3.0 + 0.25]], rtol=1e-6)
    with pytest.raises(ValueError, match="head 'argmax'"):
        policy_from_arrays(policy_arrays(head="argmax"))


def test_two_layers_against_a_loop():
    rng = np.random.default_rng(0)
    arrays = dict(W0=rng.normal(size=(3, 4)), b0=rng.normal(size=4), W1=rng.normal(size=(4, 2)) / 4,
                  b1=rng.normal(size=2), n_layers=2, activation="relu", head="clip")
    observation = rng.normal(size=3)
    hidden = [max(0.0, sum(observation[i] * arrays["W0"][i, j] for i in range(3)) + arrays["b0"][j]) for j in range(4)]
    expected = [sum(hidden[i] * arrays["W1"][i, j] for i in range(4)) + arrays["b1"][j] for j in range(2)]
    got = policy_from_arrays(arrays).act(observation[None], None)
    np.testing.assert_allclose(got[0], np.clip(expected, -1, 1), rtol=1e-5)


@pytest.mark.parametrize(
    "policy, env_id, low, high",
    [
        ("trpo_hopper_it0000", "Hopper-v4", 60, 90),  # published: 75
        ("sac_hopper_010k", "Hopper-v4", 330, 375),  # 352
    ],
)
def test_the_policies_reach_their_published_returns(policy, env_id, low, high):
    arrays = roll_out_block(env_id, load_policy(policy), (0,), 0, 16_000, stochastic=False)
    returns = arrays["rewards"].sum(dtype=np.float64) / BLOCK_EPISODES
    assert low < returns < high


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(POLICY_DIR.glob("*.npz")), ids=lambda path: path.stem)
def test_every_policy_reaches_its_published_return(path):
    """Deterministic mean return against the one in the policy's own file, in Gymnasium's v4 tasks."""
    arrays = dict(np.load(path, allow_pickle=False))
    if "eval_returns" in arrays:
        published, spread = arrays["eval_returns"].mean(), arrays["eval_returns"].std()
    else:
        published, spread = float(arrays["eval_return_mean3"]), 0.0
    steps = roll_out_block(str(arrays["eval_env"]), policy_from_arrays(arrays), (0,), 0, 16_000, stochastic=False)
    returns = returns_of(steps)
    # Few published episodes: allow their standard error, ours, and chaos of 10% between simulator versions.
    error = 3 * np.hypot(spread / np.sqrt(10), returns.std() / np.sqrt(3)) + 0.1 * abs(published) + 25
    assert abs(returns.mean() - published) < error


def collected(name, num_steps, seed=0, num_workers=1):
    return concatenate_episodes(collect(SETS[name], num_steps, seed, num_workers))


def test_collection_is_a_function_of_seed_and_episode():
    one = collected("hopper-random", 1500)
    assert len(one) == 1500
    check_episodes(one, "collected", action_bound=1.0)
    assert_same(collected("hopper-random", 1500, num_workers=2), one)
    assert_same(collected("hopper-random", 700), one.first_steps(700))  # a smaller set begins a larger one
    other = collected("hopper-random", 700, seed=1)
    assert (other.observations[0] != one.observations[0]).any() and (other.actions[0] != one.actions[0]).any()
    # Episodes are different from one another, and the noise is in the actions.
    first = one.observations[one.starts]
    assert len(np.unique(first, axis=0)) == one.num_episodes
    assert one.actions.std() > 0.5


def test_a_set_of_two_policies_has_equal_shares():
    mixed = collected("hopper-medium-expert", 401)
    check_episodes(mixed, "mixed", action_bound=1.0)
    assert 200 in mixed.starts and mixed.truncated[199] != mixed.terminated[199]
    medium = collected("hopper-medium", 200)
    assert_same(mixed.first_steps(200), medium)
    with pytest.raises(ValueError, match="num_steps is 1, expected at least 2, one a policy"):
        collected("hopper-medium-expert", 1)


def test_successors_and_rewards_are_the_simulators():
    """Replays a collected episode in a plain Gymnasium environment with all its wrappers."""
    import gymnasium

    episodes = collected("hopper-random", 300)
    with pytest.warns(DeprecationWarning, match="out of date"):
        environment = gymnasium.make("Hopper-v4")
    seeds = np.random.SeedSequence((0, 0, 2))  # seed, policy, episode
    observation, _ = environment.reset(seed=int(seeds.generate_state(1)[0]))
    for step in range(episodes.starts[2], episodes.starts[3]):
        np.testing.assert_array_equal(observation.astype(np.float32), episodes.observations[step])
        observation, reward, terminated, truncated, _ = environment.step(episodes.actions[step])
        np.testing.assert_array_equal(observation.astype(np.float32), episodes.next_observations[step])
        assert np.float32(reward) == episodes.rewards[step]
        assert terminated == episodes.terminated[step]
    assert terminated and not truncated


def test_time_out_is_truncation():
    """HalfCheetah never ends by itself: its episodes are 1000 steps and truncated."""
    steps = roll_out_block(ENV_IDS["halfcheetah"], load_policy("trpo_halfcheetah_it0000"), (0,), 0, 1500)
    np.testing.assert_array_equal(steps["lengths"][:1], [1000])
    assert not steps["terminated"].any()
    episodes = collect_module.to_episodes(steps).first_steps(1500)
    np.testing.assert_array_equal(np.flatnonzero(episodes.truncated), [999, 1499])
    check_episodes(episodes, "cheetah", action_bound=1.0)


def test_a_killed_maker_leaves_nothing_for_good(tmp_path):
    arguments = dict(num_steps=100_000, data_dir=str(tmp_path))
    program = f"from rl_jax.data.load import load_dataset; load_dataset('locomotion-2/hopper-random', **{arguments!r})"
    maker = subprocess.Popen([sys.executable, "-c", program], env=environment())
    folder = tmp_path / "locomotion" / set_config(SETS["hopper-random"], 100_000).name
    deadline = time.monotonic() + 120
    while not list(folder.glob("incomplete.*")):
        assert time.monotonic() < deadline and maker.poll() is None
        time.sleep(0.05)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert not (folder / "2.0.0").exists()
    with pytest.MonkeyPatch.context() as patch:  # the same set, made of one short roll-out to save time
        patch.setattr("rl_jax.data.locomotion.builder.collect", lambda *_: collect(SETS["hopper-random"], 100, 0, 1))
        dataset = load_dataset("locomotion-2/hopper-random", **arguments)
    assert len(dataset.episodes) == 100
    assert [path.name for path in folder.iterdir()] == ["2.0.0"]


def test_loading_makes_the_set_once(tmp_path, capfd):
    first = load_dataset("locomotion-2/hopper-random", num_steps=300, data_dir=str(tmp_path))
    assert capfd.readouterr().out == ""
    folder = tmp_path / "locomotion" / set_config(SETS["hopper-random"], 300).name / "2.0.0"
    made = os.stat(folder / "dataset_info.json").st_mtime_ns
    second = load_dataset("locomotion-2/hopper-random", num_steps=300, data_dir=str(tmp_path))
    assert os.stat(folder / "dataset_info.json").st_mtime_ns == made
    assert first.checksum == second.checksum and first.env_id == "Hopper-v4"
    assert_same(second.episodes, collected("hopper-random", 300))
    assert tfds.builder_from_directory(str(folder)).info.splits["train"].num_examples == first.episodes.num_episodes
    other = load_dataset("locomotion-2/hopper-random", num_steps=200, seed=3, data_dir=str(tmp_path))
    assert len(other.episodes) == 200 and other.checksum != first.checksum
    # A set is an ordinary RLDS folder: by path it is the same set.
    assert load_dataset("", path=str(folder), data_dir=str(tmp_path)).checksum == first.checksum


def test_two_processes_make_one_set(tmp_path):
    program = (
        "import sys; from rl_jax.data.load import load_dataset;"
        "print(load_dataset('locomotion-2/hopper-random', num_steps=300, data_dir=sys.argv[1]).checksum)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(list((tmp_path / "locomotion").glob("hopper-random*"))) == 1  # no half-made folder beside it


def environment():
    paths = [str(collect_module.PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_a_dying_worker_is_one_error():
    with collect_module.WorkerPool(1) as pool:
        job = {"env_id": "NoTask-v0", "policy": "trpo_hopper_it0000", "seed_sequence": [0], "block": 0, "max_steps": 9}
        message = r"roll-out worker of NoTask-v0 \(policy trpo_hopper_it0000\) died: .*NoTask"
        with pytest.raises(RuntimeError, match=message):
            pool.submit(job).result(timeout=120)


def test_workers_end_with_the_pool_and_with_the_parent():
    parts = collect(SETS["hopper-random"], 100_000, 0, 2)
    next(parts)
    workers = psutil.Process().children()
    assert len(workers) == 2
    parts.close()
    assert not psutil.wait_procs(workers, timeout=10)[1]
    program = (
        "import psutil, time; from rl_jax.data.locomotion.collect import collect;"
        "from rl_jax.data.locomotion.sets import SETS;"
        "parts = collect(SETS['hopper-random'], 100_000, 0, 2); next(parts);"
        "print(*(child.pid for child in psutil.Process().children()), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment())
    workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert not psutil.wait_procs(workers, timeout=20)[1]


def test_workers_import_neither_jax_nor_tfds():
    program = (
        "import sys, rl_jax.data.locomotion.worker;"
        "print(sorted({'jax', 'flax', 'tensorflow_datasets', 'tensorflow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, check=True).stdout
    assert output.strip() == b"[]"


def test_the_progress_bar_is_for_terminals(monkeypatch):
    def shown(terminal):
        stream = io.StringIO()
        stream.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stderr", stream)
        with ProgressBar("hopper-medium", 10) as advance:
            advance(10)
        return stream.getvalue()

    assert shown(False) == ""
    assert "collecting hopper-medium" in shown(True) and "10/10" in shown(True)
