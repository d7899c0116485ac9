"""Trains one stage of RLAIF-V: the policy's start, a labeller, or rounds of DPO from its labels.

    python -m experiments.rlaif_v.train --config=configs/rlaif_v.py:quick --workdir=runs/rlaif_v/sft
    python -m experiments.reproduce --paper=rlaif_v --preset=quick --jobs=2      all stages and arms

The last line on standard output is one JSON object with the share of mentions that are wrong.
"""

from experiments.rlaif_v.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rlaif_v.py:quick")
