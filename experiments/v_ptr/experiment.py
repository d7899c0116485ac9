"""V-PTR in a maze seen from above: an encoder from video, then offline RL of a robot that looks otherwise."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.v_ptr.tabular import tabular_experiment
from experiments.v_ptr.world import (
    CELLS,
    GOAL,
    MAZE,
    OUTSIDE,
    PRIOR_GOALS,
    REACHED,
    TASKS,
    check_sprites,
    human_video,
    pictures,
    robot_data,
    scenes_of,
    steps_to,
)
from rl_jax.agents.icvf import Drawn, VideoLearner, icvf
from rl_jax.agents.ptr import ptr
from rl_jax.agents.video_encoders import reconstruction, time_contrastive
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import evaluated
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.shifts import random_shift
from rl_jax.data.transitions import Transitions, sample_rows
from rl_jax.envs.velocity_maze import moved, random_positions

PROBE = Metric("eval/probe", "R^2 of a linear probe of the distance to goals")
SUCCESS = Metric("eval/success", "success in the task that counts")
STARTS, SCENES = jax.random.key(1), jax.random.key(2)  # of roll-outs and of probes, the same for all runs
KEPT = 0.75  # share of the probe's scenes that it is fitted to
RIDGE = 1e-3


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/v_ptr.py says."""
    tasks = {"pretrain": pretraining, "robot": offline, "tabular": tabular_experiment}
    if config.task not in tasks:
        raise ValueError(unknown("task in config.task", config.task, tasks))
    check_sprites(config)
    return tasks[config.task](config)


# Phase 1


def make_learner(config: ConfigDict) -> VideoLearner:
    """The learner of `config.agent.name`; ValueError where there is none."""
    size = config.world.pixels
    learners = {
        "icvf": icvf, "time_contrastive": time_contrastive,
        "reconstruction": lambda own: reconstruction(own, (size, size, 3)),
    }
    if config.agent.name not in learners:
        raise ValueError(unknown("learner in config.agent.name", config.agent.name, learners))
    return learners[config.agent.name](config.agent)


def pretraining(config: ConfigDict) -> Experiment:
    """An encoder from frames alone, judged on pictures of the robot.

    Outcomes: "probe" [S, cells], R^2 on held-out scenes of a linear map of the features to the steps to each cell;
    of ICVF also "value" [S, cells], V(s, g, g) of each cell's middle for the task that counts.

    Raises:
      ValueError: there is no such video.
    """
    sources = {"human": human_video, "robot": lambda config: robot_data(config).video}
    if config.video not in sources:
        raise ValueError(unknown("source in config.video", config.video, sources))
    video, sprite = sources[config.video](config), config.world[config.video]
    probed = scenes_of(
        random_positions(MAZE, SCENES, config.probed)[:, None], SCENES, config.world.things, config.world.robot
    )[:, 0]
    cells = np.asarray(probed[:, :2]).astype(int)
    distances = np.stack([steps_to(cell)[tuple(cells.T)] for cell in CELLS], 1)

    def program(config: ConfigDict) -> Program:
        learner = make_learner(config)

        def drawn(resident: PyTree, key: Key, count: int) -> Drawn:
            draw_key, shift_key = jax.random.split(key)
            found = learner.draw(draw_key, resident, count)
            shown = pictures(config, found.frames, sprite)
            return found._replace(frames=random_shift(shown, shift_key, config.shift) if config.shift else shown)

        def init(key: Key, resident: PyTree) -> TrainState:
            return learner.init(key, drawn(resident, key, 1))

        def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
            del batch
            return learner.update(state, shard_batch(drawn(resident, key, config.batch_size)))

        @evaluated
        def judged(params: PyTree) -> dict[str, jax.Array]:
            found = {"features": learner.encode(params, pictures(config, probed, config.world.robot))}
            if learner.value is not None:
                found["value"] = learner.value(params, pictures(config, value_scenes(config), config.world.robot))
            return found

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            found = judged(state.params)
            probes = np.stack([probe(features, distances) for features in found.pop("features")])
            return Evaluation(outcomes={"probe": probes} | found)

        return Program(init, step, evaluate, video)

    checksum = hashlib.sha256(video.frames.tobytes()).hexdigest()
    return Experiment(program, {"video": f"{config.video} {checksum[:16]}"}, PROBE)


