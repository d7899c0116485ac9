"""The sharded core: everything of an experiment that is not the paper. Imports nothing of rl_jax above it."""
