"""Trains one stage of Light-R1's curriculum.

    python -m experiments.light_r1.train --config=configs/light_r1.py:quick --workdir=runs/light_r1/sft1
    python -m experiments.reproduce --paper=light_r1 --preset=quick --jobs=2      all stages and arms

The last line on standard output is one JSON object with the accuracy on the hard split.
"""

from experiments.light_r1.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/light_r1.py:quick")
