"""Wordle, a letter a step: six guesses at a word of five letters, with colours after each.

A step writes one letter; the fifth ends a guess, which costs 1 unless it is the word. Five letters that spell no word
of the list are a guess too, one that shows no colours. The sixth guess ends the game: that is a terminal, since the
number of guesses is a part of what is seen. Everything seen before has to be remembered.

The synthetic players whose games are the data stand in for the human ones of Snell et al. 2022 (arXiv 2206.11871).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.config import unknown
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.envs.environment import Environment, Key, TimeStep
from rl_jax.envs.recording import Behaviour, record

LETTERS, LENGTH, GUESSES = 26, 5, 6
GREY, YELLOW, GREEN = range(3)
PLAYERS = ("consistent", "random", "repeating")


class WordleState(NamedTuple):
    """A game; int32. `guess` [5] is being written, `last` [5] was written before it; `colours` [5] are the last's, -1
    where it was no word or there was none. `steps` counts letters."""

    answer: jax.Array
    guess: jax.Array
    last: jax.Array
    colours: jax.Array
    steps: jax.Array


def colours_of(guess: jax.Array, answer: jax.Array) -> jax.Array:
    """The colours [5] of a guess [5] at an answer [5]: GREEN in its place, YELLOW elsewhere in the word, else GREY.

    A letter is coloured as often as the answer has it: first where it is in its place, then from the left.
    """
    green = guess == answer
    same = guess[:, None] == guess[None, :]
    before = jnp.sum(same & ~green[None, :] & (jnp.arange(LENGTH)[None, :] < jnp.arange(LENGTH)[:, None]), 1)
    left = jnp.sum((guess[:, None] == answer[None, :]) & ~green[None, :], 1)
    return jnp.where(green, GREEN, jnp.where(before < left, YELLOW, GREY))


def wordle(answers: np.ndarray, guesses: np.ndarray) -> Environment:
    """The game; observations are [21] float32.

    They hold the place of the letter that comes next [5] and, where that is a word's first, the colours of the guess
    before it [5 x 3] and whether that was no word [1].

    Args:
      answers: [N, 5] letters; each is asked with the same probability.
      guesses: [M, 5], the words there are.
    """
    answers, guesses = jnp.asarray(answers), jnp.asarray(guesses)

    def observe(state: WordleState) -> jax.Array:
        place = state.steps % LENGTH
        shown = (place == 0) & (state.steps > 0)
        colours = jax.nn.one_hot(state.colours, 3).reshape(-1) * shown
        no_word = shown & (state.colours[0] < 0)
        return jnp.concatenate([jax.nn.one_hot(place, LENGTH), colours, no_word[None].astype(jnp.float32)])

    def reset(key: Key) -> tuple[WordleState, jax.Array]:
        nothing = jnp.full(LENGTH, -1, jnp.int32)
        answer = answers[jax.random.randint(key, (), 0, len(answers))]
        state = WordleState(answer, nothing, nothing, nothing, jnp.zeros((), jnp.int32))
        return state, observe(state)

    def step(state: WordleState, action: jax.Array, key: Key) -> tuple[WordleState, TimeStep]:
        del key
        guess, steps = state.guess.at[state.steps % LENGTH].set(action), state.steps + 1
        whole = steps % LENGTH == 0
        is_word = jnp.any(jnp.all(guesses == guess, 1))
        colours = jnp.where(whole, jnp.where(is_word, colours_of(guess, state.answer), -1), state.colours)
        solved = whole & jnp.all(colours == GREEN)
        state = WordleState(state.answer, guess, jnp.where(whole, guess, state.last), colours, steps)
        reward = -(whole & ~solved).astype(jnp.float32)
        terminated = solved | (steps >= GUESSES * LENGTH)
        return state, TimeStep(observe(state), reward, terminated, jnp.zeros((), bool))

    return Environment(reset, step, LETTERS, GUESSES * LENGTH)


def player(kind: str, guesses: np.ndarray) -> Behaviour:
    """One of PLAYERS, who writes words of the list: "consistent" a word that agrees with all colours so far, "random"
    any word, and "repeating" every other time the word that it wrote last.

    It remembers which words agree [M], and the number of the word that it writes.
    """
    if kind not in PLAYERS:
        raise ValueError(unknown("player", kind, PLAYERS))
    words = jnp.asarray(guesses)

    def act(memory: tuple[jax.Array, jax.Array], state: WordleState, key: Key) -> tuple[tuple, jax.Array]:
        agree, word = memory
        choice_key, repeat_key = jax.random.split(key)
        told = (state.steps > 0) & (state.colours[0] >= 0)
        same = jax.vmap(lambda other: jnp.all(colours_of(state.last, other) == state.colours))(words)
        agree = agree & (same | ~told)
        among = jnp.ones_like(agree) if kind == "random" else agree
        chosen = jax.random.categorical(choice_key, jnp.where(among, 0.0, -jnp.inf))
        if kind == "repeating":
            chosen = jnp.where(jax.random.bernoulli(repeat_key) & (state.steps > 0), word, chosen)
        place = state.steps % LENGTH
        word = jnp.where(place == 0, chosen.astype(jnp.int32), word)
        return (agree, word), words[word, place]

    return Behaviour(lambda key: (jnp.ones(len(words), bool), jnp.zeros((), jnp.int32)), act)


def recorded_games(num_episodes: int, answers: np.ndarray, guesses: np.ndarray, seed: int) -> Episodes:
    """Games of all PLAYERS, a third each.

    Raises:
      ValueError: the number does not divide by three.
    """
    if num_episodes % len(PLAYERS):
        raise ValueError(f"config.data.episodes={num_episodes}: give a multiple of {len(PLAYERS)}, a part a player")
    keys = jax.random.split(jax.random.key(seed), len(PLAYERS))
    return concatenate_episodes(
        record(wordle(answers, guesses), player(kind, guesses), num_episodes // len(PLAYERS), key)
        for kind, key in zip(PLAYERS, keys, strict=True)
    )
