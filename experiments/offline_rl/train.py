"""Trains an offline RL agent on a locomotion set, or on your own data, and evaluates it in MuJoCo.

    python -m experiments.offline_rl.train --config=configs/offline_rl.py:quick --workdir=runs/hopper
    python -m experiments.offline_rl.train --config=configs/offline_rl.py:td3_bc/walker2d-medium --workdir=runs/walker

A run that was stopped goes on where it was: give the same command again. Everything about the run lies in --workdir:
metrics.jsonl, episodes.npz (raw returns), learning_curve.png, checkpoints/, config.json, provenance.json, tensorboard/.
The last line on standard output is one JSON object with the result.

What a person needs (all fields with comments: configs/offline_rl.py, rl_jax/core/config.py):
  :<preset>                  quick | <agent>/<data set> (iql, cql, ...; sets such as hopper-medium) | full | tiny
  --config.num_seeds=S       runs trained side by side (seeds seed, ..., seed + S - 1)
  --config.num_steps=N       gradient updates of each run
  --config.sweep="F=A,B; G=C,D"   every combination: floats of the agent side by side, other fields one by one
  --config.dataset.path=P    your D4RL HDF5 file, Minari or RLDS folder, npz; with --config.dataset.env_id=Hopper-v4
  --config.mesh.data=D       devices that share each batch; --config.mesh.seed=S devices that share the seeds
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.offline_rl.evaluate import SCORE, make_evaluate
from experiments.offline_rl.learner import load, make_learner
from rl_jax.core.loop import run
from rl_jax.core.program import Program, Resident
from rl_jax.core.runtime import is_main_process
from rl_jax.core.sweep import groups, side_by_side
from rl_jax.data.episodes import Episodes
from rl_jax.data.load import Dataset
from rl_jax.evaluation.curves import METRICS_FILE, plot_learning_curve, read_metric
from rl_jax.evaluation.records import read_episodes
from rl_jax.evaluation.scores import normalized_score
from rl_jax.evaluation.statistics import mean_difference_interval

HEADLINE = SCORE


class Experiment(NamedTuple):
    """What `make_program` gives."""

    program: Program
    inputs: dict[str, Any]  # for the run's provenance
    behaviour_scores: np.ndarray  # [N], normalised scores of the data set's episodes


def make_program(config: ConfigDict, workdir: Path) -> Experiment:
    """The Program of offline RL: data set + agent + MuJoCo evaluation (its raw returns go to workdir/episodes.npz)."""
    dataset = load(config.dataset)
    return make_experiment(config, workdir, dataset, dataset.episodes)


def make_experiment(config: ConfigDict, workdir: Path, dataset: Dataset, episodes: Episodes) -> Experiment:
    """The Program of an agent that learns from `episodes` and is judged in the task of `dataset`, beside its scores."""
    learner = make_learner(config, episodes)
    env_id = config.dataset.env_id or dataset.env_id
    if not env_id:
        raise ValueError(f"{dataset.name} does not say its task: give --config.dataset.env_id, e.g. Hopper-v4")
    shapes = episodes.observations.shape[1:], episodes.actions.shape[1:]
    evaluate = make_evaluate(env_id, learner.act, config, workdir, *shapes, learner.context)
    inputs = {"dataset": dataset.name, "source": dataset.source, "checksum": dataset.checksum, "env_id": env_id}
    behaviour_scores = normalized_score(env_id, dataset.episodes.complete_returns)
    program = Program(learner.init, learner.step, Resident(learner.data), evaluate, learner.settings)
    return Experiment(program, inputs, behaviour_scores)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    return train(make_program(config, workdir), config, workdir)


def train(experiment: Experiment, config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs an experiment to its end, or on to it, and draws its learning curve; the summary that the binary prints."""
    behaviour_score = float(experiment.behaviour_scores.mean())
    logging.info("data set %s: behaviour score %.1f", experiment.inputs["dataset"], behaviour_score)
    result = run(experiment.program, config, workdir, headline=HEADLINE, inputs=experiment.inputs)
    summary = {
        "paper": config.paper, "preset": config.preset, "step": result.step, "seeds": config.num_seeds, "score": None,
        "behaviour_score": behaviour_score, "updates_per_s": result.updates_per_s, "workdir": str(workdir),
    }
    if is_main_process() and result.evaluations:
        title = f"{config.agent.name} on {experiment.inputs['dataset']}"
        steps, curves = read_metric(workdir / METRICS_FILE, HEADLINE)
        curves = {name: (steps, curves[:, rows]) for name, rows in groups(config).items()}
        plot_learning_curve(curves, workdir / "learning_curve.png", behaviour_score=behaviour_score, title=title)
        returns = read_episodes(workdir / "episodes.npz").episodes.returns[-1]
        scores = normalized_score(experiment.inputs["env_id"], returns)
        outcomes = []
        for setting, rows in zip(side_by_side(config), groups(config).values(), strict=True):
            # 95% bootstrap interval of score - behaviour_score, over seeds and episodes.
            interval = mean_difference_interval(scores[rows], experiment.behaviour_scores)
            outcomes.append({"setting": setting, "score": float(scores[rows].mean()), "gain_interval": interval})
        if config.sweep:
            summary["sweep"] = outcomes
        else:
            summary |= {name: outcomes[0][name] for name in ("score", "gain_interval")}
    return summary


if __name__ == "__main__":
    run_experiment(main, "configs/offline_rl.py:quick")
