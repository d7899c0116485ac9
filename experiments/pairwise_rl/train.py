"""Trains one stage of Pairwise-RL: the policy's start, a scorer, or an arm of the reinforcement.

    python -m experiments.pairwise_rl.train --config=configs/pairwise_rl.py:quick --workdir=runs/pairwise_rl/sft
    python -m experiments.reproduce --paper=pairwise_rl --preset=quick --jobs=2      all stages and arms

The last line on standard output is one JSON object with the gold reward of samples, or a scorer's accuracy.
"""

from experiments.pairwise_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/pairwise_rl.py:quick")
