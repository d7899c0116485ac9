"""Prints what the `locomotion-2` sets and their behaviour policies are like: the tables of docs/data.md.

    python -m rl_jax.data.locomotion.describe [hopper-medium hopper-expert ...]
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.runtime import run_binary
from rl_jax.data.load import Dataset, load_dataset
from rl_jax.data.locomotion.collect import WorkerPool, available_cores
from rl_jax.data.locomotion.policies import load_policy
from rl_jax.data.locomotion.rollout import BLOCK_EPISODES, returns_of
from rl_jax.data.locomotion.sets import FAMILY, SETS, TIME_LIMIT
from rl_jax.data.scores import normalized_score

NUM_STEPS = 100_000  # of each set
BLOCKS = 3  # of episodes of a policy's samples, and as many of its mode
FACE = 0.999  # a component beyond it lies at a face of the box


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a policy does in its task; scores are D4RL's normalised ones.

    Attributes:
      samples: scores of episodes that it acts in with its noise, [E].
      mode: scores of episodes that it acts in without, [E].
      noise: root mean square of what the noise adds to a component of an action, where half of the box is 1.
      faces: share of the samples' components that lie at a face of the box.
      lengths: of the samples' episodes, [E].
    """

    samples: np.ndarray
    mode: np.ndarray
    noise: float
    faces: float
    lengths: np.ndarray

    @property
    def misfits(self) -> list[str]:
        """Why a set of the policy could not show what a learner has learnt; empty where it can.

        Learners are judged by their mode, so it must not lose what the samples have; with little noise there is no
        action to choose; where the box cuts most actions, the mode wins what no learner has learnt.
        """
        wrong = []
        if self.mode.mean() < 0.95 * self.samples.mean():
            wrong.append("its mode scores under 95% of its samples")
        if not 0.1 <= self.noise <= 0.5:
            wrong.append("its noise is not in 0.1 to 0.5")
        if self.faces >= 0.4:
            wrong.append("40% of its actions are at the faces")
        return wrong


def facts(pool: WorkerPool, policy: str, env_id: str) -> Facts:
    """Acts in BLOCKS blocks of episodes with the noise of an embedded policy, and in as many without."""
    job = {"env_id": env_id, "policy": policy, "seed_sequence": [0], "max_steps": BLOCK_EPISODES * TIME_LIMIT}
    futures = [
        [pool.submit({**job, "block": block, "stochastic": noisy}) for block in range(BLOCKS)]
        for noisy in (True, False)
    ]
    samples, modes = ([future.result() for future in blocks] for blocks in futures)
    observations, actions = (np.concatenate([block[name] for block in samples]) for name in ("observations", "actions"))
    scores = [
        normalized_score(env_id, np.concatenate([returns_of(block) for block in blocks])) for blocks in (samples, modes)
    ]
    return Facts(
        *scores,
        noise=float(np.sqrt(np.mean(np.square(actions - load_policy(policy).act(observations, None))))),
        faces=float(np.mean(np.abs(actions) > FACE)),
        lengths=np.concatenate([block["lengths"] for block in samples]),
    )


def policy_row(pool: WorkerPool, name: str, env_id: str) -> tuple[str, ...]:
    found = facts(pool, name, env_id)
    return (
        name, spread(found.samples), f"{found.mode.mean():.1f}", f"{found.noise:.2f}", f"{100 * found.faces:.0f}%",
        spread(found.lengths, 0), "; ".join(found.misfits) or "fit",
    )


def set_row(dataset: Dataset) -> tuple[str, ...]:
    episodes, spec = dataset.episodes, SETS[dataset.name.removeprefix(f"{FAMILY}/")]
    scores = normalized_score(dataset.env_id, episodes.returns)
    return (
        spec.name, f"{spec.num_steps:,}", ", ".join(spec.policies), spread(episodes.returns, 0), f"{scores.mean():.1f}",
        f"{np.average(scores, weights=episodes.lengths):.1f}", f"{scores.max():.1f}", spread(episodes.lengths, 0),
        f"{100 * np.mean(np.abs(episodes.actions) > FACE):.0f}%",
    )


def spread(values: np.ndarray, digits: int = 1) -> str:
    return f"{np.mean(values):.{digits}f} +- {np.std(values):.{digits}f}"


def print_table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    for row in (heads, ("---",) * len(heads), *rows):
        print(f"| {' | '.join(row)} |", flush=True)


def main(argv: list[str]) -> None:
    names = argv[1:] or SETS
    for name in names:
        if name not in SETS:
            raise ValueError(unknown("set", name, SETS))
    specs = [SETS[name] for name in names]
    print_table(
        ("set", "steps", "behaviour policies, in equal shares of the steps", "return of an episode",
         "score by episodes", "by steps", "of the best", "episode length", "at the faces"),
        (set_row(load_dataset(f"{FAMILY}/{spec.name}", num_steps=NUM_STEPS)) for spec in specs),
    )
    print()
    env_ids = {policy: spec.env_id for spec in specs for policy in spec.policies}
    with WorkerPool(available_cores()) as pool:
        print_table(
            ("policy", "score of its samples", "of its mode", "noise", "at the faces", "episode length", "verdict"),
            (policy_row(pool, name, env_id) for name, env_id in sorted(env_ids.items())),
        )


if __name__ == "__main__":
    run_binary(main)
