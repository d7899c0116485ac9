"""Segments of a half-good behaviour in Meta-World with their values, made once and cached.

The behaviour is the task's scripted expert with normal noise, mixed with random actions for stretches of a few steps.
Cloning averages such noise away: of drawer-open it then succeeds in every episode. So where a task has an error of its
own, the script also misjudges the object's place by an offset that is drawn for each segment around a systematic one.
CPL's authors take SAC stopped half-way, which is wrong in its own systematic ways.

V is what the expert, restarted in the states where segments begin and end, earns in its next LOOK_AHEAD steps; the
authors' is the critic of their SAC. It is not discounted, so that segments of the expert itself score about alike, as
it is done within these steps, and those of others less by their regret.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.core.files import exclusive
from rl_jax.data.cache import open_cached, shared
from rl_jax.data.episodes import Episodes
from rl_jax.data.progress import ProgressBar

PREFIX = "metaworld-"
EDITION = 3  # raise when what is collected changes
NOISE = 0.3  # standard deviation, on the expert's actions
STRETCH = 8  # steps after which it is decided anew who acts
SEGMENTS_AN_EPISODE = 3
LOOK_AHEAD = 100  # steps of V


class Behaviour(NamedTuple):
    """How a task's segments differ from its script's.

    Attributes:
      random: the share of stretches that are random.
      misjudged: where the script takes the object to be, m to the side of its place: the mean over segments.
      spread: standard deviation of it.
    """

    random: float
    misjudged: float = 0.0
    spread: float = 0.0


BEHAVIOURS = {
    "bin-picking": Behaviour(0.05), "button-press": Behaviour(0.6), "door-open": Behaviour(0.5),
    "drawer-open": Behaviour(0.2, -0.08, 0.05), "plate-slide": Behaviour(0.2, -0.08, 0.05),
    "sweep-into": Behaviour(0.05),
}


def success_id(name: str) -> str:
    """The task in which a policy is judged that learned from the set `name`."""
    return f"{name}-success-v3"


def load_segments(
    name: str, num_steps: int, length: int, seed: int, folder: Path, picture: int = 0
) -> tuple[Episodes, dict]:
    """(episodes of one segment of `length` steps each, what is known of them), made where they are not cached.

    With `picture` observations are pictures of that many pixels a side, bytes; the segments are the same.

    The fields "value" and "next_value" are V before a segment's first step and behind its last one, and 0 elsewhere.
    What is known: "behaviour_success" and "expert_success", shares of the episodes that both began.

    Raises:
      ValueError: there is no such set.
      MissingExtraError: metaworld is not installed.
    """
    task = name.removeprefix(PREFIX)
    if task not in BEHAVIOURS or task == name:
        known = ["double_integrator", *map(_named, BEHAVIOURS)]
        raise ValueError(unknown("data set in config.dataset.name", name, known))
    require("metaworld", "metaworld")
    count = max(num_steps // length, 1)
    key = f"{name}-{EDITION}-segments{count}-steps{length}-seed{seed}" + (f"-pictures{picture}" if picture else "")
    with shared(folder), exclusive(folder / "locks" / f"{key}.lock"):
        return open_cached(folder / "arrays", key, lambda: collect(task, count, length, seed, picture))


def _named(task: str) -> str:
    return PREFIX + task


def collect(task: str, count: int, length: int, seed: int, picture: int = 0) -> tuple[Episodes, dict]:
    """The segments that `load_segments` caches; minutes for a thousand."""
    from rl_jax.envs.meta_world import MetaWorld

    warnings.filterwarnings("ignore", "Constant\\(s\\) may be too high", UserWarning)  # the scripts ask for more than 1
    env, own, rng = MetaWorld(task, picture=picture), BEHAVIOURS[task], np.random.default_rng(seed)
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
                misjudged = rng.normal(own.misjudged, own.spread)
                for step in range(length):
                    if step % STRETCH == 0:
                        at_random = rng.random() < own.random
                    noisy = env.expert_action(misjudged) + rng.normal(0.0, NOISE, 4)
                    action = rng.uniform(-1.0, 1.0, 4) if at_random else np.clip(noisy, -1.0, 1.0)
                    before, reward, _, _, info = env.step(action)
                    observations.append(before)
                    actions.append(action)
                    rewards.append(reward)
                    succeeded |= bool(info["success"])
                next_value, _ = expert_value(env)
                for name, new in zip(parts, (observations, actions, rewards, (value, next_value)), strict=True):
                    new = np.asarray(new)
                    parts[name].append(new if new.dtype == np.uint8 else new.astype(np.float32))
                value = next_value
                advance(length)
            successes.append((succeeded, expert))
    env.close()
    behaviour, expert = np.mean(successes, axis=0)
    arrays = {name: np.stack(part[:count]) for name, part in parts.items()}
    return _episodes(**arrays), {"behaviour_success": float(behaviour), "expert_success": float(expert)}


def expert_value(env) -> tuple[float, bool]:
    """(what the expert earns in its next LOOK_AHEAD steps, whether it succeeds); the environment stays where it is."""
    state = env.save_state()
    value, success = 0.0, False
    for _ in range(LOOK_AHEAD):
        reward, info = env.advance(env.expert_action())
        value, success = value + reward, success or bool(info["success"])
    env.restore_state(state)
    return value, success


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
