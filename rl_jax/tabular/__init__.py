"""Finite MDPs: their tables and files, exact planning in float64, the effective horizon, and GORP."""
