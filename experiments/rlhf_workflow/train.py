"""Trains one stage of RLHF Workflow.

    python -m experiments.rlhf_workflow.train --config=configs/rlhf_workflow.py:quick --workdir=runs/workflow/sft
    python -m experiments.reproduce --paper=rlhf_workflow --preset=quick --jobs=2      all stages and arms

The last line on standard output is one JSON object with what the stage is judged by.
"""

from experiments.rlhf_workflow.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rlhf_workflow.py:quick")
