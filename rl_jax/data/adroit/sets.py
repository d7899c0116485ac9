"""The table of the `adroit` sets: size and origin of each."""

import dataclasses
from pathlib import Path

FOLDER = Path(__file__).parent
ENV_ID = "rl_jax.envs.adroit:Adroit/Door-v1"
TIME_LIMIT = 200  # steps; a demonstration is longer
DIMENSIONS = (39, 28)  # observation, action


@dataclasses.dataclass(frozen=True)
class AdroitSet:
    """One set: roll-outs of `policies` in equal shares of the steps, or the demonstrations where there are none."""

    name: str
    policies: tuple[str, ...]  # as `load_policy` takes them
    num_steps: int
    env_id: str = ENV_ID
    time_limit: int = TIME_LIMIT


SETS = {
    spec.name: spec
    for spec in (AdroitSet("door-human", (), 6729), AdroitSet("door-expert", (str(FOLDER / "door_expert"),), 1_000_000))
}
