"""Trains a small decoder to calculate, from verified answers alone, or the supervised start that it learns from.

    python -m experiments.grpo.train --config=configs/grpo.py:quick --workdir=runs/grpo
    python -m experiments.reproduce --paper=grpo --preset=quick --jobs=2      all methods

The last line on standard output is one JSON object with the exact match of held-out questions.
"""

from experiments.grpo.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/grpo.py:quick")
