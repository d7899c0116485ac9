"""Reinforcement learning from verified answers: GRPO and its kin."""
