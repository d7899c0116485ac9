"""The table of the `locomotion-2` sets: task, size and behaviour policies of each.

The first edition's medium policies could not show what learners learn (docs/data.md says why); its numbers are of other
data, and so the edition is part of a set's name.
"""

import dataclasses

FAMILY = "locomotion-2"  # what the names of the sets begin with

ENV_IDS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4"}
TIME_LIMIT = 1000  # steps, of every task
DIMENSIONS = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6)}  # observation, action

_RANDOM = {task: f"trpo_{task}_it0000" for task in ENV_IDS}
_MEDIUM = {"hopper": "sac_hopper_100k", "halfcheetah": "trpo_halfcheetah_it0300", "walker2d": "sac_walker2d_155k"}
_EXPERT = {"hopper": "trpo_hopper_it0500", "halfcheetah": "tqc_HalfCheetah-v3", "walker2d": "trpo_walker2d_it0400"}
# One training history from random up to below the medium policy, which comes last.
_HISTORY = {
    "hopper": tuple(f"sac_hopper_{steps:03d}k" for steps in (10, 25, 40, 55, 70, 80, 90)),
    "halfcheetah": tuple(f"trpo_halfcheetah_it{iteration:04d}" for iteration in (0, 20, 40, 80, 160)),
    "walker2d": tuple(f"sac_walker2d_{steps:03d}k" for steps in (20, 40, 60, 80, 100, 120, 140)),
}
_REPLAY_STEPS = {"hopper": 402_000, "halfcheetah": 202_000, "walker2d": 302_000}


@dataclasses.dataclass(frozen=True)
class LocomotionSet:
    """One set: every policy contributes an equal share of the steps, in this order."""

    name: str
    task: str
    policies: tuple[str, ...]
    num_steps: int

    @property
    def env_id(self) -> str:
        return ENV_IDS[self.task]

    @property
    def dimensions(self) -> tuple[int, int]:
        """Of observations and actions."""
        return DIMENSIONS[self.task]

    @property
    def behaviour(self) -> str:
        return f"in equal shares of: {', '.join(self.policies)}"


def _sets() -> dict[str, LocomotionSet]:
    table = {}
    for task in ENV_IDS:
        for level, policies, num_steps in (
            ("random", (_RANDOM[task],), 1_000_000),
            ("medium", (_MEDIUM[task],), 1_000_000),
            ("medium-replay", (*_HISTORY[task], _MEDIUM[task]), _REPLAY_STEPS[task]),
            ("medium-expert", (_MEDIUM[task], _EXPERT[task]), 2_000_000),
            ("expert", (_EXPERT[task],), 1_000_000),
        ):
            table[f"{task}-{level}"] = LocomotionSet(f"{task}-{level}", task, policies, num_steps)
    return table


SETS = _sets()
