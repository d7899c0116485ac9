"""What the binary makes of a configuration of configs/ppo_rlhf.py."""

from rl_jax.language.rl_experiments import experiment

__all__ = ["experiment"]
