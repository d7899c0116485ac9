"""Dialogues of several roles: what each reads, what is learnt, who speaks."""

import itertools

import jax
import numpy as np
import pytest

from rl_jax.language.decoder import head_kernel, logits
from rl_jax.language.dialogues import (
    Turn,
    choosing,
    conversed,
    document,
    sampled,
    scripted,
    seen,
    tokens_of,
)
from rl_jax.language.rows import pad
from rl_jax.language.sampler import Sampling
from tests.language.tiny import CONFIG, DECODER, PARAMS, log_probs

MARKS = {"facts": (), "assistant": (10,), "user": (11,), "outcome": (12, 12)}
FACTS = [(Turn("facts", [first, 5]),) for first in (1, 2, 3)]
SAYS = sampled("assistant", CONFIG, PARAMS, MARKS, Sampling(max_new_tokens=4, stop=(0,)), jax.random.key(0), 12)


def last_token(dialogue):
    return [int(dialogue[-1].tokens[-1])]


def test_a_dialogue_is_spoken_in_turn_and_the_assistant_alone_is_learnt():
    """The log-probs that the assistant spoke with are those of its tokens in the whole document."""
    found = conversed(FACTS, [SAYS, scripted("user", last_token), SAYS])
    documents = [document(own, MARKS, CONFIG, group=number) for number, own in enumerate(found)]
    rows = pad(documents, CONFIG.context_length)
    again = np.asarray(jax.jit(log_probs)(PARAMS, rows))
    for row, own in enumerate(found):
        assert [turn.role for turn in own] == ["facts", "assistant", "user", "assistant"]
        tokens = [*FACTS[row][0].tokens, 10, *own[1].tokens, 11, own[1].tokens[-1], 10, *own[3].tokens]
        assert documents[row].tokens.tolist() == tokens and documents[row].group == row
        mask = [0] * 3 + [1] * len(own[1].tokens) + [0] * 3 + [1] * len(own[3].tokens)
        assert documents[row].mask.tolist() == mask
    np.testing.assert_allclose(rows.log_probs, again * rows.mask, atol=1e-4)


def test_who_may_not_see_the_chat_says_the_same_whatever_was_said():
    """The world model reads the facts and the choice; the judge that reads all does not say the same."""
    chats = [
        (*FACTS[0], Turn("assistant", list(said)), Turn("user", [4])) for said in itertools.permutations([6, 7, 8])
    ]

    def outcomes(sees):
        told = Sampling(max_new_tokens=6)
        speaker = sampled("outcome", CONFIG, PARAMS, MARKS, told, jax.random.key(1), 12, sees)
        turns = [speaker([chat])[0] for chat in chats]
        return [(turn.tokens.tolist(), turn.log_probs.tolist()) for turn in turns]

    blind, sighted = outcomes(("facts", "user")), outcomes(None)
    assert all(own == blind[0] for own in blind) and any(own != sighted[0] for own in sighted)
    assert tokens_of(seen(chats[0], ("facts", "user")), MARKS, "outcome").tolist() == [1, 5, 11, 4, 12, 12]


def test_a_choice_is_the_most_likely_of_the_labels():
    speaker = choosing("user", CONFIG, PARAMS, MARKS, (3, 4, 6), 8, at_once=2)
    for own, turn in zip(FACTS, speaker(FACTS), strict=True):
        tokens = tokens_of(own, MARKS, "user")[None]
        hidden = DECODER.apply({"params": PARAMS}, tokens, np.arange(tokens.shape[1])[None], np.ones_like(tokens))
        scores = logits(hidden[0, -1:], head_kernel(PARAMS, CONFIG))[0]
        assert turn.tokens.tolist() == [max((3, 4, 6), key=lambda label: scores[label])]


def test_a_dialogue_that_is_too_long_to_read_is_an_error():
    with pytest.raises(ValueError, match="a dialogue of 15 tokens is longer than the 12 that 'assistant' reads"):
        SAYS([(Turn("facts", [1] * 14),)])
