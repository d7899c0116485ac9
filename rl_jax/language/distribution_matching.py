"""Fits a decoder to a target distribution over texts, pi0(x) exp(potential(x)) / Z, by policy gradients.

One step samples x, weighs each by how it should become more or less likely, and follows E[A(x) grad log pi(x)]; the
methods differ in A alone (losses/distribution_matching.py):

  reward       r less the others' mean: reinforcement learning without a KL penalty, which collapses.
  adaptive_kl  r - beta (log pi - log pi0) with the coefficient that holds KL(pi || pi0) at `kl_target` (Ziegler et al.
               2019, arXiv 1909.08593): with one update a batch PPO's ratio is 1 and its clip never acts.
  reverse_kl   KL(pi || p): KL-regularised reinforcement learning, over beta.
  kl           KL(p || pi), on-policy with its baseline: P / (Z pi) - 1 (GDC++).
  dpg          the same without a baseline (GDC).
  off_policy   KL(p || pi) from a proposal, which is replaced when the policy has come nearer to p.
  total_variation, jensen_shannon and the other names of losses/divergence.py: f-DPG.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import Evaluate, Key, Metrics, Program, PyTree, TrainState
from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel
from rl_jax.language.sampler import Sampling, generate
from rl_jax.language.scoring import answer_log_probs, token_log_probs
from rl_jax.losses.advantages import leave_one_out_advantages
from rl_jax.losses.distribution_matching import (
    kl_by_importance,
    log_partition,
    off_policy_weights,
    pseudo_rewards,
)
from rl_jax.losses.divergence import DIVERGENCES
from rl_jax.losses.kl import next_coefficient
from rl_jax.networks.trained import Networks, Trained, when

METHODS = ("reward", "adaptive_kl", "dpg", "off_policy", *DIVERGENCES)
NO_TEXT = -1e30  # log Z while no text has kept the constraint: finite, so that log p of the others is -inf and not NaN
OfTexts = Callable[[jax.Array], jax.Array]  # the tokens after the first one [B, L] -> [B]


class Target(NamedTuple):
    """What is wanted of a text.

    Attributes:
      potential: log P - log pi0: r / beta, the logarithm of a constraint (-inf where it is broken), or lambda . phi.
      reward: r, or 1 where a constraint holds.
    """

    potential: OfTexts
    reward: OfTexts


def default_config() -> ConfigDict:
    """The settings of the enumerable targets; GDC's own are batches of 512 to 2048 at a learning rate of 1.41e-5."""
    return ConfigDict(
        {
            "method": "reverse_kl",
            "learning_rate": 3e-3,
            "decay_steps": 0,  # after which a cosine has brought it to 0; 0 for a constant one
            "samples": 256,  # of a step
            "length": 6,  # tokens of a text
            "proposal_interval": 10,  # steps between two looks at whether the policy is the better proposal
            "coefficient": 0.2,  # of adaptive_kl at the start
            "kl_target": 6.0,  # of adaptive_kl, nats a text
            "kl_horizon": 10_000,  # texts in which its controller corrects an error of 20%
        }
    )


def text_log_probs(shape: DecoderConfig, params: PyTree, texts: jax.Array) -> jax.Array:
    """log pi of the tokens after the first one, [B], of texts [B, 1 + L]; summed, as sequence weights need them."""
    places = jnp.broadcast_to(jnp.arange(texts.shape[1]), texts.shape)
    hidden = Decoder(shape, packed=False).apply({"params": params}, texts, places, jnp.ones_like(texts))
    log_probs, _ = token_log_probs(hidden, head_kernel(params, shape), texts)
    return answer_log_probs(log_probs, (places > 0).astype(jnp.float32))


def draw_texts(shape: DecoderConfig, params: PyTree, start: int, number: int, length: int, key: Key) -> jax.Array:
    """Texts [number, 1 + length] that begin with the token `start`, at temperature 1 and unfiltered."""
    sampling = Sampling(max_new_tokens=length)
    prompt, free = jnp.full((1, 1), start, jnp.int32), jnp.full((number, length), -1, jnp.int32)
    one = jnp.ones(1, jnp.int32)
    return generate(shape, params, prompt, one, number, sampling, key, one, free)[0].tokens


