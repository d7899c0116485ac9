"""Models of dynamics and of rewards that are fitted to steps of an environment: SINDy's ensembles, ensembles of
networks, as the same three functions."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.envs.surrogate import World
from rl_jax.losses.sparse_regression import (
    Ensemble,
    control_affine,
    ensemble_stlsq,
    features,
    inclusion,
    monomials,
    spread,
)

KINDS = ("sindy", "network")


class Rows(NamedTuple):
    """Steps of an environment, leaves [N, ...].

    Attributes:
      observations, actions, next_observations: [N, O], [N, A] in [-1, 1], [N, O].
      rewards: [N].
      valid: [N] bool; rows that are not may hold anything.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_observations: jax.Array
    valid: jax.Array


class Dynamics(NamedTuple):
    """A model of what a step leads to.

    Attributes:
      init: key -> what fitting changes.
      fit: (model, rows, key) -> (model, metrics).
      predict: (model, observations [..., O], actions [..., A]) -> next observations [..., O].
    """

    init: Callable[[Key], PyTree]
    fit: Callable[[PyTree, Rows, Key], tuple[PyTree, Metrics]]
    predict: Callable[[PyTree, jax.Array, jax.Array], jax.Array]


def make_dynamics(config: ConfigDict, world: World) -> Dynamics:
    """The model of `config.kind`; it predicts the next observation itself, or its difference from the one before.

    Raises:
      ValueError: an unknown kind, or something else to predict.
    """
    if config.kind not in KINDS:
        raise ValueError(unknown("config.model.kind", config.kind, KINDS))
    if config.predict not in ("next", "difference"):
        raise ValueError(f"config.model.predict={config.predict!r}: choose next or difference")
    return (sindy_dynamics if config.kind == "sindy" else network_dynamics)(config, world)


# SINDy


def sindy_terms(config: ConfigDict, world: World) -> tuple[tuple[int, ...], ...]:
    """The dictionary of the dynamics."""
    return control_affine(len(world.variables), len(world.actions), config.degree, mixed=config.mixed)


def sindy_dynamics(config: ConfigDict, world: World) -> Dynamics:
    """An ensemble of sparse regressions on a control-affine dictionary; every fit is anew. A model is an `Ensemble`."""
    terms, size = sindy_terms(config, world), len(world.variables)
    base = 1.0 if config.predict == "difference" else 0.0

    def init(key: Key) -> Ensemble:
        del key
        shape = len(terms), size
        return Ensemble(jnp.zeros(shape), jnp.zeros((config.members, *shape)))

    def fit(model: Ensemble, rows: Rows, key: Key) -> tuple[Ensemble, Metrics]:
        del model
        columns, targets = features(terms, rows.observations, rows.actions), rows.next_observations
        model = ensemble_stlsq(
            key, columns, targets - base * rows.observations, fitted(config, rows, world), members=config.members,
            dropped=config.dropped, combine=config.combine, threshold=config.threshold, ridge=config.ridge,
            unbias=config.unbias,
        )
        # Terms that many members vote for and the median leaves out.
        close = jnp.sum((inclusion(model.members) > 0.25) & (model.coefficients == 0.0))
        found = spread(model.members, jnp.where(rows.valid[:, None], columns, 0.0))
        return model, {
            "model/terms": jnp.sum(model.coefficients != 0.0).astype(jnp.float32),
            "model/nearly_included": close.astype(jnp.float32),
            "model/spread": jnp.sum(found) / jnp.maximum(jnp.sum(rows.valid) * size, 1),
        }

    def predict(model: Ensemble, observations: jax.Array, actions: jax.Array) -> jax.Array:
        return base * observations + features(terms, observations, actions) @ model.coefficients

    return Dynamics(init, fit, predict)


def fitted(config: ConfigDict, rows: Rows, world: World) -> jax.Array:
    """The rows that dynamics are fitted to, [N] bool: those of which neither end is in contact, or all."""
    if not config.skip_contact:
        return rows.valid
    return rows.valid & world.smooth(rows.observations) & world.smooth(rows.next_observations)


# The reward


def reward_terms(config: ConfigDict, world: World) -> tuple[tuple[int, ...], ...]:
    """The dictionary of the reward, of the next observation and the action."""
    return monomials(len(world.variables) + len(world.actions), config.reward_degree, constant=True)


def fit_reward(config: ConfigDict, world: World, rows: Rows, key: Key) -> jax.Array:
    """r = features(x', u) c, the authors' regression: coefficients [P, 1]."""
    columns = features(reward_terms(config, world), rows.next_observations, rows.actions)
    return ensemble_stlsq(
        key, columns, rows.rewards[:, None], rows.valid, members=config.members, dropped=config.dropped,
        combine=config.combine, threshold=config.reward_threshold, ridge=config.reward_ridge, unbias=config.unbias,
    ).coefficients


