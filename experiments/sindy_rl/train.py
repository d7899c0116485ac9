"""Fits models, learns in them, or writes what was learnt as a polynomial: SINDy-RL.

    python -m experiments.sindy_rl.train --config=configs/sindy_rl.py:quick --workdir=runs/sindy_rl
    python -m experiments.reproduce --paper=sindy_rl --preset=quick --jobs=2      all methods

The last line on standard output is one JSON object with the return, or the model's error, and the equations found.
"""

from experiments.sindy_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/sindy_rl.py:quick")
