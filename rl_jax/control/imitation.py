"""Imitation: an agent learns from a few demonstrations and from offline data that hide further expert episodes."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from rl_jax.control.offline import load, offline_experiment
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.data.load import Dataset
from rl_jax.data.transitions import EXPERT

PARTS = ("both", "demonstrations", "all")


def imitation_experiment(config: ConfigDict, dataset: Dataset) -> Experiment:
    """Imitation of the expert of `config.expert`, with the episodes of `dataset` for offline data.

    Raises:
      ValueError: the expert is of another task than the offline data, or `imitation_data` cannot be made.
    """
    # The expert's own set is read with what is said of the other one.
    named = {"name": config.expert.name, "num_steps": config.expert.num_steps, "path": ""}
    expert = load(ConfigDict({**config.dataset, **named}))
    if expert.env_id != dataset.env_id:
        raise ValueError(
            f"config.expert.name: {expert.name} is of {expert.env_id}, the offline data of {dataset.env_id}"
        )
    made = offline_experiment(config, dataset, imitation_data(dataset.episodes, expert.episodes, config.expert))
    return made._replace(inputs={**made.inputs, "expert": expert.name, "expert_checksum": expert.checksum})


def imitation_data(offline_data: Episodes, expert: Episodes, config: ConfigDict) -> Episodes:
    """What an imitator is shown, with rewards 0: `config.demonstrations` episodes of the expert, and the offline data
    with the `config.hidden` next ones among them.

    Where both are shown, the field EXPERT marks the demonstrations.

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
