"""Records as documents and pairs of rows: what is learnt, what is compared, and what is wrong with a record."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from rl_jax.data.text.records import Answer, Pair
from rl_jax.language import pairs
from rl_jax.language.documents import answer_documents, encode, pair_documents
from rl_jax.language.pretrained import Pretrained
from rl_jax.language.rows import TooLongError
from tests.language.tiny import CONFIG

LETTERS = "\n :abcdefghijklmnopqrstuvwxyzASU"
BOS, EOS = 40, 41
ASKED = ({"role": "user", "content": "ab"},)


def encoded(text, bos=False):
    return np.asarray([BOS] * bos + [LETTERS.index(letter) for letter in text], np.int32)


TEMPLATE = SimpleNamespace(prompt=lambda tokenizer, messages: encoded("".join(m["content"] for m in messages) + ":"))
TOKENIZER = SimpleNamespace(encode=encoded, bos=BOS, eos=EOS)
MODEL = Pretrained(dataclasses.replace(CONFIG, vocab_size=42, context_length=32), {}, TOKENIZER, None)


def learnt(document):
    return document.tokens[document.mask > 0].tolist()


def test_an_answer_is_learnt_with_its_end_and_a_prompt_is_not():
    document = encode(MODEL, ASKED, "cd")
    assert document.tokens.tolist() == [BOS, *encoded("User: ab\nAssistant: cd"), EOS]
    assert learnt(document) == [*encoded(" cd"), EOS]


def test_a_chat_template_makes_the_prompt():
    document = encode(MODEL._replace(template=TEMPLATE), ASKED, "cd")
    assert document.tokens.tolist() == [*encoded("ab:cd"), EOS] and learnt(document) == [*encoded("cd"), EOS]


def test_of_a_plain_document_everything_is_learnt():
    assert learnt(encode(MODEL, (), "cd")) == [*encoded("cd"), EOS]
    without = MODEL._replace(tokenizer=SimpleNamespace(encode=encoded, bos=None, eos=EOS))
    assert encode(without, (), "cd").tokens.tolist() == [EOS, *encoded("cd"), EOS]


def test_what_is_wrong_with_a_record_is_one_error_that_names_it():
    with pytest.raises(ValueError, match="set, record 2: an answer is empty"):
        answer_documents(MODEL, [Answer((), "a"), Answer(ASKED, " \n")], "set", 30)
    small = MODEL._replace(config=dataclasses.replace(CONFIG, vocab_size=41))
    with pytest.raises(ValueError, match="set, record 1: token 41 is outside the vocabulary of 41"):
        pair_documents(small, [Pair((), "a", "b")], "set", 30)
    with pytest.raises(TooLongError, match="a prompt of 56 tokens makes a document .* longer than the context of 32"):
        encode(MODEL, ({"role": "user", "content": "a" * 38},), "b")
    with pytest.raises(ValueError, match="set: all 2 records are longer than config.data.longest=5"):
        answer_documents(MODEL, [Answer((), "abcdef")] * 2, "set", 5)
    with pytest.raises(ValueError, match="config.data.longest=33 is longer than the model's context of 32"):
        answer_documents(MODEL, [Answer((), "a")], "set", 33)


def test_longer_records_are_left_out_and_the_first_ones_taken():
    found = answer_documents(MODEL, [Answer((), text) for text in ("a", "abcdefgh", "b", "c")], "set", 6, 2)
    assert [learnt(document)[0] for document in found] == [encoded("a")[0], encoded("b")[0]]


def test_rows_of_one_prompt_have_one_group():
    other = ({"role": "user", "content": "x"},)
    found = pair_documents(MODEL, [Pair(prompt, "a", "b", 2.0) for prompt in (ASKED, other, ASKED)], "set", 30)
    rows = pairs.compared(found, 30)
    assert rows.first.group.tolist() == rows.second.group.tolist() == [0, 1, 0]
    assert rows.margin.tolist() == [2.0] * 3 and rows.desirable.all()
    both = rows.rows()
    np.testing.assert_array_equal(both.tokens[0::2], rows.first.tokens)
    np.testing.assert_array_equal(both.tokens[1::2], rows.second.tokens)
    assert [x.tolist() for x in pairs.apart(np.arange(6))] == [[0, 2, 4], [1, 3, 5]]


def test_judged_answers_stand_beside_those_of_other_prompts():
    records = [Answer(ASKED, "c"), Answer(ASKED, "d", False), Answer((), "ef")]
    rows = pairs.judged(answer_documents(MODEL, records, "set", 30), 30)
    assert rows.desirable.tolist() == [True, False, True]
    first, second, third = rows.second.tokens
    # The prompt of its own with the answer of the third record, the only one of another prompt.
    expected = [BOS, *encoded("User: ab\nAssistant:ef"), EOS]
    assert first[: len(expected)].tolist() == second[: len(expected)].tolist() == expected
    assert third[:4].tolist() == [BOS, *encoded(" c"), EOS]
    with pytest.raises(ValueError, match="all answers are to one prompt"):
        pairs.judged(answer_documents(MODEL, records[:2], "set", 30), 30)
    with pytest.raises(ValueError, match="2 of 2 answers are desirable: KTO learns from both kinds"):
        pairs.judged(answer_documents(MODEL, records[::2], "set", 30), 30)
