"""Learns to tell what a person imagines from EEG, and judges it on runs that it has not seen, or as leaky protocols do.

    python -m experiments.rleegnet.train --config=configs/rleegnet.py:quick --workdir=runs/rleegnet
    python -m experiments.reproduce --paper=rleegnet --preset=quick --jobs=2      all methods and protocols

The last line on standard output is one JSON object with the accuracy.
"""

from experiments.rleegnet.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rleegnet.py:quick")
