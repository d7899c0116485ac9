"""TFDS builders of the sets that are made here: one configuration a set, stored as RLDS episodes."""

import abc
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import tensorflow_datasets as tfds

from rl_jax.data.episodes import Episodes
from rl_jax.data.writer import rlds_examples, rlds_info


class SetSpec(Protocol):
    """A row of a family's table of sets.

    Attributes:
      name: without the family's.
      num_steps: the set's full size.
      env_id: Gymnasium id of the task.
      dimensions: of its observations and actions.
      behaviour: who acts, to be read after the words "steps of <task>, seed 0, ".
    """

    name: str
    num_steps: int
    env_id: str
    dimensions: tuple[int, int]
    behaviour: str


@dataclasses.dataclass(eq=False, kw_only=True)
class SetConfig(tfds.core.BuilderConfig):
    """A set of the table with its number of steps and its seed, both part of the name unless they are the default."""

    spec: SetSpec
    num_steps: int
    seed: int = 0


def set_config(spec: SetSpec, num_steps: int | None = None, seed: int = 0) -> SetConfig:
    """The configuration of a set; `num_steps` None means its full size."""
    num_steps = spec.num_steps if num_steps is None else num_steps
    default = num_steps == spec.num_steps and seed == 0
    name = spec.name if default else f"{spec.name}-steps{num_steps}-seed{seed}"
    description = f"{num_steps:,} steps of {spec.env_id}, seed {seed}, {spec.behaviour}."
    return SetConfig(name=name, description=description, spec=spec, num_steps=num_steps, seed=seed)


class MadeHere(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The builder of a family of sets, which has their BUILDER_CONFIGS and `collect`."""

    VERSION = tfds.core.Version("1.0.0")

    @abc.abstractmethod
    def collect(self, spec: SetSpec, num_steps: int, seed: int) -> Iterator[Episodes]:
        """The episodes of a set, in order, of `num_steps` steps together."""

    def _info(self) -> tfds.core.DatasetInfo:
        spec = self.builder_config.spec
        return rlds_info(self, self.builder_config.description, spec.env_id, *spec.dimensions, extras={})

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        config = self.builder_config
        yield from rlds_examples(self.collect(config.spec, config.num_steps, config.seed))


def make_builder(
    family: type[MadeHere], set_name: str, num_steps: int | None, seed: int, data_dir: Path
) -> MadeHere:
    """The builder of `set_name` with this many steps and this seed; another size or seed lives in another folder."""
    config = set_config(family.builder_configs[set_name].spec, num_steps, seed)
    builder_class = family
    if config.name not in family.builder_configs:
        # TFDS logs a long warning about a configuration that its class does not list.
        class Custom(family, skip_registration=True):
            """The builder with this one configuration."""

            name = family.name
            BUILDER_CONFIGS = [config]

        builder_class = Custom
    return builder_class(config=config.name, data_dir=str(data_dir), file_format="array_record")
