"""The environment pool: what it returns, whatever the number of workers, and how it fails and ends."""

import os
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import psutil
import pytest

from rl_jax.envs.gym_pool import EnvPool, EnvPoolError
from rl_jax.envs.physics import Physics
from tests.envs.toys import LONG, SHORT

TOY, SAVABLE_TOY = "tests.envs.toys:Toy-v0", "tests.envs.toys:SavableToy-v0"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def play(pool, seeds, actions):
    """Steps until every episode has ended; returns all that the pool gave, step by step."""
    history = [(pool.reset(seeds),)]
    active = np.ones(pool.num_envs, bool)
    for action in actions:
        history.append(pool.step(action, active))
        active = active & ~history[-1][2] & ~history[-1][3]
        if not active.any():
            return history
    return history


def test_short_episodes_terminate_and_long_ones_are_truncated():
    with EnvPool(TOY, 3, num_workers=2) as pool:
        observations = pool.reset(np.array([4, 7, 1]))
        np.testing.assert_array_equal(observations, [[4, 0], [7, 0], [1, 0]])
        active = np.ones(3, bool)
        actions = np.array([[0.25], [-0.5], [0.0]])
        for step in range(1, LONG + 1):
            observations, rewards, terminated, truncated = pool.step(actions, active)
            # The environment that has ended rests: its observation stays the last of its episode.
            np.testing.assert_array_equal(observations, [[4, min(step, SHORT)], [7, step], [1, step]])
            np.testing.assert_array_equal(rewards, [1.25 if step <= SHORT else 0.0, 0.5, 1.0])
            np.testing.assert_array_equal(terminated, [step == SHORT, False, False])
            np.testing.assert_array_equal(truncated, [False, step == LONG, step == LONG])
            active &= ~(terminated | truncated)
        assert not active.any()


def test_returned_arrays_are_copies():
    with EnvPool(TOY, 2) as pool:
        first = pool.reset(np.array([1, 3]))
        pool.step(np.zeros((2, 1)), np.ones(2, bool))
        np.testing.assert_array_equal(first, [[1, 0], [3, 0]])


@pytest.mark.parametrize("env_id", ["Hopper-v4", "Pendulum-v1"])
def test_equals_gymnasium_with_any_number_of_workers(env_id):
    if env_id == "Hopper-v4":
        pytest.importorskip("mujoco")
    seeds = np.array([11, 12, 13])
    histories = []
    for num_workers in (1, 2, 3):
        with EnvPool(env_id, 3, num_workers=num_workers) as pool:
            shape = (40, 3, *pool.action_space.shape)
            actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
            histories.append(play(pool, seeds, actions))
    for history in histories[1:]:
        for expected, got in zip(histories[0], history, strict=True):
            for x, y in zip(expected, got, strict=True):
                np.testing.assert_array_equal(x, y)
    env = gymnasium.make(gymnasium.spec(env_id))
    for i, seed in enumerate(seeds):
        observation, _ = env.reset(seed=int(seed))
        np.testing.assert_array_equal(observation, histories[0][0][0][i])
        for action, (observations, rewards, terminated, truncated) in zip(actions, histories[0][1:]):
            observation, reward, end, time_out, _ = env.step(action[i])
            np.testing.assert_array_equal(observation, observations[i])
            assert (reward, end, time_out) == (rewards[i], terminated[i], truncated[i])
            if end or time_out:
                break
    env.close()


def test_some_environments_are_reset_and_the_others_stay():
    with EnvPool(TOY, 3, num_workers=2) as pool:
        pool.reset(np.array([4, 7, 1]))
        for _ in range(SHORT):
            pool.step(np.zeros((3, 1)), np.ones(3, bool))
        # The seed of a row that is not reset is not looked at.
        observations = pool.reset(np.array([9, -1, 6]), np.array([True, False, True]))
        np.testing.assert_array_equal(observations, [[9, 0], [7, SHORT], [6, 0]])
        observations, _, terminated, _ = pool.step(np.zeros((3, 1)), np.ones(3, bool))
        np.testing.assert_array_equal(observations, [[9, 1], [7, SHORT + 1], [6, 1]])
        assert not terminated.any()
        with pytest.raises(ValueError, match="mask must be bool of shape"):
            pool.reset(np.array([1, 2, 3]), np.array([1, 0, 0]))


def play_on(pool, actions, seed):
    """Plays episodes one after another; every environment begins its own anew when it ends."""
    history = []
    for step, action in enumerate(actions):
        observations, rewards, terminated, truncated = pool.step(action, np.ones(pool.num_envs, bool))
        done = terminated | truncated
        if done.any():
            observations = pool.reset(np.arange(pool.num_envs) + seed + 10 * step, done)
        history.append((observations, rewards, terminated, truncated))
    return history


