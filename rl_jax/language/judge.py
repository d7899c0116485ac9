"""Generative judges: a decoder that reads a prompt and two answers and says by one token which is the better one, or
that says yes or no to a claim.

A judge of pairs reads both orders, for it may prefer a place; what it says is the softmax of two tokens of its own
head, so that it starts as the decoder it is made of (the preference model of RLHF Workflow, Dong et al. 2024, arXiv
2405.07863; Pairwise-RL, Xu et al. 2025, arXiv 2504.04950).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.language import training
from rl_jax.language.decoder import DecoderConfig, head_kernel
from rl_jax.language.documents import PairDocuments
from rl_jax.language.held_out import by_prompt, over_held_out, won
from rl_jax.language.pairs import Pairs, apart
from rl_jax.language.rollouts import Anchored
from rl_jax.language.rows import Builder, Document, Rows, joined, left_aligned, pad
from rl_jax.language.sampler import Samples, prompts_and_answers
from rl_jax.language.scoring import label_log_odds, label_probability
from rl_jax.language.training import Trainable, in_parts, optimiser, summed_gradient
from rl_jax.losses.preference import judge_loss, win_probability
from rl_jax.networks.trained import Networks, Trained

Texts = tuple[jax.Array, jax.Array]  # tokens [R, T], right-padded, and lengths [R]


class Layout(NamedTuple):
    """How a comparison is written: the prompt, `before`, one answer, `between`, the other, `after`, and then a label.

    Attributes:
      before, between, after: tokens.
      labels: the single token that says the first answer is better, and that which says the second is.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    labels: tuple[int, int]

    def written(self, prompts: Texts, first: Texts, second: Texts) -> Texts:
        """Comparisons up to where the label stands."""
        size = len(prompts[1])

        def mark(tokens: tuple[int, ...]) -> Texts:
            return jnp.tile(jnp.array(tokens, jnp.int32), (size, 1)), jnp.full(size, len(tokens))

        return joined(prompts, mark(self.before), first, mark(self.between), second, mark(self.after))


def default_config() -> ConfigDict:
    """The trainer's settings."""
    config = training.default_config()
    config.consistency = 1.0  # weight of the squared difference between what a pair's two orders say
    return config


def comparison_pairs(layout: Layout, pairs: Sequence[PairDocuments], decoder: DecoderConfig, length: int) -> Pairs:
    """Pairs of answers as what a judge reads: `first` has the better answer in the first place, `second` in the second.

    Args:
      length: of the rows.

    Raises:
      TooLongError: a comparison outgrows the decoder's context.
      ValueError: it outgrows the rows.
    """
    written: list[tuple[Document, Document]] = []
    for chosen, rejected, _ in pairs:
        prompt = chosen.tokens[: int(np.argmax(chosen.mask > 0))]
        both = [own.tokens[int(np.argmax(own.mask > 0)) :] for own in (chosen, rejected)]
        orders = []
        for one, other in (both, both[::-1]):
            builder = Builder(decoder.vocab_size, decoder.context_length)
            for piece in (prompt, layout.before, one, layout.between, other, layout.after):
                builder.append(piece, sampled=False)
            orders.append(builder.document(group=chosen.group))
        written.append((orders[0], orders[1]))
    first, second = (pad(own, length) for own in zip(*written, strict=True))
    margins = np.array([pair.margin for pair in pairs], np.float32)
    return Pairs(first, second, np.ones(len(pairs), bool), margins)


