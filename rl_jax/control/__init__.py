"""Joins agents with data, environments and evaluation into Programs: what an experiment of control is made of."""
