"""V-PTR: an encoder from action-free video by intention-conditioned values, then offline RL of a robot on it."""
