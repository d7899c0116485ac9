"""Pairwise-RL: a judge that reads two answers, and reinforcement by the probability to beat an anchor answer."""
