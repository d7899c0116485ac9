"""What the binary makes of a configuration of configs/reward_model.py."""

from rl_jax.language.experiments import reward_model_experiment as experiment

__all__ = ["experiment"]
