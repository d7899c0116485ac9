"""L2M: modulators that a frozen decision transformer selects, task after task."""
