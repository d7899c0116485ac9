"""RLZero in a maze: FB is trained without rewards; then sentences become policies by one vector each.

The video model is replaced by a drawn clip a prompt (prompts.py), and SigLIP by a stand-in (`config.embedder.name`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.rlzero.body import body_experiment
from experiments.rlzero.exact import exact_experiment
from experiments.rlzero.prompts import MAZE, PROMPTS, expert_paths, obeyed
from experiments.rlzero.rivals import encoder_experiment, image_reward_experiment
from experiments.rlzero.world import Judge, World, make_clips, make_world, with_latents
from rl_jax.agents.agent import Agent
from rl_jax.agents.fb import embed, fb
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import evaluated
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample
from rl_jax.envs.velocity_maze import observed, position
from rl_jax.losses.forward_backward import imitation_latent, on_sphere, reward_latent

SUCCESS = Metric("eval/success", "goals reached")
OBEYED = Metric("eval/obeyed", "share of steps that obey")
ARMS = ("projected", "true", "reward", "goal", "random")
GOAL_STEPS = 10  # at the end of a roll-out: a goal is reached by who stays within a cell of it


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/rlzero.py says."""
    tasks = {
        "pretrain": pretraining, "infer": inference, "image_reward": image_reward_experiment,
        "encoder": encoder_experiment, "exact": exact_experiment, "body": body_experiment,
    }
    if config.task not in tasks:
        raise ValueError(unknown("task in config.task", config.task, tasks))
    return tasks[config.task](config)


def fb_program(config: ConfigDict, world: World) -> tuple[Agent, Program]:
    """FB on the maze's transitions, without an evaluation."""
    agent = fb(config.agent, world.transitions.actions.shape[1])

    def init(key: Key, resident: PyTree) -> TrainState:
        return agent.init(key, sample(resident, key, 1))

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        batch_key, update_key = jax.random.split(key)
        return agent.update(state, shard_batch(sample(resident, batch_key, config.batch_size)), update_key)

    return agent, Program(init, step, resident=world.transitions)


def pretraining(config: ConfigDict) -> Experiment:
    """FB, judged by goals that it has not been told of: the middles of cells, z_g = B(g), [S, goals * E]."""
    world, judge = make_world(config), Judge.of(config)
    cells = np.random.default_rng(0).permutation(np.argwhere(MAZE))[: config.goals].astype(np.float32) + 0.5

    def program(config: ConfigDict) -> Program:
        agent, program = fb_program(config, world)
        act = with_latents(agent)
        goals = jnp.asarray(observed(MAZE, cells))

        @evaluated
        def success(params: PyTree) -> jax.Array:
            latents = embed(config.agent, params, goals)
            paths = judge.paths(lambda params, seen: act(params, seen, latents), len(cells))(params)
            distance = jnp.abs(paths[:, :, -GOAL_STEPS:] - cells[:, None, None]).max(-1)
            return jnp.mean(distance, -1).reshape(-1) < 1.0

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            return Evaluation(outcomes={"success": success(state.params).astype(float)})

        return program._replace(evaluate=evaluate)

    return Experiment(program, {"dataset": world.checksum}, SUCCESS)


def inference(config: ConfigDict) -> Experiment:
    """Prompts to policies of a trained FB by `config.imagine.arm`; nothing is trained.

    Outcomes: "obeyed", "random" (of random latents) and "expert" (of the oracle), the share of a roll-out's steps in
    the prompt's region, [S, P * E]; "projection_error" [S, P * L], in cells. For the film "imagined_*" and "shown_*"
    [S, P * L], what is drawn and the states that are imitated, and "path_*" [S, P * steps] from the first start, each
    as rows and columns.

    Raises:
      ValueError: there is no such arm.
    """
    own = config.imagine
    if own.arm not in ARMS:
        raise ValueError(unknown("arm in config.imagine.arm", own.arm, ARMS))
    world, judge = make_world(config), Judge.of(config)
    clips = make_clips(config, world)
    truth = np.asarray(observed(MAZE, clips.positions), np.float32)
    shown = truth if own.arm == "true" else clips.projected
    states = world.transitions.next_observations[: config.embedder.states]
    rewards = obeyed(jnp.asarray(position(MAZE, states))[None])
    expert = np.asarray(obeyed(jnp.asarray(expert_paths(judge.starts, judge.steps)))).mean(-1).reshape(-1)
    error = np.abs(position(MAZE, clips.projected) - clips.positions).max(-1).reshape(-1)
    weights = own.discount ** np.arange(own.frames)

    def program(config: ConfigDict) -> Program:
        agent, program = fb_program(config, world)
        act = with_latents(agent)

        def latents_of(arm: str, params: PyTree) -> jax.Array:
            """[P, D], of length sqrt(D)."""
            if arm == "random":
                return on_sphere(jax.random.normal(jax.random.key(3), (len(PROMPTS), config.agent.latent_dim)))
            if arm == "goal":
                return embed(config.agent, params, jnp.asarray(shown[:, -1]))
            if arm == "reward":
                found = embed(config.agent, params, jnp.asarray(states))
                return on_sphere(jax.vmap(lambda reward: reward_latent(reward, found))(rewards))
            found = embed(config.agent, params, jnp.asarray(shown))
            return on_sphere(jax.vmap(lambda own: imitation_latent(own, jnp.asarray(weights)))(found))

        @evaluated
        def judged(params: PyTree) -> dict[str, jax.Array]:
            paths = {}
            for name, arm in {"obeyed": own.arm, "random": "random"}.items():
                latents = latents_of(arm, params)
                paths[name] = judge.paths(
                    lambda params, seen, latents=latents: act(params, seen, latents), len(PROMPTS)
                )(params)
            found = {name: obeyed(path).mean(-1).reshape(-1) for name, path in paths.items()}
            first = paths["obeyed"][:, 0].reshape(-1, 2)
            return found | {"path_row": first[:, 0], "path_column": first[:, 1]}

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            found = judged(state.params)
            same = {"expert": expert, "projection_error": error}
            for name, places in {"imagined": clips.positions, "shown": position(MAZE, shown)}.items():
                same |= dict(zip((f"{name}_row", f"{name}_column"), places.reshape(-1, 2).T, strict=True))
            count = len(found["obeyed"])
            return Evaluation(outcomes=found | {name: np.tile(x, (count, 1)) for name, x in same.items()})

        return program._replace(evaluate=evaluate)

    inputs: dict[str, Any] = {"dataset": world.checksum, "imagination": "drawn by an oracle",
                              "embedder": config.embedder.name}
    return Experiment(program, inputs, OBEYED)
