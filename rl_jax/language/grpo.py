"""Reinforcement learning from rewards of whole responses: PPO with a critic, GRPO and its kin without one.

A step samples G responses to each of some prompts, they are scored (rollouts.py), and the clipped policy gradient
follows their advantages. The methods are settings of one trainer (`METHODS`):

  ppo            generalised advantages from the values of a critic (critic.py), whitened over all tokens of the batch;
                 k1 in the reward (Schulman et al. 2017, arXiv 1707.06347; of language models Ziegler et al. 2019, arXiv
                 1909.08593).
  grpo           (r - mean) / deviation of the prompt's group; k3 in the loss (Shao et al. 2024, arXiv 2402.03300).
  dr_grpo        r - mean, and every token the same weight whatever its response's length (Liu et al. 2025, arXiv
                 2503.20783).
  rloo           r less the mean of the others, of r with k1; whole responses (Ahmadian et al. 2024, arXiv 2402.14740).
  remax          r less the reward of the most likely response to the prompt, of r with k1; whole responses (Li et al.
                 2024, arXiv 2310.10505).
  reinforce_pp   returns of r with k1, whitened over all tokens of the batch (Hu et al. 2025, arXiv 2501.03262).
  dapo           grpo with a higher upper clip, a mean over tokens, groups of equal rewards refilled, and no KL term (Yu
                 et al. 2025, arXiv 2503.14476).
  gspo           grpo with ratios of whole responses (Zheng et al. 2025, arXiv 2507.18071).

Log-probs of the sampler are never taken for those of the trainer: before the updates of a batch they are computed anew
in the shape of the update's micro-batches. How far the two are apart is logged, and corrected by truncated importance
weights, or by leaving out what they disagree about.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, PyTree, TrainState
from rl_jax.language import training
from rl_jax.language.critic import Critic, explained_variance
from rl_jax.language.decoder import DecoderConfig, head_kernel
from rl_jax.language.questions import Questions, Scores, Words
from rl_jax.language.rollouts import Anchored, Learned, rollouts
from rl_jax.language.rows import Rows, known_rows, weights
from rl_jax.language.scoring import token_log_probs
from rl_jax.language.training import DTYPES, Trainable, micro_batched, optimiser, over_parts, summed_gradient
from rl_jax.losses import advantages as of_rewards
from rl_jax.losses.importance import LEVELS, kept_mask, sequence_log_ratio, truncated_weights
from rl_jax.losses.kl import kl_penalty, next_coefficient
from rl_jax.losses.policy_gradient import policy_gradient_loss
from rl_jax.networks.trained import Networks, Trained, when

METHODS: dict[str, dict[str, Any]] = {
    "ppo": {
        "advantages": "critic", "weights": "token_mean", "kl_place": "reward", "kl_estimator": "k1",
        "kl_coefficient": 0.05, "samples": 1,
    },
    "grpo": {"kl_coefficient": 0.04},
    "dr_grpo": {"advantages": "centred", "weights": "token_sum", "kl_coefficient": 0.0},
    "rloo": {
        "advantages": "leave_one_out", "weights": "sequence_sum", "kl_place": "reward", "kl_estimator": "k1",
        "kl_coefficient": 0.05,
    },
    "remax": {
        "advantages": "greedy_baseline", "weights": "sequence_sum", "kl_place": "reward", "kl_estimator": "k1",
        "kl_coefficient": 0.05, "samples": 1,
    },
    "reinforce_pp": {
        "advantages": "whitened", "weights": "token_mean", "kl_place": "reward", "kl_estimator": "k1",
        "kl_coefficient": 0.01,
    },
    "dapo": {"weights": "token_mean", "clip_high": 0.28, "refill": 2, "kl_coefficient": 0.0},
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "kl_coefficient": 0.0},
}
OF_GROUPS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "group": of_rewards.group_advantages, "centred": of_rewards.centred_advantages,
    "leave_one_out": of_rewards.leave_one_out_advantages,
}


def default_config(method: str = "grpo") -> ConfigDict:
    """The trainer's settings, those of a method.

    Raises:
      ValueError: there is no such method.
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    config = training.default_config()
    config.samples = 8  # G, responses to a prompt
    config.max_new_tokens = 64  # of a response
    config.num_epochs = 1  # passes over a batch
    config.updates_per_epoch = 1  # parts of a batch, an optimiser step each
    config.advantages = "group"  # or another of OF_GROUPS, "greedy_baseline", "whitened", "critic"
    # Of the tokens: as language.rows.weights; or sums over a response that are divided by the number of responses,
    # "sequence_sum", or by that of tokens that they may have, "token_sum".
    config.weights = "sequence_mean"
    config.ratio = "token"  # or "sequence"
    config.clip_low, config.clip_high = 0.2, 0.2
    config.kl_coefficient = 0.0  # of the divergence from the pretrained policy
    config.kl_estimator, config.kl_place = "k3", "loss"  # losses.kl
    config.kl_control = "fixed"  # or "adaptive", which holds the divergence at:
    config.kl_target, config.kl_horizon = 6.0, 10_000  # nats a response; responses that correct an error by 20%
    config.importance_cap = 2.0  # of the weights that correct for the sampler
    config.rejection = "none"  # or "token", "sequence": what has a ratio to the sampler out of bounds teaches nothing
    config.rejection_low, config.rejection_high = 0.5, 2.0
    config.mask_truncated = False  # whether responses that were cut off teach nothing
    config.refill = 0  # most rounds of samples more in a step, in the place of groups whose rewards are all equal
    if METHODS[method].get("advantages") == "critic":
        config.discount, config.gae_lambda = 1.0, 0.95
        config.value_clip = 0.5  # in the unit of rewards
        config.critic_learning_rate = 1e-4
        config.critic_warmup = 0  # steps in which the critic learns alone
        config.critic_bounded = False  # whether values lie in (0, 1), as the probability of winning does
    config.update(METHODS[method])
    return config


