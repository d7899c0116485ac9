"""Reinforcement learning of language models as short drivers over roles, and where roles may lie."""
