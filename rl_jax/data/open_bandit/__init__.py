"""Open Bandit data, small: what two policies recommended in a fashion shop, with true propensities."""
