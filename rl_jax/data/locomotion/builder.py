"""The TFDS builder `locomotion`: one configuration a set, stored as RLDS episodes."""

import dataclasses
from pathlib import Path

import tensorflow_datasets as tfds

from rl_jax.data.locomotion.collect import collect
from rl_jax.data.locomotion.sets import DIMENSIONS, SETS, LocomotionSet
from rl_jax.data.writer import rlds_examples, rlds_info


@dataclasses.dataclass(eq=False, kw_only=True)
class LocomotionConfig(tfds.core.BuilderConfig):
    """A set of the table with its number of steps and its seed, both part of the name unless they are the default."""

    spec: LocomotionSet
    num_steps: int
    seed: int = 0


def locomotion_config(set_name: str, num_steps: int | None = None, seed: int = 0) -> LocomotionConfig:
    """The configuration of `set_name` (such as hopper-medium); `num_steps` None means the set's full size."""
    spec = SETS[set_name]
    num_steps = spec.num_steps if num_steps is None else num_steps
    default = num_steps == spec.num_steps and seed == 0
    name = set_name if default else f"{set_name}-steps{num_steps}-seed{seed}"
    policies = ", ".join(spec.policies)
    description = f"{num_steps:,} steps of {spec.env_id}, seed {seed}, in equal shares of: {policies}."
    return LocomotionConfig(name=name, description=description, spec=spec, num_steps=num_steps, seed=seed)


class Locomotion(tfds.core.GeneratorBasedBuilder):
    """Episodes of Gymnasium's MuJoCo tasks under embedded behaviour policies of many strengths."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [locomotion_config(name) for name in SETS]

    def _info(self) -> tfds.core.DatasetInfo:
        spec = self.builder_config.spec
        return rlds_info(self, self.builder_config.description, spec.env_id, *DIMENSIONS[spec.task], extras={})

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        config = self.builder_config
        yield from rlds_examples(collect(config.spec, config.num_steps, config.seed))


def make_builder(set_name: str, num_steps: int | None, seed: int, data_dir: Path) -> Locomotion:
    """The builder of `set_name` with this many steps and this seed; another size or seed lives in another folder."""
    return builder_with(Locomotion, locomotion_config(set_name, num_steps, seed), data_dir)


def builder_with(
    builder_class: type[tfds.core.GeneratorBasedBuilder], config: tfds.core.BuilderConfig, data_dir: Path
) -> tfds.core.GeneratorBasedBuilder:
    """The builder of a configuration that its class need not list."""
    if config.name not in builder_class.builder_configs:
        # TFDS logs a long warning about a configuration that its class does not list.
        class Custom(builder_class, skip_registration=True):
            """The builder with this one configuration."""

            name = builder_class.name
            BUILDER_CONFIGS = [config]

        builder_class = Custom
    return builder_class(config=config.name, data_dir=str(data_dir), file_format="array_record")
