"""What RLZero is held against, and an encoder of pictures for it: both train in the core's loop."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.rlzero.prompts import MAZE, PROMPTS, expert_paths, obeyed
from experiments.rlzero.world import Judge, frames, make_clips, make_world
from rl_jax.agents.td3_bc import td3_bc
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import evaluated
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run, gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.shifts import random_shift
from rl_jax.data.transitions import sample, sample_rows
from rl_jax.envs.velocity_maze import SPRITES, picture, position
from rl_jax.generative.contrastive import contrastive_loss
from rl_jax.generative.embedders import ENCODER, KIND, PictureEncoder, domain, init_encoder, mean_picture
from rl_jax.networks.model_file import save_model
from rl_jax.networks.trained import Networks, Trained

OBEYED = Metric("eval/obeyed", "share of steps that obey")
ACCURACY = Metric("eval/accuracy", "share of pictures that are found")


def image_reward_experiment(config: ConfigDict) -> Experiment:
    """An agent a prompt by offline RL; the reward of a state is the mean cosine of its picture and the clip's.

    The agents of a run stand side by side, leaves [P, ...]; outcomes as in `experiment.inference`.
    """
    world, judge = make_world(config), Judge.of(config)
    clips = make_clips(config, world)
    seen = frames(config, position(MAZE, world.transitions.next_observations), "own")
    prompts = clips.pictured.mean(1)
    rewards = np.asarray(clips.embed(seen) @ prompts.T, np.float32)
    rewards = (rewards - rewards.mean(0)) / rewards.std(0)
    expert = np.asarray(obeyed(jnp.asarray(expert_paths(judge.starts, judge.steps)))).mean(-1).reshape(-1)

    def program(config: ConfigDict) -> Program:
        agent = td3_bc(config.agent, world.transitions.actions.shape[1])
        resident = {"transitions": world.transitions, "rewards": rewards}

        def init(key: Key, resident: PyTree) -> TrainState:
            batch = sample(resident["transitions"], key, 1)
            agents = jax.lax.map(lambda key: agent.init(key, batch), jax.random.split(key, len(PROMPTS)))
            return agents.replace(step=jnp.zeros((), jnp.int32))

        def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
            del batch
            keys = jax.random.split(key, len(PROMPTS) + 1)
            drawn = shard_batch(sample_rows(resident, keys[0], config.batch_size, len(resident["rewards"])))

            def one(inputs: Any) -> tuple[TrainState, Metrics]:
                own, reward, key = inputs
                batch = drawn["transitions"].replace(rewards=reward)
                new, info = agent.update(own.replace(step=state.step), batch, key)
                return new.replace(step=None), info

            agents, info = jax.lax.map(one, (state.replace(step=None), drawn["rewards"].T, keys[1:]))
            return agents.replace(step=state.step), jax.tree.map(jnp.mean, info)

        def act(params: PyTree, observations: jax.Array) -> jax.Array:
            return jax.vmap(lambda own, seen: agent.act(own, seen, jax.random.key(0), 0.0))(params, observations)

        @evaluated
        def judged(params: PyTree) -> dict[str, jax.Array]:
            paths = judge.paths(act, len(PROMPTS))(params)
            first = paths[:, 0].reshape(-1, 2)
            obedience = obeyed(paths).mean(-1).reshape(-1)
            return {"obeyed": obedience, "path_row": first[:, 0], "path_column": first[:, 1]}

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            found = judged(state.params)
            return Evaluation(outcomes=found | {"expert": np.tile(expert, (len(found["obeyed"]), 1))})

        return Program(init, step, evaluate, resident)

    inputs = {"dataset": world.checksum, "imagination": "drawn by an oracle", "embedder": config.embedder.name}
    return Experiment(program, inputs, OBEYED)


def encoder_experiment(config: ConfigDict) -> Experiment:
    """A contrastive encoder of the agent's own pictures: one is found again when it is shifted and the body recoloured.

    The finished run leaves ENCODER in its folder. Chen et al. 2020 (SimCLR), arXiv 2002.05709; the loss is CLIP's.
    """
    world, size = make_world(config), config.embedder.pixels
    encoder = PictureEncoder()
    example = frames(config, position(MAZE, world.transitions.next_observations[: config.embedder.states]), "own")
    mean = mean_picture(example)

    def start(key: Key) -> PyTree:
        return {"encoder": init_encoder(key, example), "scale": jnp.asarray(2.0)}

    networks = Networks({"encoder": Trained(start, optax.adam(config.encoder.learning_rate))})

    def changed(pictures: jax.Array, key: Key) -> jax.Array:
        """What is not the mean picture, shifted by a pixel, its colour channels mixed at random."""
        shift_key, mix_key = jax.random.split(key)
        mixing = jnp.eye(3) + config.encoder.recolour * jax.random.normal(mix_key, (len(pictures), 3, 3))
        return jnp.einsum("nhwc,ncd->nhwd", random_shift(pictures / 255.0 - mean, shift_key, 1), mixing)

    def loss(params: PyTree, first: jax.Array, second: jax.Array) -> tuple[jax.Array, Metrics]:
        one, two = (encoder.apply(params["encoder"], views) for views in (first, second))
        return contrastive_loss(one, two, params["scale"])

    def views(resident: PyTree, key: Key) -> tuple[jax.Array, jax.Array]:
        draw_key, *keys = jax.random.split(key, 3)
        states = sample(resident, draw_key, config.batch_size).next_observations
        pictures = picture(MAZE, position(MAZE, states), size, SPRITES["own"])
        return tuple(changed(pictures, key) for key in keys)

    def init(key: Key, resident: PyTree) -> TrainState:
        return networks.init(key, {"encoder": ()})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        return networks.step(state, "encoder", loss, *views(resident, key))

    drawn = jax.jit(views)

    @evaluated
    def accuracy(params: PyTree, first: jax.Array, second: jax.Array) -> jax.Array:
        return loss(params["encoder"], first, second)[1]["contrastive/accuracy"]

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        pair = jax.device_get(gather(drawn(resident, key)))
        return Evaluation(outcomes={"accuracy": accuracy(state.params, *pair)[:, None]})

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        own = first_run(result.state.params["encoder"]["encoder"])
        save_model(workdir / ENCODER, own, kind=KIND, domain=domain(example))
        return {"encoder": str(workdir / ENCODER)}

    return Experiment(lambda config: Program(init, step, evaluate, world.transitions),
                      {"dataset": world.checksum}, ACCURACY, finish)
