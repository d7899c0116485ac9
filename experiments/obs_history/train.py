"""Trains an agent with a memory on recorded episodes, and judges it by how often it gets to the goal.

    python -m experiments.obs_history.train --config=configs/obs_history.py:quick --workdir=runs/obs_history
    python -m experiments.reproduce --paper=obs_history --preset=quick --jobs=2      all methods

The last line on standard output is one JSON object with the success of the learnt policy.
"""

from experiments.obs_history.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/obs_history.py:quick")
