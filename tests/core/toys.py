"""A regression program of a few lines, for the tests of the core."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rl_jax.core.config import core_config
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Program, TrainState

OPTIMIZER = optax.adam(1e-2)


def make_data():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1, keepdims=True)}


def init(key, resident):
    del resident
    params = {"net": {"kernel": jax.random.normal(key, (4, 16)), "out": jnp.zeros((16, 1))}}
    return TrainState.create(params, OPTIMIZER.init(params))


def step(state, data, batch, key):
    del batch
    rows = jax.random.randint(key, (16,), 0, 64)
    batch = shard_batch({name: column[rows] for name, column in data.items()})

    def loss_fn(params):
        predicted = jnp.tanh(batch["x"] @ params["net"]["kernel"]) @ params["net"]["out"]
        return jnp.mean((predicted - batch["y"]) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state)
    return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state), {"loss": loss}


def program(**parts):
    return Program(init, step, resident=make_data())._replace(**parts)


def experiment(headline=Metric("eval/loss", "loss", "lower"), **parts):
    own = program(**parts)
    return Experiment(lambda config: own, {}, headline)


def config(**fields):
    made = core_config()
    made.update_from_flattened_dict(
        {"num_steps": 20, "loop.log_every": 10, "loop.chunk": 5, "checkpoint.every": 10, "tensorboard": False} | fields
    )
    return made
