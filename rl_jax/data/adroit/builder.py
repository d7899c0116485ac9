"""The TFDS builder `adroit`: one configuration a set, stored as RLDS episodes."""

import dataclasses
from collections.abc import Iterator

from rl_jax.core.extras import require
from rl_jax.data.adroit.demonstrations import replay_demonstrations
from rl_jax.data.adroit.sets import IMPORTED_ID, SETS, AdroitSet
from rl_jax.data.builder import MadeHere, set_config
from rl_jax.data.episodes import Episodes
from rl_jax.data.locomotion.collect import collect


class Adroit(MadeHere):
    """Episodes of Adroit's door: demonstrations by people, and roll-outs of an expert."""

    BUILDER_CONFIGS = [set_config(spec) for spec in SETS.values()]

    def collect(self, spec: AdroitSet, num_steps: int, seed: int) -> Iterator[Episodes]:
        if not spec.policies:
            return replay_demonstrations(num_steps)
        # Say what is missing here, once, and not in each worker.
        require("gymnasium", "adroit").make(IMPORTED_ID, disable_env_checker=True).close()
        return collect(dataclasses.replace(spec, env_id=IMPORTED_ID), num_steps, seed)
