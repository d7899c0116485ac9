"""The TFDS builder `adroit`: one configuration a set, stored as RLDS episodes."""

import dataclasses
from pathlib import Path

import tensorflow_datasets as tfds

from rl_jax.core.extras import require
from rl_jax.data.adroit.demonstrations import replay_demonstrations
from rl_jax.data.adroit.sets import DIMENSIONS, SETS, AdroitSet
from rl_jax.data.locomotion.builder import builder_with
from rl_jax.data.locomotion.collect import collect
from rl_jax.data.writer import rlds_examples, rlds_info


@dataclasses.dataclass(eq=False, kw_only=True)
class AdroitConfig(tfds.core.BuilderConfig):
    """A set of the table with its number of steps and its seed, both part of the name unless they are the default."""

    spec: AdroitSet
    num_steps: int
    seed: int = 0


def adroit_config(set_name: str, num_steps: int | None = None, seed: int = 0) -> AdroitConfig:
    """The configuration of `set_name` (such as door-human); `num_steps` None means the set's full size.

    Raises:
      ValueError: more steps of the demonstrations than there are.
    """
    spec = SETS[set_name]
    num_steps = spec.num_steps if num_steps is None else num_steps
    if spec.policies:
        origin = f"seed {seed}, of the expert policy of DAPG's authors with its own noise"
    else:
        seed, origin = 0, "replayed from 25 human demonstrations of DAPG's authors"  # there is nothing random in them
        if not 1 <= num_steps <= spec.num_steps:
            raise ValueError(f"adroit/{set_name}: num_steps is {num_steps}, expected 1 to {spec.num_steps}")
    default = num_steps == spec.num_steps and seed == 0
    name = set_name if default else f"{set_name}-steps{num_steps}-seed{seed}"
    description = (
        f"{num_steps:,} steps of {spec.env_id}, {origin}; as behaviour count the first {spec.time_limit} steps of "
        "an episode, which is the task's time limit."
    )
    return AdroitConfig(name=name, description=description, spec=spec, num_steps=num_steps, seed=seed)


class Adroit(tfds.core.GeneratorBasedBuilder):
    """Episodes of Adroit's door: demonstrations by people, and roll-outs of an expert."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [adroit_config(name) for name in SETS]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return rlds_info(self, config.description, config.spec.env_id, *DIMENSIONS, extras={})

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        config = self.builder_config
        if config.spec.policies:
            # Say what is missing here, once, and not in each worker.
            require("gymnasium", "adroit").make(config.spec.env_id, disable_env_checker=True).close()
            parts = collect(config.spec, config.num_steps, config.seed)
        else:
            parts = replay_demonstrations(config.num_steps)
        yield from rlds_examples(parts)


def make_builder(set_name: str, num_steps: int | None, seed: int, data_dir: Path) -> Adroit:
    """The builder of `set_name` with this many steps and this seed; another size or seed lives in another folder."""
    return builder_with(Adroit, adroit_config(set_name, num_steps, seed), data_dir)
