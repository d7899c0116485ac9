"""Trains f-DVL, XQL or IQL from rewards, or ReCOIL and other imitators from demonstrations, and evaluates in MuJoCo.

    python -m experiments.dual_rl.train --config=configs/dual_rl.py:quick --workdir=runs/fdvl
    python -m experiments.dual_rl.train --config=configs/dual_rl.py:recoil/hopper-random-with-expert --workdir=runs/il

A run that was stopped goes on where it was: give the same command again. What lies in --workdir, the last line on
standard output and the other fields are those of experiments/offline_rl/train.py. Further presets
stability/<arm> judge whether a loss of V diverges, without a simulator. For imitation:
  --config.expert.demonstrations=N   expert episodes that are known to be an expert's
  --config.expert.hidden=M           further expert episodes, unmarked among the offline data
"""

from experiments.dual_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/dual_rl.py:quick")
