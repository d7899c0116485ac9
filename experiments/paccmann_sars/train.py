"""Trains one stage of PaccMann^RL on SARS-CoV-2, or its policy for one held-out protein.

    python -m experiments.paccmann_sars.train --config=configs/paccmann_sars.py:affinity --workdir=runs/sars/affinity
    python -m experiments.paccmann_sars.train --config=configs/paccmann_sars.py:ours/mmp13 --workdir=runs/sars/mmp13 \
        --config.models.generator=runs/sars/generator --config.models.profile=runs/sars/protein \
        --config.models.predictor=runs/sars/affinity --config.models.judge=runs/sars/judge \
        --config.models.toxicity=runs/sars/toxicity
    python -m experiments.reproduce --paper=paccmann_sars --preset=quick --jobs=2   all stages and proteins in order

A run that was stopped goes on where it was: give the same command again. All fields with comments:
rl_jax/generative/molecule_stages.py, molecule_design.py and molecule_policy.py. `pip install 'rl_jax[science]'` brings
RDKit and selfies.
"""

from experiments.paccmann_sars.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/paccmann_sars.py:quick")
