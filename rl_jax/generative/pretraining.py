"""Supervised training of the model that reinforcement learning starts from, and of the networks beside it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluate, Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.generative.consistency import (
    SIGMA_DATA,
    SIGMA_MIN,
    consistency_distillation_loss,
    ect_gap,
    ect_loss,
)
from rl_jax.generative.denoising import denoising_loss, karras_levels
from rl_jax.generative.domain import Domain
from rl_jax.networks.trained import Networks, Trained

METHODS = ("tune", "distill")
OPTIMISERS = {"radam": optax.radam, "adam": optax.adam}
GRID = 18  # noise levels of a distillation, as in Consistency Models


class Pretraining(NamedTuple):
    """What is trained, on which data.

    Attributes:
      init: (key, resident) -> params.
      loss: (params, their moving average, step, resident, key) -> (loss, metrics); it draws its batch from the data.
      evaluate: (state of all runs whose parameters are the moving averages, resident, key) -> Evaluation.
      resident: the data, and the weights of other networks that the loss or the evaluation needs.
    """

    init: Callable[[Key, PyTree], PyTree]
    loss: Callable[[PyTree, PyTree, jax.Array, PyTree, Key], tuple[jax.Array, Metrics]]
    evaluate: Evaluate
    resident: PyTree


def default_config() -> ConfigDict:
    """The settings of the emoji's and the digits' generators."""
    return ConfigDict(
        {
            "method": "tune",  # of a consistency model: "tune" (ECT), or "distill" (CD) from a diffusion model
            "optimiser": "radam",  # or "adam"
            "learning_rate": 1e-3,
            "max_grad_norm": 1.0,
            "decay": False,  # whether the learning rate falls to 0 along a cosine
            "stages": 5,  # of ECT's gap, see consistency.ect_gap
            "ema": 0.999,  # decay of the moving average of the parameters, which is what is kept
            "from_diffusion": False,  # whether a consistency model starts from the diffusion model of its domain
        }
    )


def generator_pretraining(
    config: ConfigDict, domain: Domain, diffusion: PyTree | None, evaluate: Evaluate
) -> Pretraining:
    """Trains a diffusion model by denoising, or a consistency model by ECT or by distillation.

    Args:
      diffusion: parameters of a diffusion model to start from, which is also the teacher of a distillation; or None.

    Raises:
      ValueError: the method or the kind of model is unknown, or a distillation has no teacher.
    """
    denoise, settings = domain.denoise(config.model.kind), config.pretraining
    if settings.method not in METHODS:
        raise ValueError(unknown("config.pretraining.method", settings.method, METHODS))
    distilled = config.model.kind == "consistency" and settings.method == "distill"
    if distilled and diffusion is None:
        raise ValueError("a distillation has a diffusion model as its teacher: set pretraining.from_diffusion")
    teacher, levels = domain.denoise("diffusion"), karras_levels(GRID, SIGMA_MIN, config.model.sigma_max)

    def init(key: Key, resident: PyTree) -> PyTree:
        return domain.init(key) if diffusion is None else jax.tree.map(jnp.copy, resident["diffusion"])

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        row_key, loss_key = jax.random.split(key)
        data = resident["images"], resident["prompts"]
        images, prompts = shard_batch(sample_rows(data, row_key, config.batch_size, len(domain.images)))
        if distilled:
            return consistency_distillation_loss(
                denoise, params, mean, teacher, resident["diffusion"], images, prompts, loss_key, levels=levels
            )
        if config.model.kind == "consistency":
            gap = ect_gap(step, config.num_steps, settings.stages)
            return ect_loss(denoise, params, images, prompts, loss_key, gap=gap, sigma_max=config.model.sigma_max)
        return denoising_loss(denoise, params, images, prompts, loss_key, sigma_data=SIGMA_DATA)

    resident = {"images": domain.images, "prompts": domain.prompts, "frozen": domain.frozen}
    return Pretraining(init, loss, evaluate, resident if diffusion is None else resident | {"diffusion": diffusion})


def pretraining_program(config: ConfigDict, pretraining: Pretraining) -> Program:
    """Trains one network, "model"; `target_params` hold the moving average of its parameters, which is what is kept."""
    settings = config.pretraining
    if settings.optimiser not in OPTIMISERS:
        raise ValueError(unknown("config.pretraining.optimiser", settings.optimiser, OPTIMISERS))
    learning_rate = settings.learning_rate
    if settings.decay:
        learning_rate = optax.cosine_decay_schedule(learning_rate, config.num_steps)
    tx = optax.chain(optax.clip_by_global_norm(settings.max_grad_norm), OPTIMISERS[settings.optimiser](learning_rate))

    def tau(step: jax.Array) -> jax.Array:
        """The share of the new parameters in the average, which forgets the first steps soon."""
        return 1.0 - jnp.minimum(settings.ema, (1.0 + step) / (10.0 + step))

    networks = Networks({"model": Trained(pretraining.init, tx, tau)})

    def init(key: Key, resident: PyTree) -> TrainState:
        return networks.init(key, {"model": (resident,)})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        state, metrics = networks.step(
            state, "model", pretraining.loss, state.target_params["model"], state.step, resident, key
        )
        return networks.follow(state), metrics

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        return pretraining.evaluate(state.replace(params=state.target_params), resident, key)

    return Program(init, step, evaluate, pretraining.resident)
