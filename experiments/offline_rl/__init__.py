"""Offline RL on MuJoCo locomotion data."""