def value_scenes(config: ConfigDict) -> jax.Array:
    """Scenes [cells, 3, O] of each cell's middle, and twice of the goal's; what lies about lies outside the maze."""
    middles = jnp.asarray(CELLS + 0.5, jnp.float32)
    goal = jnp.broadcast_to(jnp.asarray(GOAL, jnp.float32) + 0.5, middles.shape)
    scenes = scenes_of(jnp.stack([middles, goal, goal], 1), SCENES, config.world.things, config.world.robot)
    return scenes.at[..., 5:].set(OUTSIDE)


def probe(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """R^2 [G] on the last rows of a ridge regression on the first ones; features [N, F], targets [N, G]."""
    kept = int(KEPT * len(features))
    inputs = np.concatenate([features, np.ones((len(features), 1))], 1).astype(np.float64)
    weights = np.linalg.solve(
        inputs[:kept].T @ inputs[:kept] + RIDGE * np.eye(inputs.shape[1]), inputs[:kept].T @ targets[:kept]
    )
    rest = targets[kept:]
    return 1.0 - np.square(inputs[kept:] @ weights - rest).sum(0) / np.square(rest - rest.mean(0)).sum(0)


# Phases 2 and 3


def offline(config: ConfigDict) -> Experiment:
    """Offline RL on the robot's demonstrations, of the share `config.prior_share` of prior tasks in each batch.

    Outcomes [S, E]: "success" in the task that counts, "prior" in the prior tasks, in turn, from the same starts.
    """
    robot, own = robot_data(config), config.world
    starts = random_positions(MAZE, STARTS, config.eval_episodes)
    scattered = scenes_of(starts[:, None], SCENES, own.things, own.robot)[:, 0, 2:]

    def program(config: ConfigDict) -> Program:
        agent = ptr(config.agent, robot.transitions.actions.shape[1])

        def shown(batch: Transitions, key: Key) -> Transitions:
            """Scenes as pictures; those of a step are shifted alike."""
            both = jnp.stack([batch.observations[0], batch.next_observations[0]], 1)
            frames = pictures(config, both, config.world.robot)
            frames = random_shift(frames, key, config.shift) if config.shift else frames
            tasks = batch.observations[1]
            return batch.replace(observations=(frames[:, 0], tasks), next_observations=(frames[:, 1], tasks))

        def init(key: Key, resident: PyTree) -> TrainState:
            return agent.init(key, shown(sample_rows(resident, key, 1, robot.prior), key))

        def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
            del batch
            row_key, shift_key, update_key = jax.random.split(key, 3)
            rows = mixed_rows(row_key, config.batch_size, robot.prior, len(resident), config.prior_share)
            drawn = jax.tree.map(lambda x: jnp.asarray(x)[rows], resident)
            return agent.update(state, shard_batch(shown(drawn, shift_key)), update_key)

        @evaluated
        def judged(params: PyTree) -> dict[str, jax.Array]:
            def success(tasks: np.ndarray) -> jax.Array:
                goals, asked = jnp.asarray(TASKS)[tasks] + 0.5, jax.nn.one_hot(tasks, len(TASKS))

                def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, None]:
                    places, done = carry
                    frames = pictures(config, jnp.concatenate([places, scattered], -1), config.world.robot)
                    actions = agent.act(params, (frames, asked), jax.random.key(0), 0.0)
                    places = jax.vmap(lambda place, action: moved(jnp.asarray(MAZE), place, action))(places, actions)
                    return (places, done | (jnp.abs(places - goals).max(-1) < REACHED)), None

                begin = starts, jnp.zeros(len(starts), bool)
                return jax.lax.scan(step, begin, None, length=own.horizon)[0][1].astype(jnp.float32)

            episodes = np.arange(len(starts))
            return {"success": success(np.full_like(episodes, len(PRIOR_GOALS))),
                    "prior": success(episodes % len(PRIOR_GOALS))}

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            return Evaluation(outcomes=judged(state.params))

        return Program(init, step, evaluate, robot.transitions)

    return Experiment(program, {"dataset": robot.checksum}, SUCCESS)


def mixed_rows(key: Key, count: int, prior: int, total: int, share: jax.Array | float) -> jax.Array:
    """Numbers of rows [count]: each with probability `share` of the first `prior`, else of the others."""
    which_key, prior_key, other_key = jax.random.split(key, 3)
    first = jax.random.randint(prior_key, (count,), 0, prior)
    other = jax.random.randint(other_key, (count,), prior, total)
    return jnp.where(jax.random.uniform(which_key, (count,)) < share, first, other)
