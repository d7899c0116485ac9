"""A decoder of molecules as a policy, and REINFORCE on it as in PaccMann^RL, with what its code leaves out.

Born et al. 2021, iScience 24:102269, section Reinforcement learning; code of the authors: github.com/PaccMann,
paccmann_generator. Their update is

    -sum_t mean_b log pi(a_t | s_t) R_b

over the valid molecules of a batch, without a baseline, over all tokens with those after the first stop, of
log-probabilities at temperature 1 of tokens that were drawn at another. Each of the four is a setting here.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.generative.policy import Trajectory
from rl_jax.losses.advantages import leave_one_out_advantages
from rl_jax.losses.policy_gradient import entropy_loss, policy_gradient_loss
from rl_jax.networks.trained import Networks, Trained
from rl_jax.science.molecule_vae import MoleculeConfig, MoleculeVAE, hidden_units
from rl_jax.science.molecules import START, STOP

BASELINES = ("none", "moving_average", "leave_one_out")
DECODER = ("decoder", "first", "logits")  # the networks that write; the encoder is not trained


class Written(NamedTuple):
    """B molecules that were written and rewarded, those of one target side by side.

    Attributes:
      states, actions: int32 [B, T], the token before and the token written.
      log_probs: float32 [B, T], of the actions at the temperature they were drawn at.
      latents: float32 [B, L], what the decoder was given.
      rewards: float32 [B].
      valid: float32 [B], 1 where the tokens are a molecule.
    """

    states: jax.Array
    actions: jax.Array
    log_probs: jax.Array
    latents: jax.Array
    rewards: jax.Array
    valid: jax.Array


def sample(
    config: MoleculeConfig, params: PyTree, latents: jax.Array, length: int, temperature: float, key: Key
) -> Trajectory:
    """Writes `length` tokens from each latent [B, L]; what follows the first stop counts nowhere but in `until_stop`.

    Leaves of states, actions and log_probs are [T, B]; final is the tokens, int32 [B, T].
    """
    module = MoleculeVAE(config)

    def one(carry: tuple, key: Key) -> tuple[tuple, tuple]:
        carry, tokens = carry
        carry, hidden = module.apply({"params": params}, carry, tokens, latents, method="write")
        logits = module.apply({"params": params}, hidden, method="head") / temperature
        actions = jax.random.categorical(key, logits).astype(jnp.int32)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], 1)[:, 0]
        return (carry, actions), (tokens, actions, log_probs)

    start = module.apply({"params": params}, latents, method="start")
    first = jnp.full(len(latents), START, jnp.int32)
    _, (states, actions, log_probs) = jax.lax.scan(one, (start, first), jax.random.split(key, length))
    return Trajectory(states, actions, log_probs, actions.T)


def log_prob(
    config: MoleculeConfig, params: PyTree, latents: jax.Array, states: jax.Array, actions: jax.Array,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of actions [B, T] in states [B, T], and the entropies there, both [B, T], at a temperature."""
    hidden = hidden_units(config, params, latents, states)
    log_probs = jax.nn.log_softmax(MoleculeVAE(config).apply({"params": params}, hidden, method="head") / temperature)
    entropies = -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
    return jnp.take_along_axis(log_probs, actions[..., None], -1)[..., 0], entropies


def until_stop(actions: jax.Array) -> jax.Array:
    """1 for the tokens up to and with the first stop, float32 [B, T] of int32 [B, T]."""
    stopped = jnp.cumsum(actions == STOP, -1) - (actions == STOP)
    return (stopped == 0).astype(jnp.float32)


class Reinforce(NamedTuple):
    """REINFORCE on a decoder.

    Attributes:
      init: parameters of a generator -> TrainState, with a copy of its decoder.
      update: (state, Written, group) -> (state, metrics), `group` being the number of molecules a target.
    """

    init: Callable[[PyTree], TrainState]
    update: Callable[[TrainState, Written, int], tuple[TrainState, Metrics]]


