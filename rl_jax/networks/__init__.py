"""Flax linen modules: each maps arrays to arrays and knows no loss."""
