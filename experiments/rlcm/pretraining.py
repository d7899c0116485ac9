"""Pretrains the model that reinforcement learning starts from, a consistency model or the denoiser of DDPO, and the
networks beside it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.rlcm.domain import Domain
from experiments.rlcm.emoji import PARTS, SHIFT, load_emoji
from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, PyTree, Resident, TrainState
from rl_jax.data.captioned_images import augmented
from rl_jax.data.transitions import sample_rows
from rl_jax.generative.consistency import (
    SIGMA_DATA,
    SIGMA_MIN,
    consistency_distillation_loss,
    ect_gap,
    ect_loss,
)
from rl_jax.generative.denoising import Denoise, denoising_loss, karras_levels, scaled

KINDS = ("consistency", "diffusion")
METHODS = ("tune", "distill")
GRID = 18  # noise levels of a distillation, as Consistency Models has
Evaluate = Callable[[TrainState, Key], dict[str, Any]]


def denoise_of(kind: str, domain: Domain) -> Denoise:
    """The model of a kind: a consistency function, which is the identity at SIGMA_MIN, or a denoiser."""
    if kind not in KINDS:
        raise ValueError(unknown("model.kind", kind, KINDS))
    return scaled(domain.network, SIGMA_DATA, SIGMA_MIN if kind == "consistency" else 0.0)


class Pretraining(NamedTuple):
    """Attributes:
    init: key -> params.
    loss: (params, their exponential mean, step, data, key) -> (loss, info); it draws its batch from the data.
    data: arrays on the device.
    evaluate: (state of all runs, key) -> metrics.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, PyTree, jax.Array, PyTree, Key], tuple[jax.Array, Metrics]]
    data: PyTree
    evaluate: Evaluate


def generator_pretraining(
    config: ConfigDict, domain: Domain, diffusion: PyTree | None, evaluate: Evaluate
) -> Pretraining:
    """Denoising, or what makes a consistency model: ECT, or distillation of a diffusion model.

    Args:
      diffusion: parameters of a diffusion model to start from, which is the teacher of a distillation; or None.
    """
    denoise, settings = denoise_of(config.model.kind, domain), config.pretraining
    if settings.method not in METHODS:
        raise ValueError(unknown("config.pretraining.method", settings.method, METHODS))
    distilled = config.model.kind == "consistency" and settings.method == "distill"
    if distilled and diffusion is None:
        raise ValueError("a distillation has a diffusion model as its teacher: set pretraining.from_diffusion")
    teacher, levels = denoise_of("diffusion", domain), karras_levels(GRID, SIGMA_MIN, config.model.most)

    def loss(
        params: PyTree, mean: PyTree, step: jax.Array, data: PyTree, key: Key
    ) -> tuple[jax.Array, Metrics]:
        row_key, loss_key = jax.random.split(key)
        rows, taught = data
        images, prompts = shard_batch(sample_rows(rows, row_key, config.batch_size, len(domain.images)))
        if distilled:
            return consistency_distillation_loss(
                denoise, params, mean, teacher, taught, images, prompts, loss_key, levels=levels
            )
        if config.model.kind == "consistency":
            gap = ect_gap(step, config.num_steps, settings.stages)
            return ect_loss(denoise, params, images, prompts, loss_key, gap=gap, most=config.model.most)
        return denoising_loss(denoise, params, images, prompts, loss_key, sigma_data=SIGMA_DATA)

    init = domain.init if diffusion is None else lambda key: diffusion
    return Pretraining(init, loss, ((domain.images, domain.prompts), diffusion if distilled else ()), evaluate)


def part_pretraining(config: ConfigDict, kind: str) -> Pretraining:
    """A network beside the generator of emoji; a batch is of different prompts, each in one of its styles."""
    data, part = load_emoji(), PARTS[kind](load_emoji())
    by_prompt = np.stack([data.pixels[data.prompts == prompt] for prompt in range(len(data.names))])
    prompts, styles = by_prompt.shape[:2]
    if config.batch_size > prompts:
        raise ValueError(f"batch_size={config.batch_size}: a batch is of different prompts, of which are {prompts}")

    def loss(
        params: PyTree, mean: PyTree, step: jax.Array, data: PyTree, key: Key
    ) -> tuple[jax.Array, Metrics]:
        del mean, step
        prompt_key, style_key, augment_key, loss_key = jax.random.split(key, 4)
        drawn = jax.random.permutation(prompt_key, prompts)[: config.batch_size]
        images = data[drawn, jax.random.randint(style_key, drawn.shape, 0, styles)]
        images = shard_batch(augmented(images, augment_key, SHIFT))
        return part.loss(params, images, drawn, loss_key)

    measure = jax.jit(jax.vmap(part.measure))
    return Pretraining(part.init, loss, by_prompt, lambda state, key: measure(state.params["model"]))


def pretraining_program(config: ConfigDict, pretraining: Pretraining) -> Program:
    """`target_params` are the exponential mean of the parameters, which is what is kept."""
    settings = config.pretraining
    learning_rate = settings.learning_rate
    if settings.decay:
        learning_rate = optax.cosine_decay_schedule(learning_rate, config.num_steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.radam(learning_rate))

    def init(key: Key) -> TrainState:
        params = pretraining.init(key)
        return TrainState.create(
            {"model": params}, {"model": tx.init(params)}, target_params={"model": jax.tree.map(jnp.copy, params)}
        )

    def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        gradient, info = jax.grad(pretraining.loss, has_aux=True)(
            state.params["model"], state.target_params["model"], state.step, data, key
        )
        updates, opt_state = tx.update(gradient, state.opt_state["model"], state.params["model"])
        params = optax.apply_updates(state.params["model"], updates)
        decay = jnp.minimum(settings.ema, (1.0 + state.step) / (10.0 + state.step))  # forgets the first steps soon
        mean = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.target_params["model"], params)
        return state.replace(
            params={"model": params}, opt_state={"model": opt_state}, target_params={"model": mean}
        ), info

    def evaluate(state: TrainState, key: Key) -> dict[str, Any]:
        return pretraining.evaluate(state.replace(params=state.target_params), key)

    return Program(init, step, Resident(pretraining.data), evaluate)