def judge_program(
    config: ConfigDict, decoder: DecoderConfig, pretrained: PyTree, layout: Layout, train: Pairs, held_out: Pairs
) -> Program:
    """Trains "judge" on batches of `comparison_pairs`, drawn uniformly with replacement, each in both orders.

    Outcomes, [S, E], of each held-out prompt: `accuracy` of the mean of both orders; `one_order_accuracy`, with the
    better answer first; `agreement`, how often both orders say the same; `position_gap`, |q_wl + q_lw - 1|, 0 without a
    preference for a place; `mass`, the probability of the two labels among all tokens.

    Args:
      config: holds `agent` (`default_config`), `batch_size` (in pairs) and `num_steps`.
      pretrained: parameters to start from.
    """
    settings, own = config.agent, Trainable(decoder, config.agent)
    networks = Networks({"judge": Trained(own.init, optimiser(settings, config.num_steps))})

    def init(key: Key, resident: PyTree) -> TrainState:
        return networks.init(key, {"judge": (resident["model"],)})

    def log_odds(params: PyTree, rows: Rows) -> jax.Array:
        hidden = own.hidden(params, rows)
        return label_log_odds(hidden, rows.segments, head_kernel(params, decoder), layout.labels)

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        pairs = shard_batch(sample_rows(resident["train"], key, config.batch_size, len(resident["train"])))

        def loss(trained: PyTree, part: Pairs) -> tuple[jax.Array, Metrics]:
            found = log_odds(own.params(trained, resident["model"]), part.rows())
            chosen_first, rejected_first = apart(found)
            terms = judge_loss(chosen_first, rejected_first, settings.consistency)
            wins = win_probability(jax.nn.sigmoid(chosen_first), jax.nn.sigmoid(rejected_first))
            metrics = {"judge/loss": terms, "judge/accuracy": (wins > 0.5).astype(jnp.float32)}
            means = {name: jnp.sum(x) / config.batch_size for name, x in metrics.items()}
            return means["judge/loss"], means

        gradient, metrics = summed_gradient(loss, state.params["judge"], pairs, settings.micro_batches)
        state, norms = networks.apply_gradient(state, "judge", gradient)
        return state, metrics | norms

    def score(trained: PyTree, pretrained: PyTree, part: Pairs) -> dict[str, jax.Array]:
        params, rows = own.params(trained, pretrained), part.rows()
        hidden, kernel = own.hidden(params, rows), head_kernel(params, decoder)
        odds = apart(label_log_odds(hidden, rows.segments, kernel, layout.labels))
        mass = apart(label_probability(hidden, rows.segments, kernel, jnp.array(layout.labels))[1])
        chosen_first, rejected_first = map(jax.nn.sigmoid, odds)
        return {"chosen_first": chosen_first, "rejected_first": rejected_first, "mass": 0.5 * (mass[0] + mass[1])}

    scored, prompts = over_held_out(score, config.batch_size), np.asarray(held_out.first.group)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found = scored(state.params["judge"], resident["model"], resident["held_out"])
        first, second = found["chosen_first"], found["rejected_first"]
        said = {
            "accuracy": won(np.asarray(win_probability(first, second)) - 0.5), "one_order_accuracy": won(first - 0.5),
            "agreement": ((first > 0.5) == (second < 0.5)).astype(float), "position_gap": np.abs(first + second - 1.0),
            "mass": found["mass"],
        }
        return Evaluation(outcomes={name: by_prompt(x, prompts) for name, x in said.items()})

    return Program(init, step, evaluate, {"model": pretrained, "train": train, "held_out": held_out})


# What a judge says


def wins(own: Trainable, params: PyTree, layout: Layout, prompts: Texts, first: Texts, second: Texts) -> jax.Array:
    """[R], how probable it is that the first answer to each prompt is better than the second, of both orders."""
    kernel = head_kernel(params, own.config)

    def read_first(one: Texts, other: Texts) -> jax.Array:
        tokens, lengths = layout.written(prompts, one, other)
        positions, segments = left_aligned(tokens, lengths)
        return jax.nn.sigmoid(
            label_log_odds(own.hidden_of(params, tokens, positions, segments), segments, kernel, layout.labels)
        )

    return win_probability(read_first(first, second), read_first(second, first))


def judge_of(
    decoder: DecoderConfig, layout: Layout, settings: ConfigDict | None = None, at_once: int = 256
) -> Callable[[PyTree, Texts, Texts, Texts], np.ndarray]:
    """`wins` of host arrays as the function (params, prompts, first answers, second answers) -> [R], part by part."""
    own = Trainable(decoder, settings or default_config())
    compiled = jax.jit(lambda params, texts: wins(own, params, layout, *texts))
    return lambda params, *texts: in_parts(lambda part: compiled(params, part), texts, at_once)


def anchored_judge(
    decoder: DecoderConfig, params: PyTree, layout: Layout, max_new_tokens: int, settings: ConfigDict | None = None
) -> Anchored:
    """The probability that a response beats the anchor answer to its question, as the reward of `grpo.grpo_program`.

    Args:
      params: of the judge, adapters merged.
      max_new_tokens: of the policy.
    """
    own = Trainable(decoder, settings or default_config())

    def rewards(params: PyTree, samples: Samples, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        prompts, answers = prompts_and_answers(samples, max_new_tokens)
        return wins(own, params, layout, prompts, answers, (tokens, lengths))

    return Anchored(params, rewards)


def yes_no_of(
    decoder: DecoderConfig, yes: Sequence[int], no: Sequence[int], settings: ConfigDict | None = None,
    at_once: int = 256,
) -> Callable[[PyTree, Texts], tuple[np.ndarray, np.ndarray]]:
    """The function (params, questions on the host) -> (p_yes, p_no), [R] each: the mass of all tokens that say so.

    Args:
      yes, no: every single token that counts as either, such as "yes", "Yes" and those with a blank before them.

    Source: RLAIF-V (Yu et al. 2024), arXiv 2405.17220; its code rejects a claim where p_no >= p_yes.
    """
    own, labels = Trainable(decoder, settings or default_config()), jnp.array([*yes, *no])

    @jax.jit
    def compiled(params: PyTree, questions: Texts) -> tuple[jax.Array, jax.Array]:
        positions, segments = left_aligned(*questions)
        hidden = own.hidden_of(params, questions[0], positions, segments)
        among, mass = label_probability(hidden, segments, head_kernel(params, decoder), labels)
        found = among * mass[:, None]
        return jnp.sum(found[:, : len(yes)], -1), jnp.sum(found[:, len(yes) :], -1)

    def said(params: PyTree, questions: Texts) -> tuple[np.ndarray, np.ndarray]:
        return in_parts(lambda part: compiled(params, part), questions, at_once)

    return said
