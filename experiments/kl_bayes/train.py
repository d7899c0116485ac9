"""Fits a decoder to a target distribution over texts by policy gradients, or trains the prior that it starts from.

    python -m experiments.kl_bayes.train --config=configs/kl_bayes.py:quick --workdir=runs/kl_bayes
    python -m experiments.reproduce --paper=kl_bayes --preset=quick --jobs=2      all methods and targets

The last line on standard output is one JSON object with the exact total variation from the target.
"""

from experiments.kl_bayes.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/kl_bayes.py:quick")
