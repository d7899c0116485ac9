"""What the configurations of both papers that design molecules share: a stage's, a policy's, and the tests' sizes."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from rl_jax.core.config import core_config
from rl_jax.generative import molecule_design, molecule_stages

# The form of REINFORCE in the authors' code, but for its temperature: no baseline, no mask, invalid texts dropped.
OFFICIAL = {
    "policy.baseline": "none", "policy.mask_after_stop": False, "policy.match_temperature": False,
    "policy.drop_invalid": True, "targets_per_batch": 1,
}
GENERATOR = {"num_steps": 4000, "batch_size": 64, "pretraining.learning_rate": 2e-3}
PROFILES = {"num_steps": 1500, "batch_size": 64}
PREDICTOR = {"num_steps": 2000, "batch_size": 256, "predictor.role": "predictor"}
JUDGE = PREDICTOR | {"predictor.role": "judge", "seed": 1}
TOXICITY = {"num_steps": 1000, "batch_size": 256}
# The authors' sizes, and their training of the generator.
PAPER = {
    "molecules.length": 100, "generator.width": 512, "generator.num_layers": 2, "generator.latent": 256,
    "generator.stack_depth": 50, "generator.every_step": False, "generator.dropout": 0.2, "generator.kl_max": 1.0,
    "profiles.latent": 128, "predictor.form": "attention",
}
PAPER_GENERATOR = {"num_steps": 6000, "batch_size": 256, "pretraining.learning_rate": 5e-4}


def stage_config(task: str, fields: Mapping[str, Any]) -> ConfigDict:
    """A supervised stage; `fields` are by dotted name."""
    config = _config({"task": task, **fields})
    config.loop.update({"chunk": 50, "log_every": 100, "eval_every": 0})
    return config


def policy_config(fields: Mapping[str, Any]) -> ConfigDict:
    """REINFORCE on a decoder, judged before and after; `fields` are by dotted name."""
    config = _config({"policy.learning_rate": 1e-3, "policy.max_grad_norm": 1.0, **fields})
    config.loop.update({"chunk": 1, "log_every": 10, "eval_every": 0, "eval_at_start": True})
    return config


def _config(fields: Mapping[str, Any]) -> ConfigDict:
    config = core_config()
    config.update(molecule_stages.default_config())
    config.update(molecule_design.default_config())
    config.overlap, config.tensorboard, config.batch_size, config.side_by_side = 0, False, 128, ()
    config.update_from_flattened_dict(fields)
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """The same in seconds."""
    config.update_from_flattened_dict({
        "num_seeds": 2 if config.task == "policy" else 1, "num_steps": 4, "batch_size": 8,
        "targets_per_batch": min(config.targets_per_batch, 2), "activities.molecules": 64, "activities.targets": 6,
        "molecules.length": 20, "molecules.min_atoms": 1, "generator.width": 16, "generator.latent": 8,
        "profiles.features": (16,), "profiles.latent": 4, "predictor.features": (16,), "judging.molecules": 8,
        "predictor.amino_acids": 24,
        "loop.chunk": 1, "loop.log_every": 2, "checkpoint.every": 2,
    })
    return config
