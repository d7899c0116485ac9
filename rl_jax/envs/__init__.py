"""Environments: adapters of simulators, and environments of pure functions."""