def grpo_program(
    config: ConfigDict, decoder: DecoderConfig, pretrained: PyTree, words: Words, train: Questions, held_out: Questions,
    scorer: Scores | Learned | Anchored,
) -> Program:
    """Trains "policy", and "critic" where there is one, on `config.batch_size` responses a step.

    Outcomes, [S, E], of the most likely response to each held-out prompt: `score`, `length` in tokens, `truncated`.

    Args:
      config: holds `agent` (`default_config`), `curriculum` (`curriculum.default_config`), `batch_size`, `num_steps`
        and `overlap`, the batches scored ahead.
      pretrained: parameters to start from, and the anchor.
      scorer: is closed with the run.

    Raises:
      ValueError: a setting is unknown, or settings do not go together.
    """
    settings, own = config.agent, Trainable(decoder, config.agent)
    known = {
        "advantages": (*OF_GROUPS, "greedy_baseline", "whitened", "critic"), "ratio": LEVELS, "dtype": DTYPES,
        "kl_control": ("fixed", "adaptive"), "rejection": ("none", *LEVELS),
    }
    for field, values in known.items():
        if settings[field] not in values:
            raise ValueError(unknown(f"config.agent.{field}", settings[field], values))
    compared = settings.advantages in OF_GROUPS
    if settings.samples < 2 and (compared or settings.refill):
        raise ValueError(
            f"config.agent.samples={settings.samples}: groups of responses to a prompt are compared (advantages "
            f"{settings.advantages!r}, refill {settings.refill}), two or more to a prompt"
        )
    sampled = rollouts(
        config, own, pretrained, words, train, held_out, scorer, settings.advantages == "greedy_baseline"
    )
    prompts = config.batch_size // settings.samples
    cut = settings.updates_per_epoch * settings.micro_batches
    trained_networks = {"policy": Trained(own.init, optimiser(settings, config.num_steps))}
    critic = None
    if settings.advantages == "critic":
        critic = Critic(own, settings.value_clip, settings.critic_bounded)
        trained_networks["critic"] = Trained(
            critic.init, optimiser(settings, config.num_steps, settings.critic_learning_rate)
        )
    networks = Networks(trained_networks)

    # Advantages

    def scored_tokens(params: PyTree, rows: Rows) -> tuple[jax.Array, jax.Array]:
        """Log-probs and entropy [B, T], in the shape in which the loss computes them."""

        def of_part(part: Rows) -> tuple[jax.Array, jax.Array]:
            kernel = head_kernel(params, decoder)
            return token_log_probs(own.hidden(params, part), kernel, part.tokens, settings.chunk, entropy=True)

        return over_parts(of_part, rows, cut)

    def advantages_of(rows: Rows, penalty: jax.Array, baseline: jax.Array | None) -> jax.Array:
        """[B, T], of rewards and the penalty on each token; `rows.values` are a critic's."""
        if settings.advantages in ("whitened", "critic"):
            left = jnp.cumsum(rows.mask[:, ::-1], axis=1)[:, ::-1]
            rewards = rows.reward[:, None] * rows.mask * (left == 1) + penalty
            if critic is None:
                return of_rewards.whitened_advantages(of_rewards.returns_to_go(rewards, rows.mask), rows.mask)
            return of_rewards.token_generalized_advantages(
                rewards, rows.values, rows.mask, settings.discount, settings.gae_lambda
            )
        total = rows.reward + jnp.sum(penalty, axis=1)
        by_group = total.reshape(prompts, settings.samples)
        if baseline is not None:
            greedy = baseline.reshape(prompts, settings.samples)[:, 0]
            found = of_rewards.greedy_baseline_advantages(by_group, greedy)
        else:
            found = OF_GROUPS[settings.advantages](by_group, known_rows(rows.mask).reshape(by_group.shape))
        return found.reshape(-1, 1) * rows.mask

    def ready(
        rows: Rows, old: jax.Array, anchor: jax.Array, coefficient: jax.Array, baseline: jax.Array | None
    ) -> tuple[Rows, jax.Array, Metrics]:
        """The rows as the losses read them, returns [B, T] for a critic, and metrics.

        Log-probs are those of the trainer; advantages are corrected for the sampler, whose are what came.
        """
        penalty = kl_penalty(
            old, anchor, coefficient=coefficient, estimator=settings.kl_estimator, place=settings.kl_place
        ).rewards
        found = advantages_of(rows, jnp.where(rows.mask > 0, penalty, 0.0), baseline)
        returns, metrics = jnp.zeros_like(found), {}
        if critic is not None:
            returns = found + rows.values
            found = of_rewards.whitened_advantages(found, rows.mask)
            metrics["critic/explained_variance"] = explained_variance(rows.values, returns, rows.mask)
        found *= truncated_weights(old, rows.log_probs, rows.mask, settings.importance_cap)
        mask = rows.mask
        if settings.rejection != "none":
            bounds = settings.rejection_low, settings.rejection_high
            mask = kept_mask(old, rows.log_probs, mask, *bounds, level=settings.rejection)
            metrics["sampler/rejected"] = 1.0 - jnp.sum(mask) / jnp.maximum(jnp.sum(rows.mask), 1.0)
        if settings.mask_truncated:
            mask = mask * ~rows.truncated[:, None]
        rows = rows.replace(mask=mask, log_probs=old, reference_log_probs=anchor, advantages=found)
        return rows, returns, metrics

    def weighed(rows: Rows) -> Rows:
        """Weights of all rows of an update, before it is cut into micro-batches."""
        kind: str | float = settings.weights
        if kind in ("sequence_sum", "token_sum"):
            kind = float(len(rows) * (settings.max_new_tokens if kind == "token_sum" else 1))
        return rows.replace(weights=weights(rows.mask, kind, group=rows.group))

    # Losses

    def loss(
        trained: PyTree, resident: PyTree, part: tuple[Rows, jax.Array], coefficient: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Sums over a part of an update; the second of `part` is the share of each token among all of it [B, T]."""
        rows, share = part
        log_probs = own.log_probs(own.params(trained, resident["model"]), rows)
        log_ratio = jnp.where(rows.mask > 0, log_probs - rows.log_probs, 0.0)
        if settings.ratio == "sequence":
            log_ratio = sequence_log_ratio(log_probs, rows.log_probs, rows.mask)
        # The clipped objective of w A is w times that of A.
        value, _ = policy_gradient_loss(
            log_ratio, jnp.zeros_like(log_ratio), rows.advantages * rows.weights, rows.mask,
            clip_low=settings.clip_low, clip_high=settings.clip_high, aggregation=1.0,
        )
        divergence = kl_penalty(
            log_probs, rows.reference_log_probs, coefficient=coefficient, estimator=settings.kl_estimator,
            place=settings.kl_place,
        ).losses
        value += jnp.sum(rows.weights * jnp.where(rows.mask > 0, divergence, 0.0))
        ratio = jnp.exp(log_ratio)
        outside = (ratio < 1.0 - settings.clip_low) | (ratio > 1.0 + settings.clip_high)
        return value, {
            "policy/loss": value, "policy/ratio": jnp.sum(share * ratio),
            "policy/ratio_distance": jnp.sum(share * jnp.abs(ratio - 1.0)),
            "policy/clip_fraction": jnp.sum(share * outside),
        }

    # Update

    def init(key: Key, resident: PyTree) -> TrainState:
        extra = {}
        if settings.kl_control == "adaptive":
            extra["kl_coefficient"] = jnp.asarray(settings.kl_coefficient, jnp.float32)
        return networks.init(key, dict.fromkeys(trained_networks, (resident["model"],)), extra)

    def step(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        del key
        zeros, batch = jnp.zeros_like(batch["mask"]), dict(batch)
        baseline = batch.pop("baseline", None)
        rows = shard_batch(Rows(**batch, weights=zeros, advantages=zeros))
        old, entropy = scored_tokens(own.params(state.params["policy"], resident["model"]), rows)
        anchor, _ = scored_tokens(resident["model"], rows)
        if critic is not None:
            values = over_parts(lambda part: critic.values(state.params["critic"], resident["model"], part), rows, cut)
            rows = rows.replace(values=values)
        coefficient = state.extra.get("kl_coefficient", settings.kl_coefficient)
        metrics = watched(state, rows, old, anchor, entropy)
        rows, returns, more = ready(rows, old, anchor, coefficient, baseline)
        metrics |= more
        parts = micro_batched((rows, returns), settings.updates_per_epoch)

        def update(state: TrainState, number: jax.Array) -> tuple[TrainState, Metrics]:
            part, targets = jax.tree.map(lambda x: x[number], parts)
            part, count = weighed(part), jnp.maximum(jnp.sum(part.mask), 1.0)
            infos = {}
            if critic is not None:
                gradient, infos = summed_gradient(
                    lambda trained, part: critic.loss(trained, resident["model"], *part, count),
                    state.params["critic"], (part, targets), settings.micro_batches,
                )
                state, norms = networks.apply_gradient(state, "critic", gradient)
                infos |= norms

            def follow(state: TrainState) -> tuple[TrainState, Metrics]:
                gradient, info = summed_gradient(
                    lambda trained, part: loss(trained, resident, part, coefficient), state.params["policy"],
                    (part, part.mask / count), settings.micro_batches,
                )
                state, norms = networks.apply_gradient(state, "policy", gradient)
                return state, info | norms

            if critic is not None and settings.critic_warmup:
                state, info = when(state.step >= settings.critic_warmup, follow, state)
            else:
                state, info = follow(state)
            return state, infos | info

        count = settings.num_epochs * settings.updates_per_epoch
        if count == 1:
            state, infos = update(state, 0)
        else:
            state, infos = jax.lax.scan(update, state, jnp.arange(count) % settings.updates_per_epoch)
        if settings.kl_control == "adaptive":
            metrics["policy/kl_coefficient"] = coefficient
            after = next_coefficient(
                coefficient, metrics["policy/kl_from_anchor"], target=settings.kl_target, horizon=settings.kl_horizon,
                samples=config.batch_size,
            )
            state = state.replace(extra={"kl_coefficient": after})
        return state, jax.tree.map(jnp.mean, infos) | metrics

    def watched(
        state: TrainState, rows: Rows, old: jax.Array, anchor: jax.Array, entropy: jax.Array
    ) -> Metrics:
        """What is always logged of a batch, before its updates."""
        known = known_rows(rows.mask)
        share = rows.mask / jnp.maximum(jnp.sum(rows.mask), 1.0)
        gap = jnp.where(rows.mask > 0, jnp.abs(old - rows.log_probs), 0.0)
        number = jnp.maximum(jnp.sum(known), 1)
        metrics = {
            "sampler/gap_mean": jnp.sum(share * gap), "sampler/gap_max": jnp.max(gap),
            "sampler/age": state.step - jnp.mean(rows.policy_step.astype(jnp.float32)),
            "policy/entropy": jnp.sum(share * entropy),
            "policy/kl_from_anchor": jnp.sum(jnp.where(rows.mask > 0, old - anchor, 0.0)) / number,
            "response/length": jnp.sum(rows.mask) / number,
            "response/truncated": jnp.mean(rows.truncated.astype(jnp.float32)),
            "reward/mean": jnp.sum(jnp.where(known, rows.reward, 0.0)) / number,
        }
        if settings.samples > 1:
            by_group = [x.reshape(prompts, settings.samples) for x in (rows.reward, known)]
            metrics["group/zero_variance"] = jnp.mean(of_rewards.zero_variance(*by_group).astype(jnp.float32))
        return metrics

    return Program(init, step, sampled.evaluate, sampled.resident, sampled.feed)
