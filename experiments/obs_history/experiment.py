"""An agent with a memory on recorded episodes of the stitching gridworld or of Wordle."""

import hashlib

import numpy as np
from ml_collections import ConfigDict

from rl_jax.control.histories import Judged, history_program
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.data.episodes import Episodes
from rl_jax.data.wordle.words import letters
from rl_jax.envs.stitching_grid import recorded, stitching_grid
from rl_jax.envs.wordle import recorded_games, wordle

KINDS = ("grid", "wordle")
SUCCESS = Metric("eval/success", "success")
RETURN = Metric("eval/return", "return")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/obs_history.py says.

    Raises:
      ValueError: the data are of no such kind, or cannot be made.
    """
    if config.data.kind not in KINDS:
        raise ValueError(unknown("config.data.kind", config.data.kind, KINDS))
    episodes, judged = (gridworld if config.data.kind == "grid" else games)(config.data)
    if config.data.top_fraction < 1.0:
        episodes = episodes.best_steps(config.data.top_fraction)
    inputs = {
        "data": config.data.kind, "episodes": episodes.num_episodes, "mean_return": float(episodes.returns.mean()),
        "checksum": checksum(episodes),
    }
    headline = SUCCESS if config.data.kind == "grid" else RETURN
    return Experiment(lambda config: history_program(config, episodes, judged), inputs, headline)


def gridworld(data: ConfigDict) -> tuple[Episodes, Judged]:
    """Episodes of both behaviours; policies are judged from start A, where they have to stitch."""
    episodes = recorded(
        data.episodes, data.view, noise=data.noise, wrong_share=data.wrong_share, horizon=data.horizon, seed=data.seed
    )
    return episodes, Judged(stitching_grid("A", data.view, data.horizon), success=1.0)


def games(data: ConfigDict) -> tuple[Episodes, Judged]:
    """Games of all players. Policies are sampled, as the authors' are; success is a word found by the sixth guess."""
    answers = letters("answers", data.words)
    guesses = answers if data.words else letters("guesses")
    # Five wrong guesses and the right one.
    return recorded_games(data.episodes, answers, guesses, data.seed), Judged(wordle(answers, guesses), -5.0, 1.0)


def checksum(episodes: Episodes) -> str:
    """sha256 of what an agent learns from."""
    parts = (episodes.observations, episodes.actions, episodes.rewards, episodes.starts)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
