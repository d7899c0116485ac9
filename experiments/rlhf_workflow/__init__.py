"""RLHF Workflow: reward models of preferences, and iterative DPO on a policy's own answers."""
