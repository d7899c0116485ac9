"""Responses of a policy to questions and what they earn: the Feed of a trainer on rewards, and its evaluation.

A batch is made on the devices and scored on the host, up to `config.overlap` batches ahead. What decides about the next
batch, such as pass rates, changes where a batch is handed over, in the order of the steps: a run that resumes asks the
same questions.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluate, Evaluation, Feed, Key, PyTree, TrainState, scored
from rl_jax.language.curriculum import PassRates, chosen_prompts
from rl_jax.language.questions import Questions, Scores, Words, judged
from rl_jax.language.rewards import SCORED, Score, summary
from rl_jax.language.rows import known_rows
from rl_jax.language.sampler import Samples, Sampling, generate, sampler_bytes
from rl_jax.language.training import DTYPES, Trainable
from rl_jax.losses.advantages import zero_variance

Batch = dict[str, np.ndarray]  # fields of Rows, [S, B, ...], and "baseline" [S, B] where there is one


class Learned(NamedTuple):
    """A reward that a model gives, on the devices: it fails on nothing and reads tokens, not text.

    Attributes:
      params: of the model.
      rewards: (params, tokens [R, T], lengths [R]) -> [R].
    """

    params: PyTree
    rewards: Callable[[PyTree, jax.Array, jax.Array], jax.Array]


class Anchored(NamedTuple):
    """A reward that a model gives beside the anchor answer to the same question (`Questions.anchors`), on the devices:
    such as the probability of being the better one.

    Attributes:
      params: of the model.
      rewards: (params, samples [R], anchors' tokens [R, A], their lengths [R]) -> [R].
    """

    params: PyTree
    rewards: Callable[[PyTree, Samples, jax.Array, jax.Array], jax.Array]


class Rollouts(NamedTuple):
    """The parts of a Program that sample and score.

    Attributes:
      feed: gives a `Batch`; closes the scorer.
      evaluate: outcomes, [S, E], of the most likely response to each held-out question: `score`, `length` in tokens,
        `truncated`.
      resident: the policy that is started from, the questions, the model of a learned reward.
    """

    feed: Feed
    evaluate: Evaluate
    resident: PyTree


def rollouts(
    config: ConfigDict, own: Trainable, pretrained: PyTree, words: Words, train: Questions, held_out: Questions,
    scorer: Scores | Learned | Anchored, greedy_baseline: bool,
) -> Rollouts:
    """Samples `config.agent.samples` responses to each of as many prompts as make `config.batch_size`.

    Args:
      config: as `grpo.grpo_program`'s.
      greedy_baseline: whether the most likely response to each prompt is scored too, as "baseline".

    Raises:
      ValueError: the responses do not divide into prompts, a prompt and its response outgrow the context, groups are
        to be refilled while batches are scored ahead, or questions have no anchor where the reward needs one.
    """
    settings, decoder = config.agent, own.config
    prompts = config.batch_size // settings.samples
    if config.batch_size % settings.samples or prompts > len(train.rows):
        raise ValueError(
            f"config.batch_size={config.batch_size} responses, agent.samples={settings.samples} to a prompt, of "
            f"{len(train.rows)} prompts: a number that divides the batch, and no more prompts than there are"
        )
    needed = max(x.tokens.shape[1] for x in (train, held_out)) + settings.max_new_tokens
    if needed > decoder.context_length:
        raise ValueError(
            f"prompts with agent.max_new_tokens={settings.max_new_tokens} have up to {needed} tokens, more than the "
            f"context of {decoder.context_length}: lower it, or take shorter prompts"
        )
    if settings.refill and config.overlap:
        raise ValueError(
            f"agent.refill={settings.refill} and config.overlap={config.overlap}: which groups are refilled is known "
            "when a batch is scored, and then the policy has gone on; set one of them to 0"
        )
    if config.overlap and jax.process_count() > 1:
        raise ValueError(
            f"config.overlap={config.overlap} in {jax.process_count()} processes: these exchange rewards while none of "
            "them trains, so nothing is scored ahead; set config.overlap=0"
        )
    drawn_from = Sampling(max_new_tokens=settings.max_new_tokens, stop=words.stop)
    greedy = Sampling(max_new_tokens=settings.max_new_tokens, stop=words.stop, temperature=0.0)
    names = sorted({row["source"] for row in train.rows})
    asked = config.curriculum
    filtered = asked.low > 0.0 or asked.high < 1.0
    learned = scorer if isinstance(scorer, (Learned, Anchored)) else None
    if isinstance(scorer, Anchored) and (train.anchors is None or held_out.anchors is None):
        raise ValueError("the reward compares with anchor answers and the questions have none: give Questions.anchors")
    rates: list[PassRates] = []  # one, after the first batch

    # On the devices

    def respond(
        trained: PyTree, resident: PyTree, questions: Sequence[jax.Array], chosen: jax.Array, n: int,
        told: Sampling, key: Key,
    ) -> tuple[Samples, jax.Array, jax.Array]:
        """Samples, whether their logits were finite, and what a learned reward says of them; [R, ...] each."""
        free = jnp.full((len(chosen) * n, told.max_new_tokens), -1, jnp.int32)
        tokens, lengths, *anchors = (x[chosen] for x in questions)
        params = own.params(trained, resident["model"])
        found, finite = generate(
            decoder, params, tokens, lengths, n, told, key, chosen, free, DTYPES[settings.dtype]
        )
        said = jnp.zeros(len(finite))
        if isinstance(learned, Anchored):
            said = learned.rewards(resident["reward"], found, *(jnp.repeat(x, n, axis=0) for x in anchors))
        elif learned is not None:
            said = learned.rewards(resident["reward"], found.tokens, found.lengths)
        return found, finite, said

    @jax.jit
    def sample_runs(trained: PyTree, resident: PyTree, keys: Key, allowed: jax.Array) -> PyTree:
        def one(trained: PyTree, key: Key, allowed: jax.Array) -> PyTree:
            order, key = jax.random.split(key)
            chosen = chosen_prompts(order, allowed, prompts)
            given = trained, resident, resident["train"], chosen
            likely = respond(*given, 1, greedy, key) if greedy_baseline else None
            return respond(*given, settings.samples, drawn_from, key), likely, chosen

        return over_runs(one, default_seed_axis())(trained, keys, allowed)

    @jax.jit
    def answer_runs(trained: PyTree, resident: PyTree, chosen: jax.Array) -> PyTree:
        def one(trained: PyTree) -> PyTree:
            return respond(trained, resident, resident["held_out"], chosen, 1, greedy, jax.random.key(0))

        return over_runs(one, default_seed_axis())(trained)

    # On the host

    def sample(state: TrainState, resident: PyTree, keys: Key, step: int, used: np.ndarray | None = None) -> PyTree:
        """Host arrays; `used` [S, U] are prompts that are not to be asked again."""
        began = time.perf_counter()
        allowed = np.ones((len(keys), len(train.rows)), bool)
        if filtered and rates:
            allowed = rates[0].allowed(asked.low, asked.high, asked.least)
        if used is not None:
            np.put_along_axis(allowed, used, False, axis=1)
        found = jax.device_get(gather(sample_runs(state.params["policy"], resident, keys, allowed)))
        return found, np.int32(state.step), step, time.perf_counter() - began

    def judge(
        responded: tuple[Samples, np.ndarray, np.ndarray], rows: Sequence[Mapping[str, Any]], progress: float
    ) -> list[Score]:
        samples, finite, said = responded
        if not np.all(finite):
            raise FloatingPointError("the policy's logits are not finite while it samples: it has diverged")
        if learned is not None:
            return [Score(float(x)) for x in said]
        return judged(samples, rows, words, scorer, progress)

    def score(sampled: PyTree) -> tuple[Batch, dict[str, float]]:
        """The batch of all runs, which a checkpoint can hold, and metrics."""
        began = time.perf_counter()
        (responded, likely, chosen), policy_step, step, seconds = sampled
        runs, samples = len(chosen), responded[0]
        progress = step / max(config.num_steps, 1)

        def flat(x: PyTree) -> PyTree:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), x)

        group = np.repeat(chosen, settings.samples, axis=1)
        rows = [train.rows[number] for number in group.reshape(-1)]
        found = judge(flat(responded), rows, progress)
        known = np.array([x.outcome == SCORED for x in found]).reshape(runs, -1)
        sources = [row["source"] for row in rows]
        metrics, more = summary(found, sources), {}
        if likely is not None:
            best = judge(flat(likely), [train.rows[number] for number in chosen.reshape(-1)], progress)
            baseline, there = (np.repeat(np.array(x).reshape(runs, -1), settings.samples, axis=1) for x in (
                [x.score for x in best], [x.outcome == SCORED for x in best]
            ))
            known &= there
            more["baseline"] = baseline.astype(np.float32)
            metrics["reward/greedy"] = float(np.mean([x.score for x in best]))
        length = samples.tokens.shape[-1]
        places = np.broadcast_to(np.arange(length, dtype=np.int32), samples.tokens.shape)
        inside = places < samples.lengths[..., None]
        batch = {
            "tokens": samples.tokens, "mask": (samples.sampled & known[..., None]).astype(np.float32),
            "segments": inside.astype(np.int32), "positions": places * inside,
            "log_probs": samples.behaviour_log_probs, "group": group,
            "source": np.array([names.index(x) for x in sources], np.int32).reshape(runs, -1),
            "policy_step": np.full(group.shape, policy_step, np.int32), "truncated": samples.truncated,
            "reward": np.array([x.score for x in found], np.float32).reshape(runs, -1),
        }
        metrics |= {"time/generate_seconds": seconds, "time/score_seconds": time.perf_counter() - began}
        return batch | more, metrics

    def by_prompt(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), prompts, settings.samples, *x.shape[2:])

    def flat_groups(batch: Batch) -> np.ndarray:
        """[S, P] bool: the groups whose known rewards are all equal, by comparison with each other."""
        return np.asarray(zero_variance(by_prompt(batch["reward"]), by_prompt(known_rows(batch["mask"]))))

    def remember(batch: Batch, runs: np.ndarray) -> None:
        """Counts a batch of the runs [S] that it is for: another run's need of samples changes nothing here."""
        if filtered:
            before = rates[0] if rates else PassRates.empty(len(batch["group"]), len(train.rows))
            after = before.after(batch["group"], batch["reward"], known_rows(batch["mask"]), asked.memory)
            rates[:] = [PassRates(*(np.where(runs[:, None], *both) for both in zip(after, before, strict=True)))]

    ahead = scored(sample, score, config.overlap)

    def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[Batch, dict[str, float]]:
        batch, metrics = ahead.collect(state, resident, keys, step)
        remember(batch, np.ones(len(keys), bool))
        if settings.refill:
            batch, metrics = refilled(state, resident, keys, step, batch, metrics)
        if filtered:
            allowed = rates[0].allowed(asked.low, asked.high, asked.least)
            metrics = metrics | {"curriculum/allowed": float(allowed.mean())}
        return own_share(batch), metrics

    def refilled(
        state: TrainState, resident: PyTree, keys: Key, step: int, batch: Batch, metrics: dict[str, float]
    ) -> tuple[Batch, dict[str, float]]:
        """The batch with groups that teach nothing replaced by others, as DAPO's dynamic sampling does.

        At most `agent.refill` more rounds of samples in the shape of the first, of prompts not asked in this step;
        groups that are flat after these stay. Host metrics are means over the rounds.
        """
        said, used, taken = [metrics], batch["group"], np.zeros(len(keys), int)
        batch = {name: np.array(x) for name, x in batch.items()}
        for number in range(1, settings.refill + 1):
            flat = flat_groups(batch)
            if not flat.any():
                break
            own_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            more, metrics = score(sample(state, resident, own_keys, step, used))
            remember(more, flat.any(1))
            said.append(metrics)
            used = np.concatenate([used, more["group"]], axis=1)
            useful = ~flat_groups(more)
            for run in range(len(flat)):
                places, others = np.flatnonzero(flat[run]), np.flatnonzero(useful[run])
                count = min(len(places), len(others))
                taken[run] += count
                for name in batch:
                    by_prompt(batch[name])[run, places[:count]] = by_prompt(more[name])[run, others[:count]]
        names = sorted({name for metrics in said for name in metrics})
        means = {name: float(np.mean([x[name] for x in said if name in x])) for name in names}
        totals = {name: x * len(said) for name, x in means.items() if name.startswith("time/")}
        return batch, means | totals | {
            "group/refilled": float(taken.mean() / prompts), "group/extra_rounds": len(said) - 1.0,
        }

    def save() -> PyTree:
        return ahead.save() | ({"rates": rates[0]._asdict()} if rates else {})

    def restore(saved: PyTree) -> None:
        ahead.restore(saved)
        rates[:] = [PassRates(**saved["rates"])] if "rates" in saved else []

    def close() -> None:
        ahead.close()
        if learned is None:
            scorer.close()

    # Evaluation

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        size, parts = len(held_out.rows), []
        for start in range(0, size, config.batch_size):
            # The last part is filled with the first questions again, which are left out.
            chosen = np.arange(start, start + config.batch_size, dtype=np.int32) % size
            responded = jax.device_get(gather(answer_runs(state.params["policy"], resident, chosen)))
            count = min(config.batch_size, size - start)
            responded = jax.tree.map(lambda x, count=count: x[:, :count], responded)
            rows, samples = [held_out.rows[number] for number in chosen[:count]], responded[0]
            found = [
                [x.score for x in judge(jax.tree.map(lambda x, run=run: x[run], responded), rows, 1.0)]
                for run in range(len(samples.tokens))
            ]
            lengths = samples.lengths - samples.prompt_lengths
            parts.append({"score": np.array(found), "length": lengths, "truncated": samples.truncated.astype(float)})
        return Evaluation(outcomes={name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]})

    memory = sampler_bytes(
        decoder, prompts, train.tokens.shape[1], settings.samples, drawn_from, DTYPES[settings.dtype]
    )
    resident = {
        "model": pretrained,
        "train": tuple(x.astype(np.int32) for x in (train.tokens, train.lengths, *(train.anchors or ()))),
        "held_out": tuple(x.astype(np.int32) for x in (held_out.tokens, held_out.lengths, *(held_out.anchors or ()))),
    }
    if learned is not None:
        resident["reward"] = learned.params
    return Rollouts(Feed(collect, save, restore, close, memory), evaluate, resident)


def own_share(batch: PyTree) -> PyTree:
    """This process's part of a batch, leaves [S, B, ...], that all processes hold."""
    count, rank = jax.process_count(), jax.process_index()
    return jax.tree.map(lambda x: x[:, rank * x.shape[1] // count : (rank + 1) * x.shape[1] // count], batch)
