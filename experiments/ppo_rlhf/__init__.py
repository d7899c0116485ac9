"""PPO of language models with a critic."""