# Networks


class _Network(nn.Module):
    hidden_dims: tuple[int, ...]
    size: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        for width in self.hidden_dims:
            inputs = nn.tanh(nn.Dense(width)(inputs))
        return nn.Dense(self.size)(inputs)


class NetworkModel(NamedTuple):
    """K networks [K, ...] with their optimiser, and mean and deviation of inputs [2, O + A] and targets [2, O]."""

    params: PyTree
    opt_state: PyTree
    inputs: jax.Array
    targets: jax.Array


def network_dynamics(config: ConfigDict, world: World) -> Dynamics:
    """The mean of K networks, each from its own start and on its own minibatches; a fit goes on from the one before.
    Inputs and targets are standardised by the rows."""
    size, width = len(world.variables), len(world.variables) + len(world.actions)
    network, tx = _Network(tuple(config.hidden_dims), size), optax.adam(config.learning_rate)
    base = 1.0 if config.predict == "difference" else 0.0

    def init(key: Key) -> NetworkModel:
        params = jax.vmap(lambda key: network.init(key, jnp.zeros(width)))(jax.random.split(key, config.networks))
        units = [jnp.stack([jnp.zeros(n), jnp.ones(n)]) for n in (width, size)]
        return NetworkModel(params, jax.vmap(tx.init)(params), *units)

    def fit(model: NetworkModel, rows: Rows, key: Key) -> tuple[NetworkModel, Metrics]:
        valid = fitted(config, rows, world)
        inputs = jnp.concatenate([rows.observations, rows.actions], -1)
        targets = rows.next_observations - base * rows.observations
        inputs, targets = (jnp.where(valid[:, None], x, 0.0) for x in (inputs, targets))
        units = [_mean_and_deviation(x, valid) for x in (inputs, targets)]
        inputs, targets = ((x - unit[0]) / unit[1] for x, unit in zip((inputs, targets), units, strict=True))
        order, count = jnp.argsort(~valid, stable=True), jnp.sum(valid)

        def loss(params: PyTree, inputs: jax.Array, targets: jax.Array) -> jax.Array:
            return jnp.mean(jnp.square(network.apply(params, inputs) - targets))

        def of_one(params: PyTree, opt_state: PyTree, rows: jax.Array) -> tuple[PyTree, PyTree, jax.Array]:
            error, gradient = jax.value_and_grad(loss)(params, inputs[rows], targets[rows])
            updates, opt_state = tx.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, error

        def update(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], jax.Array]:
            drawn = order[jax.random.randint(key, (config.networks, config.batch_size), 0, count)]
            *carry, error = jax.vmap(of_one)(*carry, drawn)
            return tuple(carry), jnp.mean(error)

        keys = jax.random.split(key, config.updates)
        (params, opt_state), errors = jax.lax.scan(update, (model.params, model.opt_state), keys)
        return NetworkModel(params, opt_state, *units), {"model/loss": errors[-1]}

    def predict(model: NetworkModel, observations: jax.Array, actions: jax.Array) -> jax.Array:
        inputs = (jnp.concatenate([observations, actions], -1) - model.inputs[0]) / model.inputs[1]
        found = jnp.mean(jax.vmap(lambda params: network.apply(params, inputs))(model.params), 0)
        return base * observations + model.targets[0] + model.targets[1] * found

    return Dynamics(init, fit, predict)


def _mean_and_deviation(x: jax.Array, valid: jax.Array) -> jax.Array:
    share = valid[:, None] / jnp.maximum(jnp.sum(valid), 1)
    mean = jnp.sum(share * x, 0)
    return jnp.stack([mean, jnp.sqrt(jnp.sum(share * jnp.square(x - mean), 0)) + 1e-6])


def default_config() -> ConfigDict:
    """The authors' settings for the cart-pole swing-up, by their code's configurations."""
    return ConfigDict(
        {
            "kind": "sindy",  # or "network"
            "predict": "next",  # or "difference": the threshold is then of differences
            "skip_contact": True,  # whether steps in contact, such as at the end of a rail, are left out of fits
            "degree": 2,
            "mixed": True,  # products of different observations
            "threshold": 7e-3,
            "ridge": 5e-5,
            "members": 20,
            "dropped": 1,  # terms that a member goes without
            "combine": "median",  # or "mean"
            "unbias": True,  # the support is fitted once more without ridge
            "reward_degree": 2,
            "reward_threshold": 1e-4,
            "reward_ridge": 1e-5,
            "networks": 5,
            "hidden_dims": (64, 64),
            "learning_rate": 1e-3,
            "updates": 1000,  # of every network at a fit
            "batch_size": 256,
        }
    )
