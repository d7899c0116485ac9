"""Tasks of several domains in one layout of states and actions, with experts that make noisy data of them.

The domains are Meta-World's tasks with their scripts (extra metaworld) and, in the place of DMControl, two of
Gymnasium's: a pendulum with a stored policy and a mountain car that is pushed the way it moves. A task is judged by
success: Meta-World's own, the pendulum upright over the last steps, the car at the flag.
"""

import warnings
from pathlib import Path

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.core.files import exclusive
from rl_jax.data.cache import open_cached, shared
from rl_jax.data.episodes import Episodes
from rl_jax.data.experts.experts import load_expert
from rl_jax.data.progress import ProgressBar
from rl_jax.networks.multi_domain_transformer import UNUSED

METAWORLD = "metaworld-"
# Where the numbers of a domain stand in the state of all.
PLACES = {"metaworld": slice(0, 35), "pendulum": slice(35, 38), "mountain-car": slice(38, 40)}
STATE_DIM, ACTION_DIM = 40, 4
EDITION = 1  # raise when what is collected changes
NOISE = (0.0, 0.1, 0.3, 0.6)  # standard deviations on the expert's actions, one an episode in turn
PREFIX = 20  # most random steps at the start of every other episode
UPRIGHT, LAST = 0.9, 20  # the cosine of the pendulum, and over how many steps


class Task:
    """One simulator; states are the domain's own, actions in [-1, 1], rewards in units that returns are shown in.

    Attributes:
      domain: of PLACES.
      action_dim: numbers of an action.
    """

    domain = "metaworld"
    action_dim = 4

    def __init__(self, name: str):
        from rl_jax.envs.meta_world import MetaWorld

        self._env = MetaWorld(name.removeprefix(METAWORLD))

    def reset(self, seed: int) -> np.ndarray:
        """The first state of the episode of a seed."""
        self._seen, self._recent = self._env.reset(seed=seed)[0], []
        return self._seen

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """(state, reward, whether it is a success if the episode ends here, whether it ends)."""
        self._seen, reward, _, _, info = self._env.step(action)
        return self._seen, reward / 20.0, bool(info["success"]), False  # together with MetaWorld's own, by 200

    def expert(self) -> np.ndarray:
        """What the expert would do now, [A]."""
        return self._env.expert_action()


class Pendulum(Task):
    """Gymnasium's Pendulum-v1 with TQC's policy of RL Zoo."""

    domain, action_dim = "pendulum", 1

    def __init__(self, name: str):
        self._env = require("gymnasium", "mujoco").make("Pendulum-v1").unwrapped
        self._policy = load_expert("tqc_pendulum")

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        self._seen, reward, *_ = self._env.step(2.0 * np.asarray(action, np.float64))
        self._recent = [*self._recent[1 - LAST:], self._seen[0]]
        return self._seen, float(reward) / 100.0, min(self._recent) > UPRIGHT and len(self._recent) == LAST, False

    def expert(self) -> np.ndarray:
        return self._policy.act(self._seen[None], None)[0]


class MountainCar(Task):
    """Gymnasium's MountainCarContinuous-v0, pushed the way it moves."""

    domain, action_dim = "mountain-car", 1

    def __init__(self, name: str):
        self._env = require("gymnasium", "mujoco").make("MountainCarContinuous-v0").unwrapped

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        self._seen, reward, ended, *_ = self._env.step(np.asarray(action, np.float64))
        return self._seen, float(reward) / 100.0, bool(ended), bool(ended)

    def expert(self) -> np.ndarray:
        return np.where(self._seen[1:] >= 0.0, 1.0, -1.0)


def open_task(name: str) -> Task:
    """The task of a name: pendulum, mountain-car, or metaworld-<task> for any of Meta-World's fifty.

    Raises:
      ValueError: there is none; near ones are listed.
      MissingExtraError: what it needs is not installed.
    """
    if name in OWN:
        return OWN[name](name)
    known = [*OWN, f"{METAWORLD}door-open and so on"]
    if name.startswith(METAWORLD):
        scripts = require("metaworld.policies", "metaworld").ENV_POLICY_MAP
        known = [METAWORLD + script.removesuffix("-v3") for script in scripts]
    if name not in known:
        raise ValueError(unknown("task in config.tasks", name, known))
    return Task(name)


OWN = {"pendulum": Pendulum, "mountain-car": MountainCar}


def padded(domain: str, states: np.ndarray) -> np.ndarray:
    """States [..., O] of a domain in the layout of all, [..., STATE_DIM] float32, zeros elsewhere."""
    wide = np.zeros((*np.shape(states)[:-1], STATE_DIM), np.float32)
    wide[..., PLACES[domain]] = states
    return wide


def load_task(name: str, episodes: int, steps: int, seed: int, folder: Path) -> tuple[Episodes, dict]:
    """(episodes of a task's expert with noise, what is known of them), made where they are not cached.

    What is known: "success", a share of the episodes; "noiseless", the same of those without noise; the "domain".
    """
    key = f"l2m-{name}-{EDITION}-episodes{episodes}-steps{steps}-seed{seed}"
    with shared(folder), exclusive(folder / "locks" / f"{key}.lock"):
        return open_cached(folder / "arrays", key, lambda: collect(name, episodes, steps, seed))


def collect(name: str, episodes: int, steps: int, seed: int) -> tuple[Episodes, dict]:
    """What `load_task` caches: episodes in the layout of all; every second one begins with random actions."""
    warnings.filterwarnings("ignore", "Constant\\(s\\) may be too high", UserWarning)  # the scripts ask for more than 1
    task, rng = open_task(name), np.random.default_rng(seed)
    rows: list[tuple] = []
    starts, successes = [], []
    with ProgressBar(name, episodes * steps) as advance:
        for episode in range(episodes):
            before, succeeded, ended = task.reset(int(rng.integers(2**31))), False, False
            random = int(rng.integers(PREFIX + 1)) if episode % 2 else 0
            starts.append(len(rows))
            for step in range(steps):
                action = rng.uniform(-1.0, 1.0, task.action_dim)
                noise = rng.normal(0.0, 1.0, task.action_dim)
                if step >= random:
                    action = np.clip(task.expert() + NOISE[episode // 2 % len(NOISE)] * noise, -1.0, 1.0)
                after, reward, success, ended = task.step(action)
                succeeded = success or succeeded and task.domain != "pendulum"
                rows.append((before, action, reward, after, ended, not ended and step == steps - 1))
                before = after
                if ended:
                    break
            successes.append(succeeded)
            advance(steps)
    observations, actions, rewards, following, ends, cut = map(np.array, zip(*rows, strict=True))
    wide = np.full((len(rows), ACTION_DIM), UNUSED, np.float32)
    wide[:, : task.action_dim] = actions
    made = Episodes(
        padded(task.domain, observations), wide, rewards.astype(np.float32), ends, cut, padded(task.domain, following),
        np.array(starts, np.int64),
    )
    clean = [x for i, x in enumerate(successes) if i // 2 % len(NOISE) == 0]
    return made, {"success": float(np.mean(successes)), "noiseless": float(np.mean(clean)), "domain": task.domain}
