"""Trains one stage of RLHS: the assistant of a marketplace, from feedback before or after what its advice leads to.

    python -m experiments.rlhs.train --config=configs/rlhs.py:quick --workdir=runs/rlhs/sft
    python -m experiments.reproduce --paper=rlhs --preset=quick --jobs=2      all stages and arms

The last line on standard output is one JSON object with the true utility; `dialogues.txt` in --workdir has samples.
"""

from experiments.rlhs.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rlhs.py:quick")
