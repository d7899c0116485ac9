"""Trains a policy on pairs of answers by DPO, IPO, NCA, ORPO, SimPO or, on judged answers, KTO.

    python -m experiments.dpo.train --config=configs/dpo.py:quick --workdir=runs/dpo
    python -m experiments.dpo.train --config=configs/dpo.py:kto/smollm2/dpo_en --workdir=runs/kto
    python -m experiments.dpo.train --config=configs/dpo.py:quick --config.model.name=runs/sft --workdir=runs/sft-dpo

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, outcomes.npz, provenance.json, checkpoints) and `model`, the first seed's policy as a folder that
transformers opens. The last line on standard output is one JSON object. The form of your own pairs and judged answers,
for --config.data.name: rl_jax/data/text/records.py.
"""

from experiments.dpo.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/dpo.py:quick")
