"""Reinforcement learning from rewards that a rule checks: GRPO and its kin, without a critic.

A step samples G responses to each of some prompts, the host scores them, and the clipped policy gradient follows
advantages that compare responses with each other. The methods are settings of one trainer (`METHODS`):

  grpo           (r - mean) / deviation of the prompt's group; k3 in the loss (Shao et al. 2024, arXiv 2402.03300).
  dr_grpo        r - mean, and every token the same weight whatever its response's length (Liu et al. 2025, arXiv
                 2503.20783).
  rloo           r less the mean of the others, of r with k1; whole responses (Ahmadian et al. 2024, arXiv 2402.14740).
  reinforce_pp   returns of r with k1, whitened over all tokens of the batch (Hu et al. 2025, arXiv 2501.03262).
  dapo           grpo with a higher upper clip and a mean over tokens, without a KL term (Yu et al. 2025, arXiv
                 2503.14476); its refill of groups is left out.
  gspo           grpo with ratios of whole responses (Zheng et al. 2025, arXiv 2507.18071).

Log-probs of the sampler are never taken for those of the trainer: before the updates of a batch they are computed anew
in the shape of the update's micro-batches. How far the two are apart is logged, and corrected by truncated importance
weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState, scored
from rl_jax.language import training
from rl_jax.language.decoder import DecoderConfig, head_kernel
from rl_jax.language.questions import Questions, Scores, Words, judged
from rl_jax.language.rewards import SCORED, Score, summary
from rl_jax.language.rows import Rows, weights
from rl_jax.language.sampler import Samples, Sampling, generate, sampler_bytes
from rl_jax.language.scoring import token_log_probs
from rl_jax.language.training import DTYPES, Trainable, micro_batched, optimiser, summed_gradient
from rl_jax.losses import advantages as of_rewards
from rl_jax.losses.importance import LEVELS, sequence_log_ratio, truncated_weights
from rl_jax.losses.kl import kl_penalty
from rl_jax.losses.policy_gradient import policy_gradient_loss
from rl_jax.networks.trained import Networks, Trained

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"kl_coefficient": 0.04},
    "dr_grpo": {"advantages": "centred", "weights": "token_sum", "kl_coefficient": 0.0},
    "rloo": {
        "advantages": "leave_one_out", "weights": "sequence_sum", "kl_place": "reward", "kl_estimator": "k1",
        "kl_coefficient": 0.05,
    },
    "reinforce_pp": {
        "advantages": "whitened", "weights": "token_mean", "kl_place": "reward", "kl_estimator": "k1",
        "kl_coefficient": 0.01,
    },
    "dapo": {"weights": "token_mean", "clip_high": 0.28, "kl_coefficient": 0.0},
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
    config.advantages = "group"  # or another of OF_GROUPS, or "whitened"
    # Of the tokens: as language.rows.weights; or sums over a response that are divided by the number of responses,
    # "sequence_sum", or by that of tokens that they may have, "token_sum".
    config.weights = "sequence_mean"
    config.ratio = "token"  # or "sequence"
    config.clip_low, config.clip_high = 0.2, 0.2
    config.kl_coefficient = 0.0  # of the divergence from the pretrained policy
    config.kl_estimator, config.kl_place = "k3", "loss"  # losses.kl
    config.importance_cap = 2.0  # of the weights that correct for the sampler
    config.mask_truncated = False  # whether responses that were cut off teach nothing
    config.update(METHODS[method])
    return config


def grpo_program(
    config: ConfigDict, decoder: DecoderConfig, pretrained: PyTree, words: Words, train: Questions, held_out: Questions,
    scorer: Scores,
) -> Program:
    """Trains "policy" on `config.batch_size` responses a step, G to each of as many prompts as that makes.

    Outcomes, [S, E], of the most likely response to each held-out prompt: `score`, `length` in tokens, `truncated`.

    Args:
      config: holds `agent` (`default_config`), `batch_size`, `num_steps` and `overlap`, the batches scored ahead.
      pretrained: parameters to start from, and the anchor.
      scorer: is closed with the run.

    Raises:
      ValueError: a setting is unknown, or the responses do not divide into groups.
    """
    settings, own = config.agent, Trainable(decoder, config.agent)
    known = {"advantages": (*OF_GROUPS, "whitened"), "ratio": LEVELS, "dtype": DTYPES}
    for field, values in known.items():
        if settings[field] not in values:
            raise ValueError(unknown(f"config.agent.{field}", settings[field], values))
    prompts = config.batch_size // settings.samples
    if settings.samples < 2 or config.batch_size % settings.samples or prompts > len(train.rows):
        raise ValueError(
            f"config.batch_size={config.batch_size} responses, agent.samples={settings.samples} to a prompt, of "
            f"{len(train.rows)} prompts: two or more to a prompt, a number that divides the batch, and no more prompts "
            "than there are"
        )
    cut = settings.updates_per_epoch * settings.micro_batches
    networks = Networks({"policy": Trained(own.init, optimiser(settings, config.num_steps))})
    sampling = Sampling(max_new_tokens=settings.max_new_tokens, stop=words.stop)
    greedy = Sampling(max_new_tokens=settings.max_new_tokens, stop=words.stop, temperature=0.0)
    names = sorted({row["source"] for row in train.rows})

    # Sampling

    def drawn(
        trained: PyTree, resident: PyTree, questions: tuple[jax.Array, jax.Array], chosen: jax.Array, n: int,
        told: Sampling, key: Key,
    ) -> tuple[Samples, jax.Array]:
        free = jnp.full((len(chosen) * n, told.max_new_tokens), -1, jnp.int32)
        tokens, lengths = (x[chosen] for x in questions)
        params = own.params(trained, resident["model"])
        return generate(decoder, params, tokens, lengths, n, told, key, chosen, free, DTYPES[settings.dtype])

    @jax.jit
    def sample_runs(trained: PyTree, resident: PyTree, keys: Key) -> tuple[Samples, jax.Array, jax.Array]:
        def one(trained: PyTree, key: Key) -> tuple[Samples, jax.Array, jax.Array]:
            order, key = jax.random.split(key)
            chosen = jax.random.permutation(order, len(train.rows))[:prompts].astype(jnp.int32)
            return *drawn(trained, resident, resident["train"], chosen, settings.samples, sampling, key), chosen

        return over_runs(one, default_seed_axis())(trained, keys)

    def sample(state: TrainState, resident: PyTree, keys: Key, step: int) -> PyTree:
        return *sample_runs(state.params["policy"], resident, keys), state.step, step

    def judge(samples: Samples, finite: np.ndarray, rows: Sequence[Mapping[str, Any]], progress: float) -> list[Score]:
        if not np.all(finite):
            raise FloatingPointError("the policy's logits are not finite while it samples: it has diverged")
        return judged(samples, rows, words, scorer, progress)

    def score(sampled: PyTree) -> tuple[PyTree, dict[str, float]]:
        """The batch of all runs as a dictionary of Rows' fields, which a checkpoint can hold."""
        samples, finite, chosen, policy_step, step = sampled
        runs, length = len(chosen), samples.tokens.shape[-1]
        group = np.repeat(chosen, settings.samples, axis=1)
        rows = [train.rows[number] for number in group.reshape(-1)]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)
        found = judge(flat, finite, rows, step / max(config.num_steps, 1))
        known = np.array([x.outcome == SCORED for x in found]).reshape(runs, -1, 1)
        places = np.broadcast_to(np.arange(length, dtype=np.int32), samples.tokens.shape)
        inside = places < samples.lengths[..., None]
        sources = [row["source"] for row in rows]
        batch = {
            "tokens": samples.tokens, "mask": (samples.sampled & known).astype(np.float32),
            "segments": inside.astype(np.int32), "positions": places * inside,
            "log_probs": samples.behaviour_log_probs, "group": group,
            "source": np.array([names.index(x) for x in sources], np.int32).reshape(runs, -1),
            "policy_step": np.full(group.shape, policy_step, np.int32), "truncated": samples.truncated,
            "reward": np.array([x.score for x in found], np.float32).reshape(runs, -1),
        }
        return batch, summary(found, sources)

    # Losses

    def in_micro_batches(params: PyTree, rows: Rows) -> tuple[jax.Array, jax.Array]:
        """Log-probs and entropy [B, T], in the shape in which the loss computes them."""

        def of_part(part: Rows) -> tuple[jax.Array, jax.Array]:
            part = shard_batch(part)
            kernel = head_kernel(params, decoder)
            return token_log_probs(own.hidden(params, part), kernel, part.tokens, settings.chunk, entropy=True)

        parts = micro_batched(rows, cut)
        if cut == 1:
            return of_part(rows)
        return tuple(x.swapaxes(0, 1).reshape(rows.mask.shape) for x in jax.lax.map(of_part, parts))

    def with_advantages(rows: Rows, old: jax.Array, anchor: jax.Array) -> Rows:
        """The rows as the loss reads them: log-probs are those of the trainer, and advantages are corrected."""
        penalty = kl_penalty(
            old, anchor, coefficient=settings.kl_coefficient, estimator=settings.kl_estimator, place=settings.kl_place
        ).rewards
        penalty = jnp.where(rows.mask > 0, penalty, 0.0)
        if settings.advantages == "whitened":
            left = jnp.cumsum(rows.mask[:, ::-1], axis=1)[:, ::-1]
            at_end = rows.reward[:, None] * rows.mask * (left == 1)
            returns = of_rewards.returns_to_go(at_end + penalty, rows.mask)
            found = of_rewards.whitened_advantages(returns, rows.mask)
        else:
            total = rows.reward + jnp.sum(penalty, axis=1)
            by_group = (x.reshape(prompts, settings.samples) for x in (total, known_rows(rows)))
            found = OF_GROUPS[settings.advantages](*by_group).reshape(-1, 1) * rows.mask
        found *= truncated_weights(old, rows.log_probs, rows.mask, settings.importance_cap)
        if settings.mask_truncated:
            rows = rows.replace(mask=rows.mask * ~rows.truncated[:, None])
        return rows.replace(log_probs=old, reference_log_probs=anchor, advantages=found)

    def weighed(rows: Rows) -> Rows:
        """Weights of all rows of an update, before it is cut into micro-batches."""
        kind: str | float = settings.weights
        if kind in ("sequence_sum", "token_sum"):
            kind = float(len(rows) * (settings.max_new_tokens if kind == "token_sum" else 1))
        return rows.replace(weights=weights(rows.mask, kind, group=rows.group))

    def loss(trained: PyTree, resident: PyTree, part: tuple[Rows, jax.Array]) -> tuple[jax.Array, Metrics]:
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
            log_probs, rows.reference_log_probs, coefficient=settings.kl_coefficient, estimator=settings.kl_estimator,
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
        return networks.init(key, {"policy": (resident["model"],)})

    def step(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        del key
        zeros = jnp.zeros_like(batch["mask"])
        rows = shard_batch(Rows(**batch, weights=zeros, advantages=zeros))
        old, entropy = in_micro_batches(own.params(state.params["policy"], resident["model"]), rows)
        anchor, _ = in_micro_batches(resident["model"], rows)
        metrics = watched(state, rows, old, anchor, entropy)
        ready = micro_batched(with_advantages(rows, old, anchor), settings.updates_per_epoch)

        def update(state: TrainState, number: jax.Array) -> tuple[TrainState, Metrics]:
            part = weighed(jax.tree.map(lambda x: x[number], ready))
            share = part.mask / jnp.maximum(jnp.sum(part.mask), 1.0)
            gradient, info = summed_gradient(
                lambda trained, part: loss(trained, resident, part), state.params["policy"], (part, share),
                settings.micro_batches,
            )
            state, norms = networks.apply_gradient(state, "policy", gradient)
            return state, info | norms

        count = settings.num_epochs * settings.updates_per_epoch
        if count == 1:
            state, infos = update(state, 0)
        else:
            state, infos = jax.lax.scan(update, state, jnp.arange(count) % settings.updates_per_epoch)
        return state, jax.tree.map(jnp.mean, infos) | metrics

    def watched(
        state: TrainState, rows: Rows, old: jax.Array, anchor: jax.Array, entropy: jax.Array
    ) -> Metrics:
        """What is always logged of a batch, before its updates."""
        known = known_rows(rows)
        share = rows.mask / jnp.maximum(jnp.sum(rows.mask), 1.0)
        gap = jnp.where(rows.mask > 0, jnp.abs(old - rows.log_probs), 0.0)
        by_group = [x.reshape(prompts, settings.samples) for x in (rows.reward, known)]
        number = jnp.maximum(jnp.sum(known), 1)
        return {
            "sampler/gap_mean": jnp.sum(share * gap), "sampler/gap_max": jnp.max(gap),
            "sampler/age": state.step - jnp.mean(rows.policy_step.astype(jnp.float32)),
            "policy/entropy": jnp.sum(share * entropy),
            "policy/kl_from_anchor": jnp.sum(jnp.where(rows.mask > 0, old - anchor, 0.0)) / number,
            "response/length": jnp.sum(rows.mask) / number,
            "response/truncated": jnp.mean(rows.truncated.astype(jnp.float32)),
            "group/zero_variance": jnp.mean(of_rewards.zero_variance(*by_group).astype(jnp.float32)),
            "reward/mean": jnp.sum(jnp.where(known, rows.reward, 0.0)) / number,
        }

    # Evaluation

    @jax.jit
    def answer_runs(trained: PyTree, resident: PyTree, chosen: jax.Array) -> tuple[Samples, jax.Array]:
        def one(trained: PyTree) -> tuple[Samples, jax.Array]:
            return drawn(trained, resident, resident["held_out"], chosen, 1, greedy, jax.random.key(0))

        return over_runs(one, default_seed_axis())(trained)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        size, parts = len(held_out.rows), []
        for start in range(0, size, config.batch_size):
            # The last part is filled with the first questions again, which are left out.
            chosen = np.arange(start, start + config.batch_size, dtype=np.int32) % size
            samples, finite = jax.device_get(gather(answer_runs(state.params["policy"], resident, chosen)))
            count = min(config.batch_size, size - start)
            samples = jax.tree.map(lambda x, count=count: x[:, :count], samples)
            rows = [held_out.rows[number] for number in chosen[:count]]
            found = []
            for run in range(len(samples.tokens)):
                of_run = jax.tree.map(lambda x, run=run: x[run], samples)
                found.append([x.score for x in judge(of_run, finite[run, :count], rows, 1.0)])
            lengths = samples.lengths - samples.prompt_lengths
            parts.append({"score": np.array(found), "length": lengths, "truncated": samples.truncated.astype(float)})
        return Evaluation(outcomes={name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]})

    feed = scored(sample, score, config.overlap)

    def close() -> None:
        feed.close()
        scorer.close()

    memory = sampler_bytes(
        decoder, prompts, train.tokens.shape[1], settings.samples, sampling, DTYPES[settings.dtype]
    )
    resident = {
        "model": pretrained,
        "train": (train.tokens.astype(np.int32), train.lengths.astype(np.int32)),
        "held_out": (held_out.tokens.astype(np.int32), held_out.lengths.astype(np.int32)),
    }
    return Program(init, step, evaluate, resident, feed._replace(close=close, bytes=memory))


def known_rows(rows: Rows) -> jax.Array:
    """[B] bool: the rows that were scored, as the mask says; a failure has no token to learn from."""
    return jnp.any(rows.mask > 0, axis=1)
