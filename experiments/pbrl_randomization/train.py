"""Learns a policy from comparisons of trajectories by PR-LSVI or PbTS, in an MDP that is known to the judge.

    python -m experiments.pbrl_randomization.train --config=configs/pbrl_randomization.py:quick --workdir=runs/pbrl
    python -m experiments.reproduce --paper=pbrl_randomization --preset=quick      all methods and MDPs

  --config.sweep="rounds.epsilon=0.3,0.6,1.0"      values of epsilon side by side in one program

The last line on standard output is one JSON object with the exact regret of both policies of all rounds.
"""

from experiments.pbrl_randomization.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/pbrl_randomization.py:quick")
