"""Judges off-policy estimators where the truth is known: exactly in a random MDP, by roll-outs in control.

    python -m experiments.scope_rl.train --config=configs/scope_rl.py:quick --workdir=runs/scope_rl
    python -m experiments.reproduce --paper=scope_rl --preset=quick --jobs=2      all models and tasks

A user's own logged data: python -m experiments.scope_rl.evaluate. The last line on standard output is one JSON object
with the error of DR.
"""

from experiments.scope_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/scope_rl.py:quick")
