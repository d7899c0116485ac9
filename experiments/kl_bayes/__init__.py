"""RL with KL penalties as Bayesian inference."""
