"""Toolkits of the sciences whose problems the papers solve: molecules and what they do."""
