"""Learns in a MuJoCo task: SAC from scratch, or the fine-tuning of a finished offline run.

    python -m experiments.offline_rl.finetune --config=configs/offline_to_online.py:quick --workdir=runs/sac
    python -m experiments.offline_rl.finetune --config=configs/offline_to_online.py:iql/hopper-medium
        --config.pretrained=runs/iql-hopper --workdir=runs/iql-hopper-online

One step is one update and --config.collect.env_steps steps of each run's environment. A run that was stopped goes on
where it was, environments and replay buffer included: give the same command again. --workdir holds what the offline
binary's holds. The last line on standard output is one JSON object with the result.

What a person needs (all fields with comments: configs/offline_to_online.py, rl_jax/core/config.py):
  :<preset>                  quick | sac/<task> | iql/<data set> | cal_ql/<data set> | tiny
  --config.pretrained=DIR    what to fine-tune: the --workdir of a finished run of experiments.offline_rl.train with the
                             same agent and data; one seed serves any number, otherwise as many as there are here
  --config.num_seeds=S       runs trained side by side (seeds seed, ..., seed + S - 1)
  --config.num_steps=N       updates of each run
  --config.env_id=ID         another task to learn from scratch
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.offline_rl.evaluate import has_score, make_evaluate
from experiments.offline_rl.learner import load
from experiments.offline_rl.online import fine_tuned, from_scratch
from rl_jax.core.loop import run
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, TrainState
from rl_jax.core.runtime import is_main_process
from rl_jax.data.replay import ReplayBuffer
from rl_jax.data.transitions import Transitions
from rl_jax.envs.collector import Collector
from rl_jax.envs.gym_pool import EnvPool
from rl_jax.evaluation.curves import plot_learning_curve
from rl_jax.evaluation.records import read_episodes
from rl_jax.evaluation.scores import normalized_score

HEADLINE = "eval/return"


class Experiment(NamedTuple):
    """What `make_program` gives."""

    program: Program
    inputs: dict[str, Any]  # for the run's provenance
    behaviour_returns: np.ndarray  # [N], of the data set's episodes; N = 0 from scratch


def make_program(config: ConfigDict, workdir: Path) -> Experiment:
    """The Program of online RL: agent + environments and replay buffer + MuJoCo evaluation."""
    dataset = load(config.dataset) if "dataset" in config else None
    env_id = config.env_id if dataset is None else config.dataset.env_id or dataset.env_id
    if not env_id:
        raise ValueError(f"{dataset.name} does not say its task: give --config.dataset.env_id, e.g. Hopper-v4")
    pool = EnvPool(env_id, config.num_seeds, savable=True)
    observation, action = pool.observation_space.shape, pool.action_space.shape
    discount = None
    if dataset is None:
        learner = from_scratch(config, pool)
    else:
        started = any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
        learner = fine_tuned(config, dataset, started)
        observation, action = learner.prior.observations.shape[1:], learner.prior.actions.shape[1:]
        discount = config.agent.discount if "mc_returns" in config.dataset.columns else None
    evaluate = make_evaluate(env_id, learner.act, config, workdir, observation, action)
    replay = ReplayBuffer(
        config.num_seeds, config.replay.capacity, *observation, *action, prior=learner.prior,
        offline_fraction=config.replay.offline_fraction, discount=discount,
    )
    collector = Collector(
        pool, learner.act, replay, seed=config.seed, batch_size=config.batch_size, env_steps=config.collect.env_steps,
        random_steps=config.collect.random_steps, prepare=learner.prepare, reward_scale=learner.reward_scale,
    )

    def step(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        return learner.update(state, shard_batch(batch), key)

    program = Program(learner.init, step, collector.feed(), evaluate)
    return Experiment(program, learner.inputs | {"env_id": env_id}, learner.behaviour_returns)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    experiment = make_program(config, workdir)
    env_id = experiment.inputs["env_id"]
    result = run(experiment.program, config, workdir, headline=HEADLINE, inputs=experiment.inputs)
    summary = {
        "paper": config.paper, "preset": config.preset, "step": result.step, "seeds": config.num_seeds,
        "return": None, "score": None, "score_before": None, "behaviour_score": None,
        "updates_per_s": result.updates_per_s, "workdir": str(workdir),
    }
    if not is_main_process() or not result.evaluations:
        return summary
    returns = {"return": read_episodes(workdir / "episodes.npz").episodes.returns[-1]}
    summary["return"] = float(returns["return"].mean())
    if not has_score(env_id):
        return summary
    returns["score"] = returns["return"]
    if len(experiment.behaviour_returns):
        returns["behaviour_score"] = experiment.behaviour_returns
    pretrained = Path(config.get("pretrained", "")).expanduser() / "episodes.npz"
    if pretrained.exists() and config.get("pretrained"):
        returns["score_before"] = read_episodes(pretrained).episodes.returns[-1]
    summary |= {
        name: float(normalized_score(env_id, values).mean()) for name, values in returns.items() if name != "return"
    }
    if summary["score_before"] is not None:
        logging.info("%s: score %.1f before, %.1f after", env_id, summary["score_before"], summary["score"])
    title = f"{config.agent.name} in {env_id}" + (f" after {config.dataset.name}" if "dataset" in config else "")
    plot_learning_curve(
        workdir, workdir / "learning_curve.png", behaviour_score=summary["behaviour_score"], title=title
    )
    return summary


if __name__ == "__main__":
    run_experiment(main, "configs/offline_to_online.py:quick")
