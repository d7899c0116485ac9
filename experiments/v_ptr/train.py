r"""Trains an encoder on video without actions, then a robot's policy that starts from it.

    python -m experiments.v_ptr.train --config=configs/v_ptr.py:quick --workdir=runs/icvf
    python -m experiments.v_ptr.train --config=configs/v_ptr.py:prior/shared --config.init_from.run=runs/icvf \
        --workdir=runs/prior
    python -m experiments.v_ptr.train --config=configs/v_ptr.py:finetune/shared --config.init_from.run=runs/prior \
        --workdir=runs/finetune
    python -m experiments.reproduce --paper=v_ptr --preset=quick --jobs=2      all methods

What a person needs (all fields with comments: configs/v_ptr.py):
  --config.init_from.run=DIR           the finished run whose encoder, or whole state, is taken over
  --config.world.demonstrations=10     of the task that counts
  --config.agent.encoder_learning_rate=0     a frozen encoder
"""

from experiments.v_ptr.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/v_ptr.py:quick")
