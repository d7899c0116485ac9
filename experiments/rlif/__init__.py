"""RLIF: interactive imitation as reinforcement learning."""
