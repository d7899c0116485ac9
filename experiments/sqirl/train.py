"""Trains SQIRL, GORP, PPO or DQN in a tabular MDP or an Atari game until it is solved, and counts the samples.

    python -m experiments.sqirl.train --config=configs/sqirl.py:quick --workdir=runs/sqirl
    python -m experiments.sqirl.train --config=configs/sqirl.py:sqirl/freeway_10_fs30 --workdir=runs/freeway
    python -m experiments.reproduce --paper=sqirl --preset=quick --jobs=2     all agents and MDPs

A seed has solved an MDP at the first evaluation whose greedy policy has at least 99% of what the best policy earns
above the random one, in exact expectation; its samples are the environment steps by then. SQIRL and GORP search for the
least number of episodes that solves it: attempt after attempt begins anew with `config.agent.growth` times as many,
from `config.agent.num_episodes` on, and the samples are those of the attempt that solves it, as in the paper. Nobody
takes more than `config.samples`. GORP is for deterministic MDPs, --config.sticky=0. In a game (config.atari.rom)
policies are judged by episodes.

  --config.observations=screen               networks see the state's screen and not its number
  --config.sweep="agent.num_episodes=16,64; agent.k=1,2"    values of m run side by side, values of k in sequence

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, outcomes.npz, provenance.json, checkpoints). The last line on standard output is one JSON object: the
samples of each seed and whether it solved the MDP, the return of its last policy, and the exact figures of the MDP.
"""

from experiments.sqirl.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/sqirl.py:quick")
