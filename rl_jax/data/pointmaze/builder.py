"""The TFDS builder `pointmaze`: one configuration a set, stored as RLDS episodes."""

from rl_jax.data.builder import MadeHere, set_config
from rl_jax.data.pointmaze.collect import collect
from rl_jax.data.pointmaze.sets import SETS


class Pointmaze(MadeHere):
    """The way of a ball to changing goals in D4RL's mazes."""

    BUILDER_CONFIGS = [set_config(spec) for spec in SETS.values()]

    def collect(self, *arguments):
        return collect(*arguments)
