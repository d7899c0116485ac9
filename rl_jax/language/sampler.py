"""Sampling from a decoder: prompts as token prefixes, n samples each that share one prefill, tokens in and tokens out.

A sample's randomness is folded from its prompt's id, its number among that prompt's samples and each token's position.
So neither the order of a batch nor where it is computed changes a text, and a text that is forked at any of its tokens
under its own numbers goes on as it did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import PyTree
from rl_jax.language.decoder import (
    Cache,
    DecoderConfig,
    cache_bytes,
    decode,
    extended,
    head_kernel,
    init_cache,
    logits,
    unstack,
)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
      temperature: the logits are divided by it; 0 takes the most likely token.
      top_k: only the k most likely tokens may be drawn; 0 for all.
      top_p: of these, only the fewest whose renormalised probabilities sum to p (Holtzman et al. 2019, arXiv
        1904.09751). Tokens as likely as the last one allowed are allowed too, by either rule.
      max_new_tokens: most tokens after a prompt, drawn and forced.
      stop: a sample ends with the first of these that is drawn.

    Raises:
      ValueError: a number is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int
    stop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ranges = {
            "temperature": self.temperature >= 0, "top_k": self.top_k >= 0, "top_p": 0 < self.top_p <= 1,
            "max_new_tokens": self.max_new_tokens >= 1,
        }
        for name, fits in ranges.items():
            if not fits:
                raise ValueError(
                    f"{name}={getattr(self, name)}: temperature and top_k are 0 or more, top_p in (0, 1], "
                    "max_new_tokens 1 or more"
                )


class Samples(struct.PyTreeNode):
    """Prompts with what was sampled after them: R = P n rows, a prompt's samples side by side, T = T0 + max_new_tokens.

    Entry t speaks of token t given those before it. Rows are left-aligned; after `lengths`, and in the log-probs of
    prompts, everything is 0.

    Attributes:
      tokens: [R, T] int32.
      lengths: [R], of prompt and sample, the stop token included.
      prompt_lengths: [R].
      sampled: [R, T] bool, the tokens that were drawn, neither given nor forced.
      log_probs: [R, T], of drawn and of forced tokens under the model itself, at temperature 1 and unfiltered.
      behaviour_log_probs: [R, T], of drawn tokens under the distribution that they were drawn from.
      truncated: [R] bool, the samples that no stop token ended.
    """

    tokens: jax.Array
    lengths: jax.Array
    prompt_lengths: jax.Array
    sampled: jax.Array
    log_probs: jax.Array
    behaviour_log_probs: jax.Array
    truncated: jax.Array


def padded(prompts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of different lengths as `sample` takes them: tokens [P, T0], padded on the right, and lengths [P]."""
    lengths = np.array([len(prompt) for prompt in prompts])
    width = lengths.max(initial=0)
    return np.stack([np.pad(prompt, (0, width - len(prompt))) for prompt in prompts]), lengths


def answers(samples: Samples) -> list[np.ndarray]:
    """The tokens after the prompt of each row, the stop token included."""
    rows = zip(np.asarray(samples.tokens), samples.prompt_lengths, samples.lengths, strict=True)
    return [tokens[start:end] for tokens, start, end in rows]


