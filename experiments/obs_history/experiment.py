"""An agent with a memory on recorded episodes of the stitching gridworld, of Wordle or of VizDoom."""

import hashlib
import importlib

import numpy as np
from ml_collections import ConfigDict

from rl_jax.control.histories import Judged, JudgedInSimulator, history_program
from rl_jax.control.tasks import Task
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.data.episodes import Episodes
from rl_jax.data.wordle.words import letters
from rl_jax.envs.stitching_grid import recorded, stitching_grid
from rl_jax.envs.wordle import recorded_games, wordle

SUCCESS = Metric("eval/success", "success")
RETURN = Metric("eval/return", "return")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/obs_history.py says.

    Raises:
      ValueError: the data are of no such kind, or cannot be made.
      MissingExtraError: they are of VizDoom, which is not installed.
    """
    kinds = {"grid": gridworld, "wordle": games, "vizdoom": walks}
    if config.data.kind not in kinds:
        raise ValueError(unknown("config.data.kind", config.data.kind, kinds))
    episodes, judged = kinds[config.data.kind](config.data)
    if config.data.top_fraction < 1.0:
        episodes = episodes.best_steps(config.data.top_fraction)
    inputs = {
        "data": config.data.kind, "episodes": episodes.num_episodes, "mean_return": float(episodes.returns.mean()),
        "checksum": checksum(episodes),
    }
    headline = RETURN if config.data.kind == "wordle" else SUCCESS
    return Experiment(lambda config: history_program(config, episodes, judged), inputs, headline)


def gridworld(data: ConfigDict) -> tuple[Episodes, Judged]:
    """Episodes of both behaviours; policies are judged from start A, where they have to stitch.

    `any_goal` says whether they get to either goal from there, and `from_b` to the right one from start B, for which
    they have to remember alone.
    """
    episodes = recorded(
        data.episodes, data.view, noise=data.noise, wrong_share=data.wrong_share, horizon=data.horizon, seed=data.seed
    )
    beside = {
        "any_goal": stitching_grid("A", data.view, data.horizon, either_goal=True),
        "from_b": stitching_grid("B", data.view, data.horizon),
    }
    return episodes, Judged(stitching_grid("A", data.view, data.horizon), success=1.0, beside=beside)


def games(data: ConfigDict) -> tuple[Episodes, Judged]:
    """Games of all players. Policies are sampled, as the authors' are; success is a word found by the sixth guess."""
    answers = letters("answers", data.words)
    guesses = answers if data.words else letters("guesses")
    # Five wrong guesses and the right one.
    return recorded_games(data.episodes, answers, guesses, data.seed), Judged(wordle(answers, guesses), -5.0, 1.0)


def walks(data: ConfigDict) -> tuple[Episodes, JudgedInSimulator]:
    """Walks of players of ten kinds in VizDoom's maze; success is to get to the vest in time."""
    doom = importlib.import_module("rl_jax.envs.doom")
    return doom.recorded_walks(data.episodes, data.seed), JudgedInSimulator(Task(doom.ENV_ID), doom.TIME_LIMIT, 1.0)


def checksum(episodes: Episodes) -> str:
    """sha256 of what an agent learns from."""
    parts = (episodes.observations, episodes.actions, episodes.rewards, episodes.starts)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
