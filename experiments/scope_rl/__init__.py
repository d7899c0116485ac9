"""SCOPE-RL: what a policy would earn, and which one to deploy, from data of another one."""
