"""rl_jax: forty-two reinforcement-learning papers on one sharded JAX core. See docs/design.md."""
