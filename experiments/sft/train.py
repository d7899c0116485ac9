"""Fine-tunes a language model on answers or on plain text, and says how well it foretells what was held out.

    python -m experiments.sft.train --config=configs/sft.py:quick --workdir=runs/sft
    python -m experiments.sft.train --config=configs/sft.py:smollm2/gsm8k --workdir=runs/sft-gsm8k
    python -m experiments.sft.train --config=configs/sft.py:stories260k/gsm8k --config.data.name=mine.jsonl --workdir=runs/mine

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, outcomes.npz, provenance.json, checkpoints) and `model`, the first seed's model as a folder that
transformers opens and --config.model.name of the other trainers takes. The last line on standard output is one JSON
object. The form of your own records: rl_jax/data/text/records.py.
"""

from experiments.sft.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/sft.py:quick")
