"""Pre-trains a decision transformer on some tasks, or tunes it on others in sequence: L2M and what it is held against.

    python -m experiments.l2m.train --config=configs/l2m.py:quick --workdir=runs/pretrained
    python -m experiments.l2m.train --config=configs/l2m.py:l2m --config.init_from.run=runs/pretrained --workdir=runs/x
    python -m experiments.reproduce --paper=l2m --preset=quick --jobs=2      all methods

The last line on standard output is one JSON object with the success on the new tasks, or on those of pre-training.
"""

from experiments.l2m.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/l2m.py:quick")
