"""Trains a reward model on pairs of answers, and says how often it prefers the chosen one on prompts held out.

    python -m experiments.reward_model.train --config=configs/reward_model.py:quick --workdir=runs/reward
    python -m experiments.reward_model.train --config=configs/reward_model.py:smollm2/hh_harmless --workdir=runs/reward-smollm2

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, outcomes.npz, provenance.json, checkpoints). The last line on standard output is one JSON object; it says
beside the accuracy how good it would be to take the longer answer. The form of your own pairs, for --config.data.name:
rl_jax/data/text/records.py.
"""

from experiments.reward_model.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/reward_model.py:quick")
