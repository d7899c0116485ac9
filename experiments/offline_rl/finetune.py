"""Learns in a MuJoCo task: SAC from scratch, or the fine-tuning of a finished offline run.

    python -m experiments.offline_rl.finetune --config=configs/offline_to_online.py:quick --workdir=runs/sac
    python -m experiments.offline_rl.finetune --config=configs/offline_to_online.py:iql/hopper-medium
        --config.init_from.run=runs/iql-hopper --workdir=runs/iql-hopper-online

One step is one update and --config.collect.env_steps steps of each run's environment. A run that was stopped goes on
where it was, environments and replay buffer included: give the same command again. --workdir holds what the offline
binary's holds. The last line on standard output is one JSON object with the result.

What a person needs (all fields with comments: configs/offline_to_online.py, rl_jax/core/config.py):
  :<preset>                  quick | sac/<task> | iql/<data set> | cal_ql/<data set> | tiny
  --config.init_from.run=DIR what goes on: the --workdir of a finished run of experiments.offline_rl.train with the same
                             agent and data; one seed serves any number, otherwise as many as there are here
  --config.num_seeds=S       runs trained side by side (seeds seed, ..., seed + S - 1)
  --config.num_steps=N       updates of each run
  --config.env_id=ID         another task to learn from scratch
"""

from experiments.offline_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/offline_to_online.py:quick")