def matching_program(
    config: ConfigDict, shape: DecoderConfig, prior: PyTree, start: int, target: Target, evaluate: Evaluate
) -> Program:
    """Trains a copy of the prior towards the target; the prior is resident.

    Args:
      config: of `default_config`.
      start: the token before every text.

    Raises:
      ValueError: the method is unknown.
    """
    if config.method not in METHODS:
        raise ValueError(unknown("config.matching.method", config.method, METHODS))
    off_policy, adaptive = config.method == "off_policy", config.method == "adaptive_kl"
    schedule = config.learning_rate
    if config.decay_steps:
        schedule = optax.cosine_decay_schedule(config.learning_rate, config.decay_steps)
    networks = Networks({"policy": Trained(lambda key, prior: jax.tree.map(jnp.copy, prior), optax.adam(schedule))})

    # Losses

    def advantages(log_pi: jax.Array, log_p: jax.Array, log_q: jax.Array, rewards: jax.Array) -> jax.Array:
        if config.method in ("reward", "adaptive_kl"):
            return leave_one_out_advantages(rewards)
        if config.method in ("dpg", "off_policy"):
            return off_policy_weights(log_p, log_pi, log_q, baseline=off_policy)
        return leave_one_out_advantages(pseudo_rewards(DIVERGENCES[config.method], log_pi, log_p))

    def loss(
        params: PyTree, texts: jax.Array, log_p: jax.Array, log_q: jax.Array, rewards: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        log_pi = text_log_probs(shape, params, texts)
        weights = jax.lax.stop_gradient(advantages(log_pi, log_p, log_q, rewards))
        return -jnp.mean(weights * log_pi), {"policy/advantage_std": jnp.std(weights)}

    # Update

    def init(key: Key, resident: PyTree) -> TrainState:
        extra = {"log_z": jnp.zeros(()), "estimates": jnp.zeros(())}
        if off_policy:
            extra |= {"proposal": jax.tree.map(jnp.copy, resident)}
        if adaptive:
            extra |= {"coefficient": jnp.asarray(config.coefficient, jnp.float32)}
        return networks.init(key, {"policy": (resident,)}, extra)

    def drawn(params: PyTree, resident: PyTree, key: Key) -> tuple[jax.Array, ...]:
        """(texts, their log q and log pi0), of the proposal with these parameters."""
        texts = draw_texts(shape, params, start, config.samples, config.length, key)
        return texts, *(text_log_probs(shape, x, texts) for x in (params, resident))

    def better_proposal(state: TrainState, resident: PyTree, key: Key) -> TrainState:
        """The policy is the next proposal where it is nearer to p, by fresh texts of the present one."""
        proposal = state.extra["proposal"]
        texts, log_q, log_prior = drawn(proposal, resident, key)
        log_p = log_prior + target.potential(texts[:, 1:]) - state.extra["log_z"]
        log_pi = text_log_probs(shape, state.params["policy"], texts)
        nearer = kl_by_importance(log_p, log_pi, log_q) < kl_by_importance(log_p, log_q, log_q)
        chosen = jax.tree.map(lambda new, old: jnp.where(nearer, new, old), state.params["policy"], proposal)
        return state.replace(extra=state.extra | {"proposal": chosen})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        sample_key, judge_key = jax.random.split(key)
        source = state.extra["proposal"] if off_policy else state.params["policy"]
        texts, log_q, log_prior = drawn(source, resident, sample_key)
        log_potential, rewards = log_prior + target.potential(texts[:, 1:]), target.reward(texts[:, 1:])
        # The running mean of all estimates of Z so far, as the authors of GDC have it.
        count = state.extra["estimates"]
        past = jnp.where(count > 0, state.extra["log_z"] + jnp.log(jnp.maximum(count, 1.0)), -jnp.inf)
        log_z = jnp.logaddexp(past, log_partition(log_potential, log_q)) - jnp.log(count + 1.0)
        log_z = jnp.maximum(log_z, NO_TEXT)
        state = state.replace(extra=state.extra | {"log_z": log_z, "estimates": count + 1.0})
        divergence = jnp.mean(log_q - log_prior)
        metrics = {"policy/log_z": log_z, "policy/reward": jnp.mean(rewards), "policy/kl_from_prior": divergence}
        if adaptive:
            coefficient = state.extra["coefficient"]
            rewards -= coefficient * (log_q - log_prior)
            coefficient = next_coefficient(
                coefficient, divergence, target=config.kl_target, horizon=config.kl_horizon, samples=config.samples
            )
            state = state.replace(extra=state.extra | {"coefficient": coefficient})
            metrics |= {"policy/kl_coefficient": coefficient}
        state, info = networks.step(state, "policy", loss, texts, log_potential - log_z, log_q, rewards)
        if off_policy:
            due = (state.step + 1) % config.proposal_interval == 0
            state, _ = when(due, lambda state: (better_proposal(state, resident, judge_key), {}), state)
        return state, info | metrics

    return Program(init, step, evaluate, prior)
