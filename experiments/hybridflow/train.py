"""PPO, ReMax, GRPO or Safe-RLHF by a short driver over roles, and where the roles may lie.

    python -m experiments.hybridflow.train --config=configs/hybridflow.py:ppo/training --workdir=runs/ppo
    python -m experiments.reproduce --paper=hybridflow --preset=quick --jobs=2      all of the paper

A CPU becomes eight virtual devices. The last line on standard output is one JSON object with the headline's number.
"""

from experiments.hybridflow.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/hybridflow.py:quick")
