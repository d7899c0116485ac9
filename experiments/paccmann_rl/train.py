"""Trains one stage of PaccMann^RL, or its policy.

    python -m experiments.paccmann_rl.train --config=configs/paccmann_rl.py:generator --workdir=runs/paccmann/generator
    python -m experiments.paccmann_rl.train --config=configs/paccmann_rl.py:ours --workdir=runs/paccmann/ours \
        --config.models.generator=runs/paccmann/generator --config.models.profile=runs/paccmann/profile \
        --config.models.predictor=runs/paccmann/predictor --config.models.judge=runs/paccmann/judge
    python -m experiments.reproduce --paper=paccmann_rl --preset=quick --jobs=2        all stages and arms in order

A run that was stopped goes on where it was: give the same command again. All fields with comments:
rl_jax/generative/molecule_stages.py, molecule_design.py and molecule_policy.py. `pip install 'rl_jax[science]'` brings
RDKit and selfies.
"""

from experiments.paccmann_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/paccmann_rl.py:quick")
