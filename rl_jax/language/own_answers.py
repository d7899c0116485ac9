"""A policy's own answers to questions, those of all runs at once: drawn, compared with the policy that it started from,
and judged.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel
from rl_jax.language.questions import Questions
from rl_jax.language.rows import left_aligned
from rl_jax.language.sampler import Samples, Sampling, generate
from rl_jax.language.scoring import answer_log_probs, token_log_probs
from rl_jax.language.training import DTYPES, Trainable

# (numbers of the questions [R], host samples [R, T]) -> numbers [R] by name
Measure = Callable[[np.ndarray, Samples], Mapping[str, np.ndarray]]


class Drawn(NamedTuple):
    """Answers of S runs on the host, n to each question, those of a question side by side.

    Attributes:
      samples: fields [S, R, ...].
      log_ratio: [S, R], log pi - log pi_0 of each whole answer at temperature 1; pi_0 is the pretrained policy.
    """

    samples: Samples
    log_ratio: np.ndarray

    def of_run(self, run: int) -> "Drawn":
        """Those of one run, [R, ...]."""
        return jax.tree.map(lambda x: x[run], self)


# (trained parameters of S runs, pretrained ones, numbers of questions [m], keys [S]) -> Drawn of m n answers
Draw = Callable[[PyTree, PyTree, np.ndarray, Key], Drawn]


def drawer(own: Trainable, questions: Questions, n: int, told: Sampling | Sequence[Sampling], at_once: int) -> Draw:
    """How a policy's answers to some of the questions are drawn. A question's answers depend on its number and the key.

    Args:
      told: how; several share the n answers evenly, in their order.
      at_once: questions whose answers are in memory together.

    Raises:
      ValueError: n does not divide.
      FloatingPointError, by what is returned: the logits are not finite.
    """
    told = (told,) if isinstance(told, Sampling) else tuple(told)
    if n % len(told):
        raise ValueError(f"{n} answers to a question do not divide into {len(told)} temperatures: change one")
    tokens, lengths = questions.tokens.astype(np.int32), questions.lengths.astype(np.int32)
    settings = own.settings

    def of_part(trained: PyTree, pretrained: PyTree, chosen: np.ndarray, keys: Key) -> PyTree:
        params = trained
        if settings.lora_rank:
            params = jax.vmap(own.params, (0, None))(trained, pretrained)
        return _drawn(
            own.config, told, n // len(told), settings.dtype, settings.chunk, params, pretrained, tokens[chosen],
            lengths[chosen], chosen, keys,
        )

    def draw(trained: PyTree, pretrained: PyTree, numbers: np.ndarray, keys: Key) -> Drawn:
        size, parts = len(numbers), []
        for start in range(0, size, at_once):
            # The last part is filled with the first questions again, which are left out: one shape is compiled.
            chosen = numbers[np.arange(start, start + at_once) % size].astype(np.int32)
            samples, ratios, finite = jax.device_get(gather(of_part(trained, pretrained, chosen, keys)))
            if not np.all(finite):
                raise FloatingPointError("the policy's logits are not finite while it samples: it has diverged")
            count = n * min(at_once, size - start)
            parts.append(jax.tree.map(lambda x, count=count: x[:, :count], Drawn(samples, ratios)))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)

    return draw


def of_model(draw: Draw, params: PyTree, numbers: np.ndarray, key: Key) -> Samples:
    """Host answers [m n, T] of one model by itself, such as the one that a stage starts from."""
    return draw(jax.tree.map(lambda x: x[None], params), params, numbers, key[None]).of_run(0).samples


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))  # one for all programs: seeds side by side have their own
def _drawn(
    config: DecoderConfig, told: tuple[Sampling, ...], n: int, dtype: str, chunk: int, params: PyTree,
    pretrained: PyTree, tokens: jax.Array, lengths: jax.Array, chosen: jax.Array, keys: Key,
) -> tuple[Samples, jax.Array, jax.Array]:
    """Samples of S runs, their log ratios, and whether their logits were finite, [S, R, ...] each; params [S, ...]."""
    decoder = Decoder(config, DTYPES[dtype], packed=False)

    def one(params: PyTree, key: Key) -> PyTree:
        found = []
        for number, sampling in enumerate(told):
            free = jnp.full((len(chosen) * n, sampling.max_new_tokens), -1, jnp.int32)
            samples, finite = generate(
                config, params, tokens, lengths, n, sampling, jax.random.fold_in(key, number), chosen, free,
                DTYPES[dtype],
            )
            before = _sampled_log_probs(decoder, chunk, pretrained, samples)
            ratios = jnp.where(samples.sampled, samples.log_probs - before, 0.0)
            found.append((samples, jnp.sum(ratios, -1), finite))

        def beside(*leaves: jax.Array) -> jax.Array:
            both = jnp.concatenate([x.reshape(len(chosen), n, *x.shape[1:]) for x in leaves], axis=1)
            return both.reshape(-1, *both.shape[2:])

        return jax.tree.map(beside, *found)

    return over_runs(one, default_seed_axis())(params, keys)


def _sampled_log_probs(decoder: Decoder, chunk: int, params: PyTree, samples: Samples) -> jax.Array:
    hidden = decoder.apply({"params": params}, samples.tokens, *left_aligned(samples.tokens, samples.lengths))
    return token_log_probs(hidden, head_kernel(params, decoder.config), samples.tokens, chunk)[0]


def sampled_log_probs(own: Trainable, params: PyTree, samples: Samples) -> jax.Array:
    """Log-probs [R, T] of samples under other parameters of the same decoder, at temperature 1."""
    decoder = Decoder(own.config, DTYPES[own.settings.dtype], packed=False)
    return _sampled_log_probs(decoder, own.settings.chunk, params, samples)


def implicit_rewards(own: Trainable, params: PyTree, reference: PyTree, samples: Samples, beta: float) -> jax.Array:
    """(sums, means) [R] each of beta log (pi / pi_ref) over the tokens of answers: DPO's reward of any answer.

    Among answers of different lengths the sum favours short ones, for a log ratio is negative where a policy has less
    entropy than its reference; the mean does not.

    Source: DPO (Rafailov et al. 2023, arXiv 2305.18290, equation 5); the mean is RLAIF-V's (Yu et al. 2024, arXiv
    2405.17220), which picks one of N answers by it.
    """
    ratios = sampled_log_probs(own, params, samples) - sampled_log_probs(own, reference, samples)
    total = beta * answer_log_probs(ratios, samples.sampled)
    return total, total / jnp.maximum(jnp.sum(samples.sampled, -1), 1)


def with_own_answers(
    program: Program, decoder: DecoderConfig, settings: ConfigDict, told: ConfigDict, questions: Questions,
    stop: tuple[int, ...], measure: Measure,
) -> Program:
    """The program, judged also by answers of the policy that it trains, at every evaluation under the same keys.

    Outcomes, [S, E], of each question, means over its answers: what `measure` says; `answer_length` in tokens, the
    last one included; `answer_truncated`; and `kl`, log pi - log pi_0 of a whole answer, whose mean is the divergence
    from `resident["model"]` where answers are drawn at temperature 1.

    Args:
      settings: of the trainer.
      told: `judge_config`.
    """
    own = Trainable(decoder, settings)
    sampling = Sampling(max_new_tokens=told.max_new_tokens, temperature=told.temperature, stop=stop)
    draw = drawer(own, questions, told.samples, sampling, min(told.at_once, len(questions.lengths)))
    numbers = np.arange(len(questions.lengths))
    of_answers = np.repeat(numbers, told.samples)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = program.evaluate(state, resident, key)
        trained = state.params["policy"]
        runs = len(jax.tree.leaves(trained)[0])
        keys = jnp.stack([jax.random.key(told.seed)] * runs)
        drawn, parts = draw(trained, resident["model"], numbers, keys), []
        for run in range(runs):
            samples, ratio = drawn.of_run(run)
            said = dict(measure(of_answers, samples)) | {
                "answer_length": samples.lengths - samples.prompt_lengths, "answer_truncated": samples.truncated,
                "kl": ratio,
            }
            parts.append({
                name: np.asarray(x, np.float64).reshape(-1, told.samples).mean(1) for name, x in said.items()
            })
        own_outcomes = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        return Evaluation(found.metrics, {**found.outcomes, **own_outcomes})

    return program._replace(evaluate=evaluate)


def judge_config(max_new_tokens: int) -> ConfigDict:
    """How a policy is judged by its own answers."""
    return ConfigDict({
        "samples": 4, "temperature": 1.0, "seed": 23, "max_new_tokens": max_new_tokens,
        "at_once": 128,  # questions that are answered together
    })
