"""Policy gradient on a multistep sampler: RLCM and DDPO, which differ in their sampler alone.

Oertell et al. 2024 (RLCM), arXiv 2404.03673; Black et al. 2023 (DDPO), arXiv 2305.13301. A batch of images is sampled
and rewarded, the rewards become advantages by running statistics of their prompts, and the clipped policy-gradient loss
over all steps of all images is minimised. The defaults are those of the authors' code: log-densities are means over an
image's numbers, and a batch makes one optimiser step, so that ratios are 1 and the clip does not act.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.generative.policy import Sampler, Trajectory, kl_to_reference, log_prob, taken
from rl_jax.losses.advantages import PromptStatistics, per_prompt_advantages
from rl_jax.losses.policy_gradient import policy_gradient_loss
from rl_jax.networks.trained import Networks, Trained


class Rewarded(NamedTuple):
    """The trajectories of B images with their rewards.

    Attributes:
      states, actions: [B, H, ...].
      log_probs: [B, H], of the actions under the policy that sampled them.
      num_calls: int32 [B], of each image; steps that it did not take do not count.
      prompts: int32 [B], indices of the prompts.
      condition: the model's condition, leaves [B, ...].
      rewards: float32 [B].
    """

    states: jax.Array
    actions: jax.Array
    log_probs: jax.Array
    num_calls: jax.Array
    prompts: jax.Array
    condition: PyTree
    rewards: jax.Array

    @classmethod
    def of(cls, trajectory: Trajectory, prompts: jax.Array, condition: PyTree, rewards: jax.Array) -> "Rewarded":
        """Joins a trajectory, whose leaves are [H, B, ...], with its rewards."""
        steps = (x.swapaxes(0, 1) for x in (trajectory.states, trajectory.actions, trajectory.log_probs))
        return cls(*steps, trajectory.num_calls, prompts, condition, rewards)


class FineTuning(NamedTuple):
    """A trainer of samplers.

    Attributes:
      init: parameters of a pretrained model -> TrainState, which holds a copy of them.
      update: (state, Rewarded, key, reference=None) -> (state, metrics); the reference, parameters of the pretrained
        model, is needed where `kl_coefficient` is not 0.
    """

    init: Callable[[PyTree], TrainState]
    update: Callable[..., tuple[TrainState, Metrics]]


def fine_tuning(config: ConfigDict, sampler: Sampler, num_prompts: int) -> FineTuning:
    """Makes the trainer of RLCM or DDPO, by the sampler; `config` as `default_config`.

    Raises:
      ValueError: the objective is unknown; later, in `update`, the batch does not divide into chunks or there is no
        reference for the KL term.
    """
    if config.objective not in ("policy_gradient", "reward_weighted"):
        raise ValueError(f"objective is {config.objective!r}: choose policy_gradient or reward_weighted")
    learning_rate = config.learning_rate
    if config.decay_steps:
        learning_rate = optax.linear_schedule(learning_rate, 0.0, config.decay_steps)
    tx = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(learning_rate))
    networks = Networks({"model": Trained(lambda key, params: jax.tree.map(jnp.copy, params), tx)})

    def init(params: PyTree) -> TrainState:
        statistics = PromptStatistics.empty(num_prompts, config.tracker_size)
        return networks.init(jax.random.key(0), {"model": (params,)}, {"statistics": statistics})

    def loss(params: PyTree, reference: PyTree, rows: Any) -> tuple[jax.Array, Metrics]:
        """The loss of N steps, which may be of any image and time."""
        states, actions, old_log_prob, steps, num_calls, condition, advantages = rows
        log_probs = log_prob(sampler, params, states, actions, steps, condition, num_calls)
        mask = taken(sampler, steps, num_calls).astype(jnp.float32)
        total, info = policy_gradient_loss(
            log_probs, old_log_prob, advantages, mask, clip_low=config.clip, clip_high=config.clip,
            aggregation=float(len(mask)),  # a mean over the steps taken would weigh them by chunks
        )
        if config.objective == "reward_weighted":
            # DDPO, section 4.2: the log-likelihood weighted by exp(A / temperature), normalised to a mean of 1.
            total = -jnp.sum(jax.nn.softmax(advantages / config.temperature) * mask * log_probs)
        if config.kl_coefficient:
            divergence = kl_to_reference(sampler, params, reference, states, steps, condition, num_calls)
            divergence = jnp.mean(mask * divergence)
            total, info = total + config.kl_coefficient * divergence, info | {"actor/kl": divergence}
        return total, info

    def update(
        state: TrainState, batch: Rewarded, key: Key, reference: PyTree | None = None
    ) -> tuple[TrainState, Metrics]:
        if config.kl_coefficient and reference is None:
            raise ValueError(f"kl_coefficient={config.kl_coefficient} needs the reference, the pretrained parameters")
        statistics, advantages = per_prompt_advantages(
            state.extra["statistics"], batch.prompts, batch.rewards,
            min_count=config.tracker_min_count, clip=config.advantage_clip,
        )
        size, horizon = batch.log_probs.shape
        chunk = min(config.chunk_size, horizon * size)
        if horizon * size % (config.updates_per_epoch * chunk):
            raise ValueError(
                f"{horizon} steps of {size} images do not divide into updates_per_epoch={config.updates_per_epoch} "
                f"times chunk_size={chunk}: change one"
            )
        at_all_times = lambda x: jnp.repeat(x[:, None], horizon, 1)  # noqa: E731
        steps = jnp.broadcast_to(jnp.arange(horizon), (size, horizon))
        rows = (
            batch.states, batch.actions, batch.log_probs, steps,
            *jax.tree.map(at_all_times, (batch.num_calls, batch.condition, advantages)),
        )
        rows = jax.tree.map(lambda x: x.reshape(horizon * size, *x.shape[2:]), rows)

        def accumulate(params: PyTree, chunks: Any) -> tuple[PyTree, Metrics]:
            """Returns the gradient over all chunks [C, N, ...], of which one at a time is in memory."""

            def one(total: PyTree, chunk: Any) -> tuple[PyTree, Metrics]:
                gradient, info = jax.grad(loss, has_aux=True)(params, reference, chunk)
                return jax.tree.map(jnp.add, total, gradient), info

            total, infos = jax.lax.scan(one, jax.tree.map(jnp.zeros_like, params), chunks)
            number = len(jax.tree.leaves(chunks)[0])
            return jax.tree.map(lambda x: x / number, total), jax.tree.map(jnp.mean, infos)

        def one_step(state: TrainState, order: jax.Array) -> tuple[TrainState, Metrics]:
            gradient, info = accumulate(state.params["model"], jax.tree.map(lambda x: x[order], rows))
            state, norms = networks.apply_gradient(state, "model", gradient)
            return state, info | norms

        def one_epoch(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
            order = jax.random.permutation(key, horizon * size)
            return jax.lax.scan(one_step, state, order.reshape(config.updates_per_epoch, -1, chunk))

        state = state.replace(extra={"statistics": statistics})
        state, infos = jax.lax.scan(one_epoch, state, jax.random.split(key, config.num_epochs))
        return state, jax.tree.map(jnp.mean, infos) | {
            "reward/mean": jnp.mean(batch.rewards), "reward/std": jnp.std(batch.rewards),
            "advantages/std": jnp.std(advantages),
        }

    return FineTuning(init, update)


def default_config() -> ConfigDict:
    """The authors' settings, except the learning rate and the sizes, which depend on the model."""
    return ConfigDict(
        {
            "objective": "policy_gradient",  # or "reward_weighted"
            "temperature": 1.0,  # of the weights exp(advantage / temperature)
            "learning_rate": 1e-4,
            "decay_steps": 0,  # optimiser steps over which the learning rate falls linearly to 0; 0 keeps it
            "clip": 1e-4,  # of ratios of mean log-densities
            "advantage_clip": 10.0,
            "tracker_size": 32,  # rewards that the running statistics of a prompt remember
            "tracker_min_count": 16,  # a prompt with fewer rewards is normalised by the statistics of the batch
            "num_epochs": 1,  # passes over a batch
            "updates_per_epoch": 1,
            "chunk_size": 256,  # steps whose gradient is in memory at once; divides the steps of an update
            "max_grad_norm": 5.0,
            "kl_coefficient": 0.0,  # of the KL divergence from the pretrained model
        }
    )
