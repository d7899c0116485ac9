"""Readers: one file a format, each returning `rl_jax.data.episodes.Episodes`."""
