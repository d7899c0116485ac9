"""SWE-RL: reinforcement learning from how like the developers' own patch a patch is."""
