"""Direct preference optimisation and its kin."""
