"""The table of the `adroit` sets: size and origin of each."""

import dataclasses
from pathlib import Path

FOLDER = Path(__file__).parent
ENV_ID = "door-v1"
IMPORTED_ID = f"rl_jax.envs.adroit:{ENV_ID}"  # for Gymnasium, with the module that registers it
TIME_LIMIT = 200  # steps; a demonstration is longer


@dataclasses.dataclass(frozen=True)
class AdroitSet:
    """One set: roll-outs of `policies` in equal shares of the steps, or the demonstrations where there are none."""

    name: str
    policies: tuple[str, ...]  # as `load_policy` takes them
    num_steps: int
    behaviour: str
    env_id: str = ENV_ID
    dimensions: tuple[int, int] = (39, 28)  # of observations and actions


SETS = {
    "door-human": AdroitSet(
        "door-human", (), 6729,
        "which changes nothing, replayed from 25 human demonstrations of DAPG's authors; as behaviour count the first "
        f"{TIME_LIMIT} steps of each",
    ),
    "door-expert": AdroitSet(
        "door-expert", (str(FOLDER / "door_expert"),), 1_000_000, "of the expert of DAPG's authors with its own noise"
    ),
}
