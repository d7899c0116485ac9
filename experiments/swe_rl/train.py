"""Trains a policy to repair functions from how like the true patch its own is, or the supervised start and control.

    python -m experiments.swe_rl.train --config=configs/swe_rl.py:quick --workdir=runs/swe_rl
    python -m experiments.reproduce --paper=swe_rl --preset=quick --jobs=2      all methods

The last line on standard output is one JSON object with the mean reward on functions of held-out packages.
"""

from experiments.swe_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/swe_rl.py:quick")
