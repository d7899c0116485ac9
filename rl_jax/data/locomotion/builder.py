"""The TFDS builder `locomotion`: one configuration a set, stored as RLDS episodes."""

import tensorflow_datasets as tfds

from rl_jax.data.builder import MadeHere, set_config
from rl_jax.data.locomotion.collect import collect
from rl_jax.data.locomotion.sets import SETS


class Locomotion(MadeHere):
    """Episodes of Gymnasium's MuJoCo tasks under embedded behaviour policies of many strengths."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [set_config(spec) for spec in SETS.values()]

    def collect(self, *arguments):
        return collect(*arguments)
