"""Learns beside an expert who takes over or labels: RLIF, DAgger, HG-DAgger or cloning; or fits the reference Q.

    python -m experiments.rlif.train --config=configs/rlif.py:quick --workdir=runs/rlif
    python -m experiments.rlif.train --config=configs/rlif.py:dagger/reacher-strong --workdir=runs/dagger
    python -m experiments.rlif.train --config=configs/rlif.py:reference/pendulum-weak --workdir=runs/reference
    python -m experiments.reproduce --paper=rlif --preset=quick --jobs=2      all methods and tasks

A run that was stopped goes on where it was, environment and buffer included: give the same command again. What a person
needs (all fields with comments: configs/rlif.py):
  --config.expert.name=NAME              another expert, or a file PATH.npz (rl_jax/data/experts/SOURCE.md)
  --config.intervention.reference=DIR    the finished run that fitted the reference Q
  --config.env_id=ID                     another task, for which both are given
"""

from experiments.rlif.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rlif.py:quick")
