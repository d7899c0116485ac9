"""RLCM: reinforcement learning for consistency models, beside DDPO."""
