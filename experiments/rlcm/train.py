"""Fine-tunes a consistency model by RLCM, or a diffusion model by DDPO, for a reward of its images; or pretrains one.

    python -m experiments.rlcm.train --config=configs/rlcm.py:quick --workdir=runs/rlcm

Give the same command again to continue a run that was stopped. The workdir gets the files of every run (metrics.jsonl,
outcomes.npz, result.json, provenance.json, checkpoints; the best checkpoint is that of the best reward at which the
judge still sees what was asked for), before.png and after.png, images of some prompts, one row each, and rewards.png,
the reward against images and against time, beside DDPO. The last line on standard output is one JSON object, with the
means of the first and of the last evaluation.

A pretraining writes samples.png and model.npz, which --config.model.path takes.
"""

from experiments.rlcm.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rlcm.py:quick")
