"""Learning from comparisons of segments: an agent joined with scored segments that lie on the devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.control.agents import make_agent
from rl_jax.control.offline import AgentData, in_box, offline_program, on_raw_observations
from rl_jax.control.online import on_task_actions
from rl_jax.control.tasks import ActionBox, Task, judge_in
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.program import Evaluate, Evaluation, Key, Program, PyTree, TrainState
from rl_jax.data.cache import content_checksum
from rl_jax.data.episodes import Episodes
from rl_jax.data.preprocess import prepare_episodes
from rl_jax.data.segments import (
    Comparisons,
    Segments,
    best_segments,
    cut,
    draw_comparisons,
    regret_scores,
    return_scores,
    to_segments,
)
from rl_jax.envs import linear_quadratic as lq
from rl_jax.evaluation.episodes import episode_returns

COST = Metric("eval/cost_ratio", "cost / optimum", "lower")
SUCCESS = Metric("eval/return", "success")
LABELS = ("regret", "return")
DOUBLE_INTEGRATOR = "double_integrator"
PICTURED = 4.0  # half the width of a picture, in m and m/s


def preference_data(config: ConfigDict, episodes: Episodes, starts: np.ndarray, lengths: np.ndarray) -> AgentData:
    """Segments `starts` and `lengths` [M] of episodes with the fields "value" and "next_value", scored and compared as
    `config.dataset` says.

    Raises:
      ValueError: `config.dataset.label` is not one of LABELS, or `config.dataset.pairing` is unknown.
    """
    own = config.dataset
    if own.label not in LABELS:
        raise ValueError(unknown("label in config.dataset.label", own.label, LABELS))
    if own.label == "regret":
        value, next_value = episodes.extras["value"][starts], episodes.extras["next_value"][starts + lengths - 1]
        scores = regret_scores(episodes, starts, lengths, value, next_value)
    else:
        scores = return_scores(episodes, starts, lengths)
    episodes, mean, std = prepare_episodes(
        episodes, top_fraction=1.0, normalize_observations=own.normalize_observations, scale_rewards=False
    )
    segments = best_segments(to_segments(episodes, starts, lengths, scores), own.top_fraction)
    statistics = {"observation_mean": mean, "observation_std": std}
    draw = draw_comparisons(own.segment_length, own.pairing, own.temperature)
    return AgentData(segments, draw, statistics, episodes.actions.shape[1:])


def preference_experiment(config: ConfigDict) -> Experiment:
    """An agent on comparisons of segments of `config.dataset.name`: the double integrator or a task of Meta-World."""
    if config.dataset.name == DOUBLE_INTEGRATOR:
        return double_integrator_experiment(config)
    return meta_world_experiment(config)


def double_integrator_experiment(config: ConfigDict) -> Experiment:
    """On a linear problem whose every regret is exact; with `config.dataset.picture` from pictures of that many pixels.

    The outcome "cost_ratio" [S, E] is a roll-out's cost over the mean cost of the optimal policy from the same starts,
    which are the same at every evaluation.
    """
    problem, own = lq.double_integrator(), config.dataset
    episode_steps = 2 * own.segment_length
    episodes = lq.collect(
        problem, max(own.num_steps // episode_steps, 1), episode_steps, strength=own.strength, noise=own.noise,
        seed=own.seed,
    )
    box = ActionBox(np.zeros(1, np.float32), np.full(1, problem.bound, np.float32))
    places = cut(episodes, own.segment_length, max(own.num_steps // own.segment_length, 1),
                 np.random.default_rng(own.seed))
    data = preference_data(config, in_box(episodes, box), *places)
    task = lq.environment(problem)
    if own.picture:
        task, data = lq.seen_as_pictures(task, own.picture, PICTURED), _as_pictures(data, own.picture)
    starts = jax.random.key(0)
    gain = lq.solve(problem).gain.T.astype(np.float32)
    optimal = episode_returns(lq.environment(problem), lambda state, states, time: -states @ gain, config.eval_episodes)
    optimal_cost = -float(optimal(TrainState.create({"none": np.zeros(1)}, {}), starts).mean())

    def judge(agent: Agent) -> Evaluate:
        def act(run: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
            return box.to_task(agent.act(run.params, observations, jax.random.fold_in(starts, time), 0.0))

        returns = episode_returns(task, act, config.eval_episodes)

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            return Evaluation(outcomes={"cost_ratio": -np.asarray(returns(state, starts)) / optimal_cost})

        return evaluate

    def program(config: ConfigDict) -> Program:
        return offline_program(config, data)._replace(evaluate=judge(make_agent(config, *data.action)))

    # The optimum is 1, and 0 on the logarithmic scale of the tables.
    return _finished(program, own.name, episodes, COST, {"optimal_cost": optimal_cost, "best": 0.0})


def _as_pictures(data: AgentData, size: int) -> AgentData:
    """The same comparisons with pictures, drawn on the devices, in the place of states."""

    def draw(segments: Segments, key: Key, batch_size: int) -> Comparisons:
        batch = data.draw(segments, key, batch_size)
        pictures = lq.picture(batch.steps.observations, size, PICTURED)
        return batch.replace(steps=batch.steps.replace(observations=pictures))

    return data._replace(draw=draw, statistics={})


def meta_world_experiment(config: ConfigDict) -> Experiment:
    """On segments of a task of Meta-World, made once; the outcome "return" [S, E] is 1 for an episode that succeeds.

    With `config.dataset.picture` from pictures of that many pixels.
    """
    from rl_jax.envs.meta_world_data import load_segments, success_id

    own = config.dataset
    episodes, info = load_segments(
        own.name, own.num_steps, own.segment_length, own.seed, Path(own.data_dir).expanduser(), own.picture
    )
    data = preference_data(config, episodes, episodes.starts, episodes.lengths)
    if own.picture:
        data = data._replace(statistics={})
    judge = judge_in(Task(success_id(own.name), {"picture": own.picture} if own.picture else {}), config)

    def program(config: ConfigDict) -> Program:
        agent = make_agent(config, *data.action)
        act = on_task_actions(agent, ActionBox()) if own.picture else on_raw_observations(agent)
        return offline_program(config, data)._replace(evaluate=judge(act, None))

    facts = {"behaviour_success": info["behaviour_success"], "best": info["expert_success"]}
    return _finished(program, own.name, episodes, SUCCESS, facts)


def _finished(
    program: Callable[[ConfigDict], Program], name: str, episodes: Episodes, headline: Metric, facts: dict[str, float]
) -> Experiment:
    """The experiment, whose last line has the facts and "parameters": all numbers that a run trains or keeps copies of.
    """

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        del workdir
        leaves = jax.tree.leaves((result.state.params, result.state.target_params))
        return {**facts, "parameters": sum(leaf[0].size for leaf in leaves)}

    return Experiment(program, {"dataset": name, "checksum": content_checksum(episodes)}, headline, finish)
