"""What the binary makes of a configuration of configs/dpo.py."""

from rl_jax.language.experiments import dpo_experiment as experiment

__all__ = ["experiment"]
