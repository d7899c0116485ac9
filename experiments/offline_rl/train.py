"""Trains an offline RL agent on a built-in set, or on your own data, and evaluates it in MuJoCo.

    python -m experiments.offline_rl.train --config=configs/offline_rl.py:quick --workdir=runs/hopper
    python -m experiments.offline_rl.train --config=configs/offline_rl.py:td3_bc/walker2d-medium --workdir=runs/walker

A run that was stopped goes on where it was: give the same command again. Everything about the run lies in --workdir:
metrics.jsonl, outcomes.npz (raw returns), learning_curve.png, checkpoints/, config.json, provenance.json, tensorboard/.
The last line on standard output is one JSON object with the result.

What a person needs (all fields with comments: configs/offline_rl.py, rl_jax/core/config.py):
  :<preset>                  quick | <agent>/<data set> (iql, cql, ...; sets such as hopper-medium) | full | tiny
  --config.num_seeds=S       runs trained side by side (seeds seed, ..., seed + S - 1)
  --config.num_steps=N       gradient updates of each run
  --config.sweep="F=A,B; G=C,D"   every combination: floats of the agent side by side, other fields one by one
  --config.dataset.path=P    your D4RL HDF5 file, Minari or RLDS folder, npz; with --config.dataset.env_id=Hopper-v4
  --config.mesh.data=D       devices that share each batch; --config.mesh.seed=S devices that share the seeds
"""

from experiments.offline_rl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/offline_rl.py:quick")
