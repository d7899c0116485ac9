"""Reward models of preferred answers."""
