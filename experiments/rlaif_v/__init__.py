"""RLAIF-V: labels by divided claims, pairs without confounders, rounds of DPO."""
