"""PaccMann^RL."""
