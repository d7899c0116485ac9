"""Sorting digits: prompts such as "3140=", the right answer "0134", a verifier, and a cost that an answer may have."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.language.rows import Builder, Rows, pad

LETTERS = "\n0123456789="  # the first one ends an answer
STOP, ZERO, EQUALS = 0, 1, 11


class Task(NamedTuple):
    """Prompts of `digits` digits each; those that are judged are never trained on.

    Attributes:
      train, held_out: tokens [N, digits + 1] int32.
      digits: of a prompt.
      costly: the digit that an answer should not show.
    """

    train: np.ndarray
    held_out: np.ndarray
    digits: int
    costly: int


def make_task(digits: int, judged: int, costly: int) -> Task:
    """All prompts of so many digits in one shuffled order; the last `judged` ones are held out.

    Raises:
      ValueError: none is left to train on.
    """
    number = 10**digits
    if judged >= number:
        raise ValueError(f"config.data.judged={judged} of {number} prompts leaves none to train on")
    order = np.random.default_rng(0).permutation(number)
    tokens = np.stack([order // 10**place % 10 + ZERO for place in range(digits)], axis=1).astype(np.int32)
    tokens = np.pad(tokens, ((0, 0), (0, 1)), constant_values=EQUALS)
    return Task(tokens[:-judged], tokens[-judged:], digits, costly)


def answer(prompts: np.ndarray) -> np.ndarray:
    """The right answers [N, digits + 1], the letter that ends them included, of prompts [N, digits + 1]."""
    return np.pad(np.sort(prompts[:, :-1], axis=1), ((0, 0), (0, 1)), constant_values=STOP)


def solved(prompts: np.ndarray, context_length: int) -> Rows:
    """Rows of prompts with their right answers, which are learnt."""
    documents = []
    for group, (prompt, right) in enumerate(zip(prompts, answer(prompts), strict=True)):
        builder = Builder(len(LETTERS), context_length).append(prompt, sampled=False)
        documents.append(builder.append(right, sampled=True).document(group=group))
    return pad(documents, 2 * prompts.shape[1])


def share_right(tokens: jax.Array, digits: int) -> jax.Array:
    """The reward [B]: the share of an answer's letters that stand where they should, of rows [B, 2 (digits + 1)]."""
    prompt, given = tokens[:, :digits], tokens[:, digits + 1 :]
    right = jnp.pad(jnp.sort(prompt, axis=1), ((0, 0), (0, 1)), constant_values=STOP)
    return jnp.mean((given == right).astype(jnp.float32), axis=1)


def shows(tokens: jax.Array, digits: int, digit: int) -> jax.Array:
    """The cost [B]: 1 where the answer has the digit."""
    return jnp.any(tokens[:, digits + 1 :] == ZERO + digit, axis=1).astype(jnp.float32)