# Hopper-v4 pays for positions, Reacher-v4 and Ant-v4 for what the simulator derived from them in the last step.
@pytest.mark.parametrize("env_id", [SAVABLE_TOY, "Pendulum-v1", "Hopper-v4", "Reacher-v4", "Ant-v4"])
def test_a_saved_pool_goes_on_bitwise_in_another(env_id):
    if env_id != SAVABLE_TOY:
        pytest.importorskip("mujoco")
    with EnvPool(env_id, 3, num_workers=1, savable=True) as pool:
        low, high = pool.action_space.low, pool.action_space.high
        actions = np.random.default_rng(0).uniform(low, high, (240, 3, *low.shape)).astype(np.float32)
        # The last environment starts late: the three stand at different steps of their episodes.
        pool.reset(np.array([3, 5, 8]))
        play_on(pool, actions[:41], seed=100)
        pool.reset(np.array([0, 0, 11]), np.array([False, False, True]))
        saved = pool.save()
        kept = {name: column.copy() for name, column in saved.items()}
        expected = play_on(pool, actions[41:], seed=200)
    assert len({int(steps) for steps in saved["steps"]}) > 1 and saved["steps"][2] == 0
    ended = sum(step[2].sum() + step[3].sum() for step in expected)
    assert ended > 1, "no episode ends after the restart: its time limit is not tested"
    for name, column in saved.items():
        np.testing.assert_array_equal(column, kept[name], err_msg="what was saved changed later")
    with EnvPool(env_id, 3, num_workers=2, savable=True) as other:
        np.testing.assert_array_equal(other.restore(saved), saved["observations"])
        for step, (want, got) in enumerate(zip(expected, play_on(other, actions[41:], seed=200), strict=True)):
            for x, y in zip(want, got, strict=True):
                np.testing.assert_array_equal(x, y, err_msg=f"step {step}")


def test_an_episode_that_has_ended_is_restored_as_ended():
    with EnvPool(SAVABLE_TOY, 2, savable=True) as pool:
        with pytest.raises(ValueError, match="before its first reset"):
            pool.save()
        pool.reset(np.array([2, 1]))
        for _ in range(SHORT):
            pool.step(np.zeros((2, 1)), np.ones(2, bool))
        saved = pool.save()
    with EnvPool(SAVABLE_TOY, 2, savable=True) as pool:
        pool.restore(saved)
        with pytest.raises(ValueError, match="environment 0 of .* has ended"):
            pool.step(np.zeros((2, 1)), np.ones(2, bool))
        observations, *_ = pool.step(np.zeros((2, 1)), np.array([False, True]))
        np.testing.assert_array_equal(observations, [[2, SHORT], [1, SHORT + 1]])


def test_what_cannot_be_saved_or_restored_is_one_error():
    with pytest.raises(ValueError, match=r"Toy-v0 cannot be saved: .* no save_state\(\) and restore_state"):
        EnvPool(TOY, 2, savable=True)
    with EnvPool(TOY, 2) as pool:
        pool.reset(np.array([1, 2]))
        with pytest.raises(ValueError, match="savable=True"):
            pool.save()
    wrapped = gymnasium.wrappers.NormalizeObservation(gymnasium.make(SAVABLE_TOY))
    with pytest.raises(ValueError, match="SavableToy-v0 cannot be saved: .*wrapper NormalizeObservation"):
        Physics(wrapped)
    with EnvPool(SAVABLE_TOY, 2, savable=True) as pool:
        pool.reset(np.array([1, 3]))
        pool.step(np.zeros((2, 1)), np.ones(2, bool))
        saved = pool.save()
    with EnvPool(SAVABLE_TOY, 3, savable=True) as pool, pytest.raises(ValueError, match="of another pool"):
        pool.restore(saved)
    forgetful = EnvPool(SAVABLE_TOY, 2, savable=True, env_kwargs={"forgetful": True})
    with pytest.raises(EnvPoolError, match=r"environment 0 of .* observation \[1. 1.\] and comes back with \[1. 0.\]"):
        forgetful.restore(saved)
    with pytest.raises(ValueError, match="closed"):
        forgetful.reset(np.array([1, 1]))


def test_env_kwargs_reach_the_environments():
    for num_workers in (1, 2):
        with EnvPool(TOY, 2, num_workers=num_workers, env_kwargs={"max_episode_steps": 3}) as pool:
            history = play(pool, np.array([1, 3]), np.zeros((10, 2, 1)))
        assert len(history) == 1 + 3 and history[-1][3].all()


@pytest.mark.parametrize(
    "env_id, message",
    [
        ("Hoper-v4", "Did you mean: `Hopper`"),
        ("Hopper-v77", "v77"),
        ("no_such_module:Hopper-v4", "no_such_module"),
        ("CartPole-v1", "actions of CartPole-v1 must be a Box"),
    ],
)
def test_unusable_ids_give_one_error(env_id, message):
    with pytest.raises(ValueError, match=message):
        EnvPool(env_id, 2)


