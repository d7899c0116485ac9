"""RLHF-V: preferences from corrected segments, and dense DPO."""
