"""Runs a stage of RLHF-V: supervised learning of descriptions, or preferences from corrections or rankings.

    python -m experiments.rlhf_v.train --config=configs/rlhf_v.py:quick --workdir=runs/rlhf_v/sft
    python -m experiments.reproduce --paper=rlhf_v --preset=quick --jobs=2      all arms

The last line on standard output is one JSON object with the share of wrong mentions, or of right segments.
"""

from experiments.rlhf_v.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rlhf_v.py:quick")
