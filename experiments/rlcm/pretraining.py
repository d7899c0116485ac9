"""Pretrains the model that reinforcement learning starts from: a consistency model, or the denoiser of DDPO."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from experiments.rlcm.domain import Domain
from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, PyTree, Resident, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.generative.consistency import SIGMA_DATA, SIGMA_MIN, ect_gap, ect_loss
from rl_jax.generative.denoising import Denoise, denoising_loss, scaled

KINDS = ("consistency", "diffusion")
CHECKPOINTS = Path(__file__).parent / "checkpoints"


def denoise_of(kind: str, domain: Domain) -> Denoise:
    """The model of a kind: a consistency function, which is the identity at SIGMA_MIN, or a denoiser."""
    if kind not in KINDS:
        raise ValueError(unknown("model.kind", kind, KINDS))
    return scaled(domain.network, SIGMA_DATA, SIGMA_MIN if kind == "consistency" else 0.0)


def pretraining_program(config: ConfigDict, domain: Domain) -> Program:
    """ECT or denoising; `target_params` are the exponential mean of the parameters, which is what is kept."""
    denoise, settings = denoise_of(config.model.kind, domain), config.pretraining
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.radam(settings.learning_rate))

    def init(key: Key) -> TrainState:
        example = jnp.asarray(domain.images[:1])
        params = domain.module.init(key, example, jnp.zeros(1), jnp.zeros(1, jnp.int32))
        return TrainState.create(
            {"model": params}, {"model": tx.init(params)}, target_params={"model": jax.tree.map(jnp.copy, params)}
        )

    def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        row_key, loss_key = jax.random.split(key)
        rows = sample_rows(data, row_key, config.batch_size, len(domain.images))
        images, prompts = shard_batch(rows)

        def loss(params: PyTree) -> tuple[jax.Array, Metrics]:
            if config.model.kind == "consistency":
                gap = ect_gap(state.step, config.num_steps, settings.stages)
                return ect_loss(denoise, params, images, prompts, loss_key, gap=gap, most=config.model.most)
            return denoising_loss(denoise, params, images, prompts, loss_key, sigma_data=SIGMA_DATA)

        gradient, info = jax.grad(loss, has_aux=True)(state.params["model"])
        updates, opt_state = tx.update(gradient, state.opt_state["model"], state.params["model"])
        params = optax.apply_updates(state.params["model"], updates)
        decay = jnp.minimum(settings.ema, (1.0 + state.step) / (10.0 + state.step))  # forgets the first steps soon
        mean = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.target_params["model"], params)
        return state.replace(
            params={"model": params}, opt_state={"model": opt_state}, target_params={"model": mean}
        ), info

    return Program(init, step, Resident((domain.images, domain.prompts)))


def save_model(path: Path, params: PyTree, **described: Any) -> None:
    """Writes parameters as float16, with what they are; a file of that name is replaced as a whole."""
    arrays = {"/".join(name): np.asarray(value, np.float16) for name, value in flatten_dict(params).items()}
    arrays |= {f"_{name}": np.asarray(value) for name, value in described.items()}
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "wb") as file:
        np.savez_compressed(file, **arrays)
    unfinished.replace(path)


def load_model(path: Path, kind: str, domain_name: str, domain: Domain) -> PyTree:
    """The float32 parameters of a file that `save_model` wrote.

    Raises:
      FileNotFoundError or ValueError: the message names the file, what is missing or does not fit, and the remedy.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model: make one with the preset pretrain of configs/rlcm.py")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    described = {name: str(arrays.pop(f"_{name}", "")) for name in ("kind", "domain")}
    if described != {"kind": kind, "domain": domain_name}:
        raise ValueError(f"{path}: it is a model {described}, and {kind} of {domain_name} is asked for")
    example = jnp.asarray(domain.images[:1])
    shapes = jax.eval_shape(domain.module.init, jax.random.key(0), example, jnp.zeros(1), jnp.zeros(1, jnp.int32))
    wanted = {"/".join(name): value.shape for name, value in flatten_dict(shapes).items()}
    for name in sorted(wanted.keys() | arrays.keys()):
        found = arrays[name].shape if name in arrays else None
        if found != wanted.get(name):
            raise ValueError(f"{path}: {name} is {found} and the network's {wanted.get(name)}: pretrain it again")
    return unflatten_dict({tuple(name.split("/")): jnp.asarray(value, jnp.float32) for name, value in arrays.items()})
