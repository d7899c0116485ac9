"""Generative judges: what they read, both orders, learning, claims, and the probability of winning as a reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rl_jax.language import judge
from rl_jax.language.decoder import head_kernel, logits
from rl_jax.language.documents import PairDocuments
from rl_jax.language.judge import Layout, anchored_judge, comparison_pairs, judge_of, judge_program, yes_no_of
from rl_jax.language.reward_model import anchored_reward
from rl_jax.language.rows import Builder, joined
from rl_jax.language.sampler import Sampling, padded, prompts_and_answers, sample
from rl_jax.language.training import Trainable
from tests.language.tiny import CONFIG, DECODER, PARAMS

LAYOUT = Layout((10,), (11,), (12, 12), (1, 2))
JUDGE = jax.jit(lambda: jax.tree.map(lambda x: 3.0 * x, PARAMS))()
RNG = np.random.default_rng(3)


def document(prompt, answer, group=0):
    return Builder(13, 32).append(prompt, sampled=False).append(answer, sampled=True).document(group=group)


def pairs_of(count):
    """The better answer is the one that begins with a small token; of different lengths."""
    for group in range(count):
        prompt = RNG.integers(3, 9, 1 + group % 2)
        yield PairDocuments(
            *(document(prompt, [first, *RNG.integers(3, 9, group % 3)], group) for first in (3, 8)), 1.0
        )


PAIRS = list(pairs_of(12))


@jax.jit
def padded_state(params, tokens, length):
    """The hidden state [D] of the last token of one row, and the softmax [V] of what comes after it."""
    inside = (jnp.arange(len(tokens)) < length).astype(jnp.int32)[None]
    hidden = DECODER.apply({"params": params}, tokens[None], jnp.arange(len(tokens))[None] * inside, inside)
    last = hidden[0, length - 1]
    return last, jax.nn.softmax(logits(last[None], head_kernel(params, CONFIG))[0])


def state(params, tokens):
    """Both of a row of tokens, by the decoder alone."""
    return map(np.asarray, padded_state(params, np.pad(np.asarray(tokens), (0, 20 - len(tokens))), len(tokens)))


def next_token(params, tokens):
    return list(state(params, tokens))[1]


def said(params, prompt, one, other):
    """q(one > other | one, other), by the definition."""
    found = next_token(params, [*prompt, 10, *one, 11, *other, 12, 12])
    return found[1] / (found[1] + found[2])


def test_pieces_are_joined_without_what_fills_them():
    first, second = padded([np.array([1, 2, 3]), np.array([4])]), padded([np.array([5]), np.array([6, 7])])
    tokens, lengths = joined(first, second)
    assert tokens.tolist() == [[1, 2, 3, 5, 0], [4, 6, 7, 0, 0]] and lengths.tolist() == [4, 3]


def test_a_comparison_is_written_in_both_orders():
    found = comparison_pairs(LAYOUT, [PairDocuments(document([5], [3, 4], 7), document([5], [8], 7), 2.0)], CONFIG, 16)
    assert found.first.tokens[0].tolist() == [5, 10, 3, 4, 11, 8, 12, 12] + [0] * 8
    assert found.second.tokens[0].tolist() == [5, 10, 8, 11, 3, 4, 12, 12] + [0] * 8
    assert found.first.group.tolist() == [7] and found.margin.tolist() == [2.0]


def test_a_judge_on_a_batch_says_what_the_definition_says():
    """Prompts and answers of different lengths, part by part; both orders, so that equal answers are even."""
    prompts, first, second = [[5], [6, 7], [4]], [[3, 4], [8], [5, 6]], [[8], [3, 3, 3], [5, 6]]
    expected = [0.5 * (said(JUDGE, p, a, b) + 1 - said(JUDGE, p, b, a)) for p, a, b in zip(prompts, first, second)]
    texts = [padded([np.array(x) for x in column]) for column in (prompts, first, second)]
    found = judge_of(CONFIG, LAYOUT, at_once=2)
    np.testing.assert_allclose(found(JUDGE, *texts), expected, rtol=1e-4)
    np.testing.assert_allclose(found(JUDGE, texts[0], texts[2], texts[1]), 1 - np.array(expected), rtol=1e-4)
    assert expected[2] == pytest.approx(0.5, abs=1e-6) and abs(expected[0] - 0.5) > 1e-3


def test_a_response_earns_the_probability_to_beat_its_anchor():
    prompts = padded([np.array([5]), np.array([6, 7])])
    samples = sample(CONFIG, PARAMS, *prompts, 2, Sampling(max_new_tokens=4, stop=(0,)), jax.random.key(0))
    anchors = padded([np.array([3, 4]), np.array([3, 4]), np.array([8]), np.array([8])])
    reward = anchored_judge(CONFIG, JUDGE, LAYOUT, 4)
    found = jax.jit(reward.rewards)(reward.params, samples, *anchors)
    answers = [row[start:end] for row, start, end in zip(samples.tokens, samples.prompt_lengths, samples.lengths)]
    asked, against = [[5], [5], [6, 7], [6, 7]], [[3, 4], [3, 4], [8], [8]]
    expected = [
        0.5 * (said(JUDGE, p, a, b) + 1 - said(JUDGE, p, b, a)) for p, a, b in zip(asked, answers, against)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    (own, lengths), (answered, sizes) = prompts_and_answers(samples, 4)
    assert own.tolist() == [[5, 0], [5, 0], [6, 7], [6, 7]] and lengths.tolist() == [1, 1, 2, 2]
    assert [row[:size].tolist() for row, size in zip(answered, sizes)] == [x.tolist() for x in answers]


def test_a_reward_model_gives_the_probability_to_beat_an_anchor_too():
    prompts = padded([np.array([5]), np.array([6, 7])])
    samples = sample(CONFIG, PARAMS, *prompts, 1, Sampling(max_new_tokens=4, stop=(0,)), jax.random.key(0))
    head, (tokens, lengths) = np.linspace(-1, 1, CONFIG.width, dtype=np.float32), padded([np.array([3, 4])] * 2)
    own = anchored_reward(CONFIG, JUDGE, head, 4)
    found = jax.jit(own.rewards)(own.params, samples, tokens, lengths)

    def reward(row):
        return float(next(state(JUDGE, row)) @ head)

    margins = [
        reward(row[:length]) - reward([*row[:start], 3, 4])
        for row, length, start in zip(samples.tokens, samples.lengths, samples.prompt_lengths)
    ]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.array(margins))), rtol=1e-3)


def config_of(**fields):
    config = ConfigDict({"agent": judge.default_config(), "batch_size": 6, "num_steps": 40})
    config.agent.update({"learning_rate": 1e-2} | fields)
    return config


def test_a_judge_learns_which_is_better_and_its_orders_agree():
    pairs = comparison_pairs(LAYOUT, PAIRS, CONFIG, 16)
    program = judge_program(config_of(), CONFIG, PARAMS, LAYOUT, pairs, pairs)
    run, step = jax.jit(program.init)(jax.random.key(0), program.resident), jax.jit(program.step)

    def outcomes(run):
        several = run.replace(params=jax.tree.map(lambda x: x[None], run.params))
        return program.evaluate(several, program.resident, None).outcomes

    before = outcomes(run)
    first, second = (
        [said(PARAMS, own.tokens[: np.argmax(own.mask > 0)], *(x.tokens[np.argmax(x.mask > 0):] for x in both))
         for own, both in ((pair.chosen, order(pair)) for pair in PAIRS)]
        for order in (lambda pair: pair[:2], lambda pair: pair[1::-1])
    )
    first, second = np.array(first), np.array(second)
    np.testing.assert_allclose(before["position_gap"][0], np.abs(first + second - 1), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(before["accuracy"][0], first + 1 - second > 1)
    for number in range(30):
        run, metrics = step(run, program.resident, None, jax.random.key(number))
    after = outcomes(run)
    assert after["accuracy"].mean() == 1.0 and after["agreement"].mean() == 1.0
    assert after["position_gap"].mean() < 0.2 and metrics["judge/loss"] < 0.3


def test_the_mass_of_all_ways_to_say_yes():
    questions = [[5, 6], [7], [8, 9, 10]]
    yes, no = yes_no_of(CONFIG, (1, 2), (3,), at_once=2)(JUDGE, padded([np.array(x) for x in questions]))
    full = np.stack([next_token(JUDGE, x) for x in questions])
    np.testing.assert_allclose(yes, full[:, 1] + full[:, 2], rtol=1e-4)
    np.testing.assert_allclose(no, full[:, 3], rtol=1e-4)


@pytest.mark.slow
def test_wins_are_those_of_the_decoder_that_adapters_make():
    """A judge that is trained by adapters is read with them merged: zeros change nothing."""
    own = Trainable(CONFIG, config_of(lora_rank=2).agent)
    zeros = jax.tree.map(jnp.zeros_like, own.init(jax.random.key(0), PARAMS))
    texts = [padded([np.array([5, 6])]) for _ in range(3)]
    found = jax.jit(lambda params: judge.wins(own, params, LAYOUT, *texts))(own.params(zeros, PARAMS))
    np.testing.assert_allclose(found, 0.5, atol=1e-6)
