"""CPL: a policy from comparisons of segments, without a reward and without RL."""
