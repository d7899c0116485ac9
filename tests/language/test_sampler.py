"""The sampler beside recomputation, a loop without a cache, exact probabilities; its keys, forks, ends and errors."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rl_jax.core.mesh import make_mesh, resident_shardings, upload
from rl_jax.language import sampler
from rl_jax.language.decoder import SHARDING_RULES, Decoder, DecoderConfig, head_kernel, logits
from rl_jax.language.sampler import Sampling, allow, draw, sample, sampler_bytes

CONFIG = DecoderConfig(
    vocab_size=32, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4, hidden_width=24, tied=True,
    context_length=24,
)
RNG = np.random.default_rng(0)
PROMPTS, LENGTHS = RNG.integers(0, 32, (4, 6)), np.array([6, 3, 1, 5])
SHAPES = jax.eval_shape(Decoder(CONFIG).init, jax.random.key(0), PROMPTS, PROMPTS, PROMPTS)["params"]
PARAMS = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape) * 0.5, jnp.float32), SHAPES)
STOP = 3
FREE = Sampling(max_new_tokens=12)
KEY = jax.random.key(7)
rollout: sampler.Rollout = partial(sample, CONFIG)


@jax.jit
def scores_of(tokens):
    """Logits [R, T, V] of whole rows, by the training forward."""
    positions = jnp.tile(jnp.arange(tokens.shape[1]), (len(tokens), 1))
    hidden = Decoder(CONFIG).apply({"params": PARAMS}, tokens, positions, jnp.ones_like(positions))
    return logits(hidden, head_kernel(PARAMS, CONFIG))


def shifted(log_probs, tokens):
    """Entry t of token t given those before it, from log-softmaxes [R, T, V]."""
    found = np.take_along_axis(np.asarray(log_probs)[:, :-1], np.asarray(tokens)[:, 1:, None], axis=-1)[..., 0]
    return np.concatenate([np.zeros((len(found), 1)), found], axis=1)


def fields(samples):
    return {field.name: np.asarray(getattr(samples, field.name)) for field in dataclasses.fields(samples)}


@pytest.fixture(scope="module")
def found():
    """Tempered, filtered and stopped samples, three of each prompt."""
    told = dataclasses.replace(FREE, temperature=0.8, top_k=12, top_p=0.9, stop=(STOP, 4))
    return told, rollout(PARAMS, PROMPTS, LENGTHS, 3, told, KEY)


def test_log_probs_are_those_recomputed(found):
    told, samples = found
    scores = scores_of(samples.tokens)
    drawn = np.asarray(samples.sampled)
    own = shifted(jax.nn.log_softmax(scores), samples.tokens)
    np.testing.assert_allclose(samples.log_probs, np.where(drawn, own, 0), atol=1e-4)
    allowed = allow(scores.reshape(-1, 32) / told.temperature, told.top_k, told.top_p).reshape(scores.shape)
    behaviour = shifted(jax.nn.log_softmax(allowed), samples.tokens)
    np.testing.assert_allclose(samples.behaviour_log_probs, np.where(drawn, behaviour, 0), atol=1e-4)
    assert np.max(np.abs(samples.log_probs - samples.behaviour_log_probs)) > 0.1


def test_rows_hold_their_prompt_and_end_with_the_first_stop_token(found):
    told, samples = found
    x = fields(samples)
    assert x["truncated"].any() and not x["truncated"].all()
    for row in range(12):
        start, end = LENGTHS[row // 3], x["lengths"][row]
        assert x["prompt_lengths"][row] == start and list(x["tokens"][row, :start]) == list(PROMPTS[row // 3, :start])
        new = x["tokens"][row, start:end]
        stops = np.isin(new, told.stop)
        assert not stops[:-1].any() and stops[-1] != x["truncated"][row]
        assert not x["truncated"][row] or len(new) == told.max_new_tokens
        np.testing.assert_array_equal(np.flatnonzero(x["sampled"][row]), np.arange(start, end))
        for name in ("tokens", "log_probs", "behaviour_log_probs"):
            assert not x[name][row, end:].any(), name
    assert len({tuple(row) for row in x["tokens"].tolist()}) > 8


def test_the_order_of_a_batch_changes_no_text(found):
    told, samples = found
    order = np.array([2, 0, 3, 1])
    other = rollout(PARAMS, PROMPTS[order], LENGTHS[order], 3, told, KEY, prompt_ids=order)
    rows = (3 * order[:, None] + np.arange(3)).reshape(-1)
    for name, x in fields(other).items():
        np.testing.assert_allclose(x, fields(samples)[name][rows], atol=1e-5 * (x.dtype.kind == "f"), err_msg=name)
    alone = rollout(PARAMS, PROMPTS[1:2], LENGTHS[1:2], 2, told, KEY, prompt_ids=np.array([1]))
    np.testing.assert_array_equal(alone.tokens, samples.tokens[3:5])


def test_eight_devices_draw_the_same_text(found):
    told, samples = found
    mesh = make_mesh(data=4, model=2)
    laid = upload(PARAMS, resident_shardings({"params": PARAMS}, SHARDING_RULES, mesh)["params"])
    with jax.set_mesh(mesh):
        other = rollout(laid, PROMPTS, LENGTHS, 3, told, KEY)
    np.testing.assert_array_equal(other.tokens, samples.tokens)
    np.testing.assert_allclose(other.log_probs, samples.log_probs, atol=1e-4)


def test_greedy_text_is_that_of_a_loop_without_a_cache():
    greedy = rollout(PARAMS, PROMPTS, LENGTHS, 1, dataclasses.replace(FREE, temperature=0.0), KEY)
    tokens = np.zeros((4, 18), np.int32)
    tokens[:, :6] = PROMPTS
    for step in range(12):
        at = LENGTHS + step
        tokens[np.arange(4), at] = np.argmax(scores_of(tokens)[np.arange(4), at - 1], axis=-1)
    for row in range(4):
        end = LENGTHS[row] + 12
        np.testing.assert_array_equal(greedy.tokens[row, :end], tokens[row, :end])
    assert not np.any(greedy.behaviour_log_probs) and np.all(greedy.truncated)


def test_a_fork_goes_on_as_its_row_did_and_another_key_does_not():
    rows = rollout(PARAMS, PROMPTS, LENGTHS, 1, FREE, KEY)
    prefixes, told = np.asarray(rows.tokens)[:, :9], dataclasses.replace(FREE, max_new_tokens=9)
    fork = rollout(PARAMS, prefixes, LENGTHS + 3, 1, told, KEY)
    np.testing.assert_array_equal(fork.tokens, rows.tokens)
    other = rollout(PARAMS, prefixes, LENGTHS + 3, 1, told, jax.random.key(8))
    assert np.all(np.any(np.asarray(other.tokens) != np.asarray(rows.tokens), axis=1))


def test_forced_tokens_stand_where_they_are_put_and_end_nothing(found):
    told, samples = found
    forced = np.full((12, 12), -1)
    forced[:, 0], forced[:, 4:7] = STOP, [5, STOP, 6]  # a prefix, and an observation in mid-sequence
    x = fields(rollout(PARAMS, PROMPTS, LENGTHS, 3, dataclasses.replace(told, stop=()), KEY, forced=forced))
    own = shifted(jax.nn.log_softmax(scores_of(x["tokens"])), x["tokens"])
    for row in range(12):
        new = np.s_[row, LENGTHS[row // 3] : LENGTHS[row // 3] + 12]
        put = forced[row] >= 0
        np.testing.assert_array_equal(x["tokens"][new][put], forced[row][put])
        np.testing.assert_array_equal(x["sampled"][new], ~put)
        assert not x["behaviour_log_probs"][new][put].any()
        np.testing.assert_allclose(x["log_probs"][new], own[new], atol=1e-4)
    assert np.all(x["truncated"])
    # With stop tokens too, only a drawn one ends a row.
    stopped = fields(rollout(PARAMS, PROMPTS, LENGTHS, 3, told, KEY, forced=forced))
    assert np.all(stopped["lengths"] > stopped["prompt_lengths"] + 1)


@pytest.mark.parametrize("temperature, top_k, top_p, allowed", [
    (1.0, 0, 1.0, [0, 1, 2, 3, 4]),
    (0.5, 0, 1.0, [0, 1, 2, 3, 4]),
    (1.0, 3, 1.0, [0, 1, 2]),
    (1.0, 0, 0.6, [0, 1]),  # 0.4 and 0.3
    (1.0, 3, 0.75, [0, 1]),  # 7 / 9 of the three
    (2.0, 0, 0.4, [0, 1]),  # 0.31 and 0.26
])
def test_frequencies_are_the_exact_probabilities(temperature, top_k, top_p, allowed):
    probs = np.array([0.4, 0.3, 0.2, 0.06, 0.04])
    expected = np.where(np.isin(np.arange(5), allowed), probs ** (1 / temperature), 0)
    expected /= expected.sum()
    order = np.array([3, 0, 4, 1, 2])  # not sorted
    scores = jnp.tile(jnp.log(probs[order]) + 5.0, (20_000, 1))
    told = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=1)
    tokens, log_probs = jax.jit(draw, static_argnums=2)(scores, jax.random.split(KEY, 20_000), told)
    np.testing.assert_allclose(log_probs, np.log(expected[order[tokens]]), atol=1e-5)
    counts = np.bincount(order[tokens], minlength=5)[allowed]
    assert counts.sum() == 20_000 and scipy.stats.chisquare(counts, 20_000 * expected[allowed]).pvalue > 1e-3


def test_the_loop_ends_with_the_last_row(monkeypatch):
    """Counted in a program of its own, whose decoder calls the host: the prefill, then a call a token but the first."""
    calls = []

    def counted(config, layers, tokens, *others):
        jax.debug.callback(lambda: calls.append(tokens.shape[1]))
        return sampler_decode(config, layers, tokens, *others)

    sampler_decode = sampler.decode
    monkeypatch.setattr(sampler, "decode", counted)
    told = dataclasses.replace(FREE, stop=tuple(range(32)))
    run = jax.jit(sampler.generate, static_argnames=("config", "n", "sampling"))
    free = jnp.full((4, 12), -1).at[1, :3].set(5)
    samples, _ = run(CONFIG, PARAMS, PROMPTS, LENGTHS, 1, told, KEY, np.arange(4), free)
    jax.block_until_ready(samples)
    jax.effects_barrier()
    np.testing.assert_array_equal(samples.lengths - LENGTHS, [1, 4, 1, 1])
    assert sorted(calls) == [1, 1, 1, 6]


def test_bytes_are_those_of_caches_and_logits():
    # Two layers of keys and values, 2 heads of 4 in two bytes each, and a byte a slot; 4 x 6 and 12 x 17 slots.
    slots, rows = 4 * 6 + 12 * 17, 12
    assert sampler_bytes(CONFIG, 4, 6, 3, FREE, jnp.bfloat16) == slots * (2 * 2 * 2 * 4 * 2 + 1) + 8 + 2 * rows * 32 * 4


BROKEN = jax.tree.map(lambda x: x, PARAMS)
BROKEN["norm"] = {"scale": PARAMS["norm"]["scale"].at[0].set(jnp.nan)}
OUTSIDE = np.where(PROMPTS == PROMPTS[3, 4], 32, PROMPTS)


@pytest.mark.parametrize("changed, error, message", [
    ({"prompts": OUTSIDE}, ValueError, r"is the token 32: the vocabulary has 0 to 31"),
    ({"forced": np.full((4, 12), -2)}, ValueError, r"forced\[0, 0\] is the token -2"),
    ({"forced": np.full((4, 11), -1)}, ValueError, r"forced is int64\[4, 11\]: integers \[4, 12\] are needed"),
    ({"prompts": PROMPTS * 1.0}, ValueError, r"prompts is float64\[4, 6\]: integers"),
    ({"prompt_lengths": np.array([6, 3, 0, 5])}, ValueError, "prompt 2 has the length 0: it is 1 to 6"),
    ({"prompt_lengths": np.array([6, 7, 1, 5])}, ValueError, "prompt 1 has the length 7: it is 1 to 6"),
    (
        {"sampling": Sampling(max_new_tokens=19)}, ValueError,
        "prompt 0 of 6 tokens and max_new_tokens=19 exceed the context of 24",
    ),
    ({"n": 0}, ValueError, "n=0 samples of 4 prompts"),
    ({"params": BROKEN}, FloatingPointError, r"logits of row 0 \(prompt id 0\) are not finite"),
])
def test_bad_input_is_one_clear_error(changed, error, message):
    given = {"params": PARAMS, "prompts": PROMPTS, "prompt_lengths": LENGTHS, "n": 1, "sampling": FREE, "key": KEY}
    with pytest.raises(error, match=message):
        rollout(**given | changed)


@pytest.mark.parametrize("told", [
    {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_new_tokens": 0},
])
def test_settings_out_of_range_are_named(told):
    (name,) = told
    with pytest.raises(ValueError, match=f"{name}={told[name]}"):
        Sampling(**{"max_new_tokens": 1} | told)
