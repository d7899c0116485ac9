"""PaccMann^RL on SARS-CoV-2."""
