"""Wordle: colours by hand and by another rule, the game's rewards and end, players that keep to what they were told."""

import hashlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.data.episodes import check_episodes
from rl_jax.data.wordle.words import FOLDER, LISTS, letters, spelled
from rl_jax.envs import wordle
from rl_jax.envs.recording import record

WORDS = letters("answers", 30)


def word(text):
    return jnp.array([ord(letter) - ord("a") for letter in text], jnp.int32)


@pytest.mark.parametrize(
    "guess, answer, colours",
    [("crane", "crane", "22222"), ("speed", "abide", "00101"), ("speed", "erase", "10110"), ("allay", "llama", "12110"),
     ("eerie", "there", "10102"), ("babby", "abbey", "11202")],
)
def test_colours_by_hand(guess, answer, colours):
    found = "".join(str(int(colour)) for colour in wordle.colours_of(word(guess), word(answer)))
    assert found == colours


def test_colours_are_those_of_a_rule_that_crosses_letters_out():
    rng = np.random.default_rng(0)
    guesses, answers = rng.integers(0, 4, (2, 300, 5))  # few letters: many repeat
    found = jax.vmap(wordle.colours_of)(jnp.asarray(guesses), jnp.asarray(answers))
    for guess, answer, got in zip(guesses, answers, found):
        left, want = list(answer), [0] * 5
        for place in range(5):
            if guess[place] == answer[place]:
                want[place] = 2
                left.remove(guess[place])
        for place in range(5):
            if not want[place] and guess[place] in left:
                want[place] = 1
                left.remove(guess[place])
        assert got.tolist() == want


def test_a_game_by_hand():
    """No word, then a wrong one, then the right one."""
    environment = wordle.wordle(WORDS[:1], WORDS)
    step, (state, shown) = jax.jit(environment.step), environment.reset(jax.random.key(0))
    right, wrong = spelled(WORDS[0]), spelled(WORDS[1])
    rewards = []
    for text in ("zzzzz", wrong, right):
        for letter in word(text):
            state, given = step(state, letter, jax.random.key(0))
            rewards.append(float(given.reward))
        shown = np.asarray(given.observation)
        if text == "zzzzz":
            assert shown[-1] == 1 and not shown[5:20].any()
        else:
            colours = wordle.colours_of(word(text), word(right))
            np.testing.assert_array_equal(shown[5:20].reshape(5, 3).argmax(1), colours)
            assert shown[-1] == 0
    assert rewards == [0, 0, 0, 0, -1] * 2 + [0] * 5 and bool(given.terminated) and not bool(given.truncated)


def test_the_consistent_player_agrees_with_what_it_was_told():
    games = record(wordle.wordle(WORDS, WORDS), wordle.player("consistent", WORDS), 20, jax.random.key(0))
    check_episodes(games, "games")
    known, colours_of = {spelled(one) for one in WORDS}, jax.jit(wordle.colours_of)
    for game in range(20):
        own = games.select([game])
        guesses = own.actions.argmax(1).reshape(-1, 5)
        assert {spelled(guess) for guess in guesses} <= known
        assert len({tuple(guess) for guess in guesses}) == len(guesses)
        for n, guess in enumerate(guesses[:-1]):
            told = own.next_observations[5 * n + 4, 5:20].reshape(5, 3).argmax(1)
            for later in guesses[n + 1 :]:
                np.testing.assert_array_equal(colours_of(guess, later), told)


@pytest.mark.slow
def test_players_differ():
    games = wordle.recorded_games(60, WORDS, WORDS, 0)
    consistent, at_random, repeating = games.returns.reshape(3, 20).mean(1)
    assert consistent > repeating > at_random


def test_the_lists_are_what_their_page_says_and_too_many_words_are_named():
    said = dict(re.findall(r"\| (\S+\.xz) \| ([0-9a-f]{64}) \|", (FOLDER / "SOURCE.md").read_text()))
    assert said == {
        f"{name}.txt.xz": hashlib.sha256((FOLDER / f"{name}.txt.xz").read_bytes()).hexdigest() for name in LISTS
    }
    answers, guesses = letters("answers"), letters("guesses")
    assert len(answers) == 2315 and len(guesses) == 12972 and answers.max() < 26 and spelled(answers[0]) == "aback"
    assert {tuple(one) for one in answers} <= {tuple(one) for one in guesses}
    with pytest.raises(ValueError, match="5000 words of answers are asked for, and there are 2315"):
        letters("answers", 5000)
    with pytest.raises(ValueError, match="unknown player 'human'"):
        wordle.player("human", WORDS)
    with pytest.raises(ValueError, match="config.data.episodes=20: give a multiple of 3"):
        wordle.recorded_games(20, WORDS, WORDS, 0)
