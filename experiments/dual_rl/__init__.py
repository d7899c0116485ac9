"""Dual RL: one objective for offline RL and imitation."""
