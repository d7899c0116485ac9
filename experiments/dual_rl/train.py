"""Trains f-DVL, XQL or IQL from rewards, or ReCOIL and other imitators from demonstrations, and evaluates in MuJoCo.

    python -m experiments.dual_rl.train --config=configs/dual_rl.py:quick --workdir=runs/fdvl
    python -m experiments.dual_rl.train --config=configs/dual_rl.py:recoil/hopper-random-with-expert --workdir=runs/il

A run that was stopped goes on where it was: give the same command again. What lies in --workdir, the last line on
standard output and the other fields are those of experiments/offline_rl/train.py. For imitation:
  --config.expert.demonstrations=N   expert episodes that are known to be an expert's
  --config.expert.hidden=M           further expert episodes, unmarked among the offline data
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.offline_rl import train as offline
from experiments.offline_rl.learner import EXPERT, load
from rl_jax.core.config import unknown
from rl_jax.data.episodes import Episodes, concatenate_episodes

HEADLINE = offline.HEADLINE
PARTS = ("both", "demonstrations", "all")


def make_program(config: ConfigDict, workdir: Path) -> offline.Experiment:
    """The Program of offline RL, or of imitation where the configuration has an expert."""
    if "expert" not in config:
        return offline.make_program(config, workdir)
    dataset = load(config.dataset)
    # The expert's own set is read with what is said of the other one.
    named = {"name": config.expert.name, "num_steps": config.expert.num_steps, "path": ""}
    expert = load(ConfigDict({**config.dataset, **named}))
    if expert.env_id != dataset.env_id:
        raise ValueError(
            f"config.expert.name: {expert.name} is of {expert.env_id}, the offline data of {dataset.env_id}"
        )
    experiment = offline.make_experiment(
        config, workdir, dataset, imitation_data(dataset.episodes, expert.episodes, config.expert)
    )
    inputs = experiment.inputs | {"expert": expert.name, "expert_checksum": expert.checksum}
    return experiment._replace(inputs=inputs)


def imitation_data(offline_data: Episodes, expert: Episodes, config: ConfigDict) -> Episodes:
    """What an imitator is shown, with rewards 0: `config.demonstrations` episodes of the expert, and the offline data
    with the `config.hidden` next ones among them.

    Where both are shown, the field "expert" marks the demonstrations.

    Raises:
      ValueError: `config.learn_from` is not one of PARTS, there are no demonstrations, or too few whole episodes.
    """
    if config.learn_from not in PARTS:
        raise ValueError(unknown("part of the data in config.expert.learn_from", config.learn_from, PARTS))
    if config.demonstrations < 1 or config.hidden < 0:
        raise ValueError("config.expert: demonstrations must be at least 1, hidden at least 0")
    wanted, whole = config.demonstrations + config.hidden, expert.num_episodes - 1  # the set may break off the last one
    if wanted > whole:
        raise ValueError(
            f"config.expert asks for {wanted} episodes, and {config.num_steps} steps hold {whole}: raise "
            "config.expert.num_steps"
        )
    # Neither rewards nor what else the sets say of their steps is shown.
    offline_data, expert = (
        dataclasses.replace(part, rewards=np.zeros_like(part.rewards), extras={}) for part in (offline_data, expert)
    )
    demonstrations = expert.select(range(config.demonstrations))
    if config.learn_from == "demonstrations":
        return demonstrations
    hidden = [expert.select(range(config.demonstrations, wanted))] if config.hidden else []
    everything = concatenate_episodes([offline_data, *hidden, demonstrations])
    if config.learn_from == "all":
        return everything
    marks = np.arange(len(everything)) >= len(everything) - len(demonstrations)
    return dataclasses.replace(everything, extras={EXPERT: marks})


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    return offline.train(make_program(config, workdir), config, workdir)


if __name__ == "__main__":
    run_experiment(main, "configs/dual_rl.py:quick")