def prompts_and_answers(
    samples: Samples, max_new_tokens: int
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Prompts (tokens [R, T0], lengths [R]) and answers (tokens [R, max_new_tokens], lengths [R]), left-aligned."""
    width = samples.tokens.shape[1] - max_new_tokens
    lengths = samples.lengths - samples.prompt_lengths
    prompts = jnp.where(jnp.arange(width) < samples.prompt_lengths[:, None], samples.tokens[:, :width], 0)
    places = jnp.arange(max_new_tokens)
    answered = jnp.take_along_axis(samples.tokens, samples.prompt_lengths[:, None] + places, axis=1, mode="clip")
    return (prompts, samples.prompt_lengths), (jnp.where(places < lengths[:, None], answered, 0), lengths)


class Rollout(Protocol):
    """What trainers ask for samples, `functools.partial(sample, config)` or a serving engine behind the same call."""

    def __call__(
        self, params: PyTree, prompts: np.ndarray, prompt_lengths: np.ndarray, n: int, sampling: Sampling,
        key: jax.Array, *, prompt_ids: np.ndarray | None = None, forced: np.ndarray | None = None,
    ) -> Samples: ...


def sample(
    config: DecoderConfig, params: PyTree, prompts: np.ndarray, prompt_lengths: np.ndarray, n: int, sampling: Sampling,
    key: jax.Array, *, prompt_ids: np.ndarray | None = None, forced: np.ndarray | None = None,
    dtype: Any = jnp.float32,
) -> Samples:
    """Samples from the host, compiled once for every shape of its arguments.

    Args:
      params: of `Decoder`, stacked.
      prompts: [P, T0] int, right-padded.
      prompt_lengths: [P].
      n: samples of each prompt.
      prompt_ids: [P], what a prompt's randomness is folded from; its row where not given.
      forced: [P n, max_new_tokens] int, the token that stands there whatever is drawn, -1 where the sample is free:
        the rest of a fork, what a tool or a user answers. A forced stop token ends nothing.
      dtype: of the layers and the cache.

    Raises:
      ValueError: an argument's shape is wrong, a prompt is empty or longer than T0, a token is outside the vocabulary,
        or a prompt and max_new_tokens exceed the context.
      FloatingPointError: the decoder's logits are not finite.
    """
    prompts, prompt_lengths = np.asarray(prompts), np.asarray(prompt_lengths)
    rows = len(prompts) * n
    prompt_ids = np.arange(len(prompts)) if prompt_ids is None else np.asarray(prompt_ids)
    forced = np.full((rows, sampling.max_new_tokens), -1) if forced is None else np.asarray(forced)
    _check(config, prompts, prompt_lengths, prompt_ids, n, sampling, forced)
    found, finite = _generate(
        config, params, prompts.astype(np.int32), prompt_lengths.astype(np.int32), n, sampling, key,
        prompt_ids.astype(np.int32), forced.astype(np.int32), dtype,
    )
    if not np.all(finite):
        row = int(np.argmin(finite))
        raise FloatingPointError(
            f"the decoder's logits of row {row} (prompt id {prompt_ids[row // n]}) are not finite: its weights hold "
            "NaN or infinity, or overflow in this dtype"
        )
    return found


def _check(
    config: DecoderConfig, prompts: np.ndarray, lengths: np.ndarray, prompt_ids: np.ndarray, n: int,
    sampling: Sampling, forced: np.ndarray,
) -> None:
    shapes = {
        "prompts": (prompts, (len(prompts), prompts.shape[-1])), "prompt_lengths": (lengths, (len(prompts),)),
        "prompt_ids": (prompt_ids, (len(prompts),)),
        "forced": (forced, (len(prompts) * n, sampling.max_new_tokens)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}: integers {list(shape)} are needed")
    if n < 1 or not len(prompts):
        raise ValueError(f"n={n} samples of {len(prompts)} prompts: there must be one at least of each")
    fits = (lengths >= 1) & (lengths <= prompts.shape[1])
    if not np.all(fits):
        row = int(np.argmin(fits))
        raise ValueError(f"prompt {row} has the length {lengths[row]}: it is 1 to {prompts.shape[1]}, its row's length")
    needed = int(lengths.max()) + sampling.max_new_tokens
    if needed > config.context_length:
        raise ValueError(
            f"prompt {int(np.argmax(lengths))} of {lengths.max()} tokens and max_new_tokens="
            f"{sampling.max_new_tokens} exceed the context of {config.context_length}: shorten one of them"
        )
    given = np.arange(prompts.shape[1]) < lengths[:, None]
    for name, tokens, least in (("prompts", np.where(given, prompts, 0), 0), ("forced", forced, -1)):
        outside = (tokens < least) | (tokens >= config.vocab_size)
        if outside.any():
            row, at = np.argwhere(outside)[0]
            raise ValueError(
                f"{name}[{row}, {at}] is the token {tokens[row, at]}: the vocabulary has 0 to {config.vocab_size - 1}"
            )


class _State(struct.PyTreeNode):
    """The loop's carry: `count` tokens were written to tokens, log_probs and behaviour [R, N]; `active` rows go on."""

    count: jax.Array
    tokens: jax.Array
    log_probs: jax.Array
    behaviour: jax.Array
    lengths: jax.Array  # [R], of the new tokens
    active: jax.Array
    finite: jax.Array
    cache: Cache


def generate(
    config: DecoderConfig, params: PyTree, prompts: jax.Array, prompt_lengths: jax.Array, n: int, sampling: Sampling,
    key: jax.Array, prompt_ids: jax.Array, forced: jax.Array, dtype: Any = jnp.float32,
) -> tuple[Samples, jax.Array]:
    """`sample` without its checks, for use inside a compiled step; also whether each row's logits were finite [R]."""
    number, length = prompts.shape
    new, rows = sampling.max_new_tokens, number * n
    kernel, layers = head_kernel(params, config), unstack(params, config, dtype)
    positions = jnp.arange(length)
    hidden, cache = decode(
        config, layers, prompts, jnp.where(positions < prompt_lengths[:, None], positions, -1),
        init_cache(config, number, length, dtype),
    )
    last = jnp.take_along_axis(hidden, prompt_lengths[:, None, None] - 1, axis=1)[:, 0]
    keys = jax.vmap(lambda i: jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, i)))(jnp.arange(n)))
    keys = keys(prompt_ids)
    keys = keys.reshape(rows, *keys.shape[2:])  # typed keys, or the older pairs of numbers

    def spread(x: jax.Array) -> jax.Array:
        """A prompt's entry for each of its samples."""
        return jnp.repeat(x, n, axis=0)

    first, prompts, prompt_lengths = (spread(x) for x in (logits(last, kernel), prompts, prompt_lengths))
    cache = extended(cache.replace(layers=jax.tree.map(spread, cache.layers), seen=spread(cache.seen)), new - 1)
    cache = cache.replace(layers=shard_batch(cache.layers), seen=shard_batch(cache.seen))
    zeros = jnp.zeros((rows, new))
    state = _State(
        jnp.zeros((), jnp.int32), zeros.astype(jnp.int32), zeros, zeros, jnp.zeros(rows, jnp.int32),
        jnp.ones(rows, bool), jnp.ones(rows, bool), cache,
    )

    def write(state: _State, scores: jax.Array) -> _State:
        """Puts the next token of every active row, by its logits [R, V]."""
        at = state.count
        token, behaviour = draw(scores, jax.vmap(jax.random.fold_in)(keys, prompt_lengths + at), sampling)
        given = jax.lax.dynamic_index_in_dim(forced, at, axis=1, keepdims=False)
        free = given < 0
        token = jnp.where(free, token, given)
        entries = (state.tokens, token), (state.log_probs, _at(scores, token)), (state.behaviour, free * behaviour)
        tokens, log_probs, behaviour = (
            jax.lax.dynamic_update_index_in_dim(old, jnp.where(state.active, entry, 0), at, axis=1)
            for old, entry in entries
        )
        stops = free & jnp.isin(token, jnp.array(sampling.stop, jnp.int32))
        finite = state.finite & (jnp.all(jnp.isfinite(scores), axis=-1) | ~state.active)
        return _State(
            at + 1, tokens, log_probs, behaviour, state.lengths + state.active, state.active & ~stops, finite,
            state.cache,
        )

    def step(state: _State) -> _State:
        token = jax.lax.dynamic_slice_in_dim(state.tokens, state.count - 1, 1, axis=1)
        at = jnp.where(state.active, prompt_lengths + state.count - 1, -1)
        hidden, cache = decode(config, layers, token, at[:, None], state.cache)
        return write(state.replace(cache=cache), logits(hidden[:, 0], kernel))

    state = jax.lax.while_loop(
        lambda state: (state.count < new) & jnp.any(state.active), step, write(state, first)
    )
    return _left_aligned(state, prompts, prompt_lengths, forced), state.finite


