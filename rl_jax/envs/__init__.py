"""Adapters to environments. Importing this package imports neither JAX nor a simulator."""
