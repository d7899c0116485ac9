"""The `pointmaze` sets: a ball that a controller steers through D4RL's mazes."""
