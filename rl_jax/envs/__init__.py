"""Environments: adapters to simulators, pure-JAX ones, and tabular MDPs."""
