"""Trains a language model by PPO with a critic: a small decoder to calculate, a story model or SmolLM2 to please.

    python -m experiments.ppo_rlhf.train --config=configs/ppo_rlhf.py:quick --workdir=runs/ppo
    python -m experiments.reproduce --paper=ppo_rlhf --preset=quick --jobs=2      all methods

The last line on standard output is one JSON object with the score of answers to held-out questions.
"""

from experiments.ppo_rlhf.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/ppo_rlhf.py:quick")
