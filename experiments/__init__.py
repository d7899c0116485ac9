"""Binaries: one folder a paper, with its README beside it."""