def test_wrong_arguments_are_named():
    with pytest.raises(EnvPoolError, match="Toy-v0 cannot be made.*colour"):
        EnvPool(TOY, 2, env_kwargs={"colour": "red"})
    with pytest.raises(ValueError, match="num_workers must be between 1 and num_envs = 2, not 3"):
        EnvPool(TOY, 2, num_workers=3)
    with EnvPool(TOY, 2) as pool:
        with pytest.raises(ValueError, match="environment 0 of .* has ended: reset it first"):
            pool.step(np.zeros((2, 1)), np.ones(2, bool))
        with pytest.raises(ValueError, match="seeds must be 2 non-negative integers"):
            pool.reset(np.array([1, -1]))
        pool.reset(np.array([2, 1]))
        with pytest.raises(ValueError, match=r"must have shape \(2, 1\), not \(2, 3\)"):
            pool.step(np.zeros((2, 3)), np.ones(2, bool))
        with pytest.raises(ValueError, match="active must be bool"):
            pool.step(np.zeros((2, 1)), np.ones(2))
        for _ in range(SHORT):
            pool.step(np.zeros((2, 1)), np.ones(2, bool))
        with pytest.raises(ValueError, match="environment 0 of"):
            pool.step(np.zeros((2, 1)), np.ones(2, bool))
        pool.step(np.zeros((2, 1)), np.array([False, True]))
    with pytest.raises(ValueError, match="closed"):
        pool.reset(np.array([1, 1]))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_in_an_environment_names_it_and_ends_the_workers(num_workers):
    pool = EnvPool(TOY, 3, num_workers=num_workers, env_kwargs={"fault": "raise"})
    processes = list(pool._processes)
    pool.reset(np.array([2, 2, 1]))
    pool.step(np.zeros((3, 1)), np.ones(3, bool))
    with pytest.raises(EnvPoolError, match="environment 2 of Toy-v0 failed in step: KeyError: 'toy fault'") as info:
        pool.step(np.zeros((3, 1)), np.ones(3, bool))
    if num_workers == 2:
        assert any("_raise" in note for note in info.value.__notes__), "the worker's traceback is lost"
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(ValueError, match="closed"):
        pool.reset(np.array([1, 1, 1]))


def test_a_killed_worker_is_an_error():
    pool = EnvPool(TOY, 4, num_workers=2, env_kwargs={"fault": "kill"})
    pool.reset(np.array([2, 1, 2, 2]))
    pool.step(np.zeros((4, 1)), np.ones(4, bool))
    with pytest.raises(EnvPoolError, match="worker 1 of .*Toy-v0 died .signal 9."):
        pool.step(np.zeros((4, 1)), np.ones(4, bool))


def test_close_ends_the_workers():
    pool = EnvPool(TOY, 2, num_workers=2)
    processes = list(pool._processes)
    assert [process.poll() for process in processes] == [None, None]
    pool.close()
    pool.close()
    assert [process.poll() for process in processes] == [0, 0]


PARENT = """
import sys
import numpy as np
from rl_jax.envs.gym_pool import EnvPool
pool = EnvPool("tests.envs.toys:Toy-v0", 4, num_workers=2, env_kwargs={"fault": sys.argv[1]})
pool.reset(np.array([1, 3, 5, 7]))
pool.step(np.zeros((4, 1)), np.ones(4, bool))
print(*(process.pid for process in pool._processes), flush=True)
if sys.argv[1] == "hang":
    pool.step(np.zeros((4, 1)), np.ones(4, bool))
sys.stdin.read()
"""


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("workers_are", ["idle", "hang"])
def test_no_worker_outlives_a_killed_parent(workers_are):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, workers_are if workers_are == "hang" else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        for pid in pids:  # a signal to the whole process group is the parent's business
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)
        assert all(map(alive, pids))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 20
        while any(map(alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, pids))


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
        text=True,
        capture_output=True,
        check=True,
    )


def test_importing_the_package_imports_no_jax_and_no_simulator():
    code = (
        "import sys, rl_jax.envs, rl_jax.envs.gym_pool, rl_jax.envs.worker\n"
        "print(sorted({'jax', 'gymnasium', 'mujoco'} & set(sys.modules)))"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_a_script_without_a_main_guard_runs_once_and_keeps_its_standard_output():
    code = (
        "import numpy as np\n"
        "from rl_jax.envs.gym_pool import EnvPool\n"
        "pool = EnvPool('tests.envs.toys:Toy-v0', 2, num_workers=2, env_kwargs={'fault': 'print'})\n"
        "pool.reset(np.array([1, 3]))\n"
        "[pool.step(np.zeros((2, 1)), np.ones(2, bool)) for _ in range(2)]\n"
        "print('done')"
    )
    result = run_python(code)
    assert result.stdout == "done\n"
    assert result.stderr.count("printed by the toy") == 2
