"""Configurations: one file a paper, each with `get_config(preset)`."""
