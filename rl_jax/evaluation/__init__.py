"""Judging policies: roll-outs, normalised scores, intervals and learning curves."""
