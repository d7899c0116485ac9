"""Trains CPL, P-IQL, SFT or BC on comparisons of segments and judges the policy.

    python -m experiments.cpl.train --config=configs/cpl.py:quick --workdir=runs/cpl
    python -m experiments.cpl.train --config=configs/cpl.py:cpl/drawer-open --workdir=runs/cpl_drawer
    python -m experiments.reproduce --paper=cpl --preset=quick --jobs=2      all methods

The last line on standard output is one JSON object with the cost over the optimum's, or the share of successes. Fields:
  --config.dataset.label=return     compares segments by return, not by regret
  --config.dataset.pairing=score    all pairs of a batch of segments; comparison: each segment in one pair
"""

from experiments.cpl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/cpl.py:quick")
