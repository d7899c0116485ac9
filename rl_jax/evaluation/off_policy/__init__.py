"""Off-policy evaluation: what a policy would earn, from trajectories of another one whose probabilities are known."""
