"""Segments of a half-good behaviour in Meta-World with their values, made once and cached.

The behaviour is the task's scripted expert, mixed with random actions for stretches of a few steps until about half of
its episodes succeed, and with normal noise on the expert's actions. CPL's authors take SAC stopped half-way.
V is that of the expert, restarted in the states where segments begin and end; the authors' is the critic of their SAC.
"""

import warnings
from pathlib import Path

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.core.files import exclusive
from rl_jax.data.cache import open_cached, shared
from rl_jax.data.episodes import Episodes
from rl_jax.data.progress import ProgressBar

PREFIX = "metaworld-"
EDITION = 1  # raise when what is collected changes
NOISE = 0.3  # standard deviation, on the expert's actions
STRETCH = 8  # steps after which it is decided anew who acts
SEGMENTS_AN_EPISODE = 3
DISCOUNT, LOOK_AHEAD = 0.99, 100  # of V; behind the steps looked ahead the last reward is taken to go on
# The share of stretches that are random, by task, so that about half of the episodes succeed.
RANDOM = {
    "bin-picking": 0.05, "button-press": 0.6, "door-open": 0.5, "drawer-open": 0.45, "plate-slide": 0.5,
    "sweep-into": 0.05,
}


def success_id(name: str) -> str:
    """The task in which a policy is judged that learned from the set `name`."""
    return f"{name}-success-v3"


def load_segments(name: str, num_steps: int, length: int, seed: int, folder: Path) -> tuple[Episodes, dict]:
    """(episodes of one segment of `length` steps each, what is known of them), made where they are not cached.

    The fields "value" and "next_value" are V before a segment's first step and behind its last one, and 0 elsewhere.
    What is known: "behaviour_success" and "expert_success", shares of the episodes that both began.

    Raises:
      ValueError: there is no such set.
      MissingExtraError: metaworld is not installed.
    """
    task = name.removeprefix(PREFIX)
    if task not in RANDOM or task == name:
        raise ValueError(unknown("data set in config.dataset.name", name, ["double_integrator", *map(_named, RANDOM)]))
    require("metaworld", "metaworld")
    count = max(num_steps // length, 1)
    key = f"{name}-{EDITION}-segments{count}-steps{length}-seed{seed}"
    with shared(folder), exclusive(folder / "locks" / f"{key}.lock"):
        return open_cached(folder / "arrays", key, lambda: collect(task, count, length, seed))


def _named(task: str) -> str:
    return PREFIX + task


def collect(task: str, count: int, length: int, seed: int) -> tuple[Episodes, dict]:
    """The segments that `load_segments` caches; minutes for a thousand."""
    from rl_jax.envs.meta_world import MetaWorld

    warnings.filterwarnings("ignore", "Constant\\(s\\) may be too high", UserWarning)  # the scripts ask for more than 1
    env, rng = MetaWorld(task), np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("observations", "actions", "rewards", "values")}
    successes = []
    with ProgressBar(_named(task), count * length) as advance:
        while len(parts["values"]) < count:
            first = int(rng.integers(2**31))
            before, _ = env.reset(seed=first)
            value, expert = expert_value(env)
            succeeded = False
            for _ in range(SEGMENTS_AN_EPISODE):
                observations, actions, rewards = [before], [], []
                for step in range(length):
                    if step % STRETCH == 0:
                        at_random = rng.random() < RANDOM[task]
                    noisy = env.expert_action() + rng.normal(0.0, NOISE, 4)
                    action = rng.uniform(-1.0, 1.0, 4) if at_random else np.clip(noisy, -1.0, 1.0)
                    before, reward, _, _, info = env.step(action)
                    observations.append(before)
                    actions.append(action)
                    rewards.append(reward)
                    succeeded |= bool(info["success"])
                next_value, _ = expert_value(env)
                for name, new in zip(parts, (observations, actions, rewards, (value, next_value)), strict=True):
                    parts[name].append(np.asarray(new, np.float32))
                value = next_value
                advance(length)
            successes.append((succeeded, expert))
    env.close()
    behaviour, expert = np.mean(successes, axis=0)
    arrays = {name: np.stack(part[:count]) for name, part in parts.items()}
    return _episodes(**arrays), {"behaviour_success": float(behaviour), "expert_success": float(expert)}


def expert_value(env) -> tuple[float, bool]:
    """(the expert's discounted return from here on, whether it succeeds); the environment stays where it is."""
    state = env.save_state()
    value, discount, success, reward = 0.0, 1.0, False, 0.0
    for _ in range(LOOK_AHEAD):
        _, reward, _, _, info = env.step(env.expert_action())
        value, discount, success = value + discount * reward, discount * DISCOUNT, success or bool(info["success"])
    env.restore_state(state)
    return value + discount * reward / (1.0 - DISCOUNT), success


def _episodes(observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray, values: np.ndarray) -> Episodes:
    """Of segments [M, K + 1, O], [M, K, A], [M, K] and values [M, 2]."""
    count, length = rewards.shape
    value, next_value = np.zeros((2, count, length), np.float32)
    value[:, 0], next_value[:, -1] = values.T
    last = np.zeros((count, length), bool)
    last[:, -1] = True

    def flat(x: np.ndarray) -> np.ndarray:
        return x.reshape(count * length, *x.shape[2:])

    return Episodes(
        flat(observations[:, :-1]), flat(actions), flat(rewards), np.zeros(count * length, bool), flat(last),
        flat(observations[:, 1:]), np.arange(0, count * length, length, dtype=np.int64),
        {"value": flat(value), "next_value": flat(next_value)},
    )