def reinforce(config: ConfigDict, shape: MoleculeConfig) -> Reinforce:
    """Makes the trainer; `config` as `default_config`.

    Raises:
      ValueError: the baseline is unknown.
    """
    if config.baseline not in BASELINES:
        raise ValueError(unknown("config.policy.baseline", config.baseline, BASELINES))
    # As in PyTorch's Adam, the decay is part of the gradient.
    tx = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.add_decayed_weights(config.weight_decay),
        optax.adam(config.learning_rate),
    )
    copied = lambda key, params: {name: jax.tree.map(jnp.copy, params[name]) for name in DECODER}  # noqa: E731
    networks = Networks({"model": Trained(copied, tx)})

    def init(params: PyTree) -> TrainState:
        extra = {"baseline": jnp.zeros(()), "seen": jnp.zeros(())}
        return networks.init(jax.random.key(0), {"model": (params,)}, extra)

    def loss(params: PyTree, batch: Written, advantages: jax.Array, counted: jax.Array) -> tuple[jax.Array, Metrics]:
        temperature = config.temperature if config.match_temperature else 1.0
        log_probs, entropies = log_prob(shape, params, batch.latents, batch.states, batch.actions, temperature)
        tokens = until_stop(batch.actions) if config.mask_after_stop else jnp.ones_like(log_probs)
        mask, number = tokens * counted[:, None], jnp.maximum(jnp.sum(counted), 1.0)
        # One update a batch: the ratio is 1, and its gradient that of log pi.
        total, info = policy_gradient_loss(
            log_probs, jax.lax.stop_gradient(log_probs), jnp.broadcast_to(advantages[:, None], log_probs.shape), mask,
            clip_low=jnp.inf, clip_high=jnp.inf, aggregation=number,
        )
        uncertain, entropy = entropy_loss(entropies, mask)
        drift = jnp.sum(jnp.abs(log_probs - batch.log_probs) * mask) / jnp.maximum(jnp.sum(mask), 1.0)
        return total + config.entropy_coefficient * uncertain, {
            "actor/loss": info["actor/loss"], **entropy, "actor/off_policy": drift,
            "actor/tokens": jnp.sum(until_stop(batch.actions)) / len(log_probs),
        }

    def update(state: TrainState, batch: Written, group: int) -> tuple[TrainState, Metrics]:
        chex.assert_equal_shape([batch.rewards, batch.valid])
        # Without drop_invalid what is no molecule has the reward 0 and counts.
        counted = batch.valid if config.drop_invalid else jnp.ones_like(batch.valid)
        rewards = batch.rewards * batch.valid
        mean = jnp.sum(rewards * counted) / jnp.maximum(jnp.sum(counted), 1.0)
        seen, average = state.extra["seen"], state.extra["baseline"]
        if config.baseline == "leave_one_out":
            own = leave_one_out_advantages(rewards.reshape(-1, group), counted.reshape(-1, group) > 0)
            advantages = own.reshape(-1)
        else:
            before = jnp.where(seen > 0, average, mean)
            advantages = rewards - (before if config.baseline == "moving_average" else 0.0)
        average = jnp.where(seen > 0, config.baseline_decay * average + (1.0 - config.baseline_decay) * mean, mean)
        state, metrics = networks.step(state, "model", loss, batch, advantages, counted)
        state = state.replace(extra={"baseline": average, "seen": seen + 1.0})
        return state, metrics | {"reward/mean": mean, "reward/valid": jnp.mean(batch.valid)}

    return Reinforce(init, update)


def default_config() -> ConfigDict:
    """Ours; the authors' choices beside."""
    return ConfigDict(
        {
            "learning_rate": 3e-4,
            "weight_decay": 1e-5,
            "max_grad_norm": 0.1,
            "temperature": 1.0,  # of sampling; authors 0.7 and 1.4
            "match_temperature": True,  # whether the loss takes log-probabilities at that temperature; authors not
            "mask_after_stop": True,  # authors not
            "baseline": "leave_one_out",  # among the molecules of a target; "moving_average" or "none", as the authors
            "baseline_decay": 0.9,
            "drop_invalid": False,  # authors: what is no molecule counts nowhere
            "entropy_coefficient": 0.0,
        }
    )