_generate = jax.jit(generate, static_argnames=("config", "n", "sampling", "dtype"))


def _left_aligned(state: _State, prompts: jax.Array, prompt_lengths: jax.Array, forced: jax.Array) -> Samples:
    rows, length = prompts.shape
    place = jnp.arange(length + state.tokens.shape[1])
    start, lengths = prompt_lengths[:, None], prompt_lengths + state.lengths
    source = jnp.where(place < start, place, place + length - start)
    present = place < lengths[:, None]

    def joined(prompt: jax.Array, new: jax.Array) -> jax.Array:
        both = jnp.concatenate([prompt, new], axis=1)
        return jnp.where(present, jnp.take_along_axis(both, source, axis=1, mode="clip"), 0)

    nothing = jnp.zeros((rows, length))
    return Samples(
        joined(prompts, state.tokens), lengths, prompt_lengths, joined(nothing.astype(bool), forced < 0),
        joined(nothing, state.log_probs), joined(nothing, state.behaviour), state.active,
    )


def draw(scores: jax.Array, keys: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """Tokens [R] and their log-probs under the distribution that they are drawn from; logits [R, V], keys [R]."""
    if sampling.temperature == 0:
        return jnp.argmax(scores, axis=-1), jnp.zeros(len(scores))
    allowed = allow(scores / sampling.temperature, sampling.top_k, sampling.top_p)
    token = jax.vmap(jax.random.categorical)(keys, allowed)
    return token, _at(allowed, token)


def allow(scores: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """The logits [R, V] with -inf at the tokens that top-k, and top-p among the k, rule out."""
    if not top_k and top_p == 1:
        return scores
    largest = jax.lax.top_k(scores, min(top_k or scores.shape[-1], scores.shape[-1]))[0]
    probs = jax.nn.softmax(largest)
    kept = jnp.sum(jnp.cumsum(probs, axis=-1) - probs < top_p, axis=-1)
    least = jnp.take_along_axis(largest, kept[:, None] - 1, axis=-1)
    return jnp.where(scores >= least, scores, -jnp.inf)


def _at(scores: jax.Array, token: jax.Array) -> jax.Array:
    """Log-softmax of logits [R, V] at one token a row."""
    return jnp.take_along_axis(scores, token[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(scores, axis=-1)


def sampler_bytes(
    config: DecoderConfig, prompts: int, prompt_length: int, n: int, sampling: Sampling, dtype: Any = jnp.float32
) -> int:
    """Bytes that `sample` holds beside the parameters: the caches of prompts and of samples, and the logits.

    What a Feed that samples declares as its `bytes`, over the devices of the mesh's `data` axis.
    """
    rows = prompts * n
    scores = 2 * rows * config.vocab_size * 4  # as they come, and as they are drawn from
    return (
        cache_bytes(config, prompts, prompt_length, dtype)
        + cache_bytes(config, rows, prompt_length + sampling.max_new_tokens - 1, dtype) + scores
    )
