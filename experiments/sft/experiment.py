"""What the binary makes of a configuration of configs/sft.py."""

from rl_jax.language.experiments import sft_experiment as experiment

__all__ = ["experiment"]
