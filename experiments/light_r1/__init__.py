"""Light-R1: a curriculum of supervised learning, preferences and reinforcement for long chains of thought."""
