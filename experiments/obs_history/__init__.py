"""Offline RL with observation histories."""
