"""Tokenizers and spans: against the encoder that the pieces were made for, by hand, and byte by byte."""

import json
import random
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from rl_jax.core.extras import MissingExtraError
from rl_jax.language import spans, stories, text
from rl_jax.language.text import Tokenizer
from tests.language import folders

STORIES = stories.load_tokenizer()
BYTES = Tokenizer(folders.backend(), eos=260, pad=260, source="tiny")
PIECES = json.loads((stories.FOLDER / "vocab.json").read_text(encoding="utf-8"))


def by_scores(words: str) -> list[int]:
    """The encoder that the 512 pieces come from: letters, or bytes, then each time the join of the best score."""
    ids = {piece: token for token, (piece, _) in enumerate(PIECES)}
    parts = []
    for letter in f" {words}":
        parts += [letter] if letter in ids else [f"<0x{byte:02X}>" for byte in letter.encode()]
    while True:
        joins = [(PIECES[ids[a + b]][1], -i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ids]
        if not joins:
            return [ids[part] for part in parts]
        place = -max(joins)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def test_the_story_tokenizer_is_the_encoder_by_scores():
    draw = random.Random(0)
    pieces = [piece for piece, _ in PIECES[259:]]
    texts = ["Once upon a time, there was a little girl named Lily.", "", "  two  spaces", "naïve 😀\n\tend"]
    texts += ["".join(draw.choices(pieces, k=8)) for _ in range(200)]
    texts += ["".join(draw.choices("abcdeht  ,.\nTOé", k=30)) for _ in range(200)]
    for words in texts:
        tokens = STORIES.encode(words, bos=True)
        assert tokens.dtype == np.int32 and tokens.tolist() == [1, *by_scores(words)]
        assert STORIES.decode(tokens) == words
        assert STORIES.decode(tokens, special=True) == f"<s>{words}"


def test_text_in_the_middle_of_a_row_gets_no_space():
    row = [*STORIES.encode("Once upon", bos=True), *STORIES.encode(" a time"), *STORIES.encode("less")]
    assert STORIES.decode(row) == "Once upon a timeless"
    assert STORIES.decode(STORIES.encode(" a time")) == " a time"


def test_bytes_letters_and_special_tokens():
    words = "<|user|>a ab café 😀 all<|end|>"
    tokens = BYTES.encode(words)
    assert BYTES.vocab_size == 263 and BYTES.special == {260, 261, 262}
    assert tokens.tolist()[:3] == [261, ord("a"), 257]
    whole = BYTES.backend.decode(tokens.tolist(), skip_special_tokens=False)
    assert BYTES.decode(tokens, special=True) == words == whole
    assert BYTES.decode(tokens) == "a ab café 😀 all" == BYTES.backend.decode(tokens.tolist())
    found = BYTES.located(tokens)
    assert found.text == words
    smile = words.index("😀")
    start, end = found.tokens(smile, smile + 1)
    assert end - start == 4  # its four bytes share one character
    assert set(zip(found.starts[start:end].tolist(), found.ends[start:end].tolist())) == {(smile, smile + 1)}
    assert [words[a:b] for a, b in zip(found.starts[:3], found.ends[:3])] == ["<|user|>", "a", " ab"]


@pytest.mark.parametrize("tokenizer", [STORIES, BYTES], ids=["stories", "bytes"])
def test_any_tokens_have_a_text_and_every_character_has_tokens(tokenizer):
    draw = random.Random(1)
    for _ in range(100):
        tokens = [draw.randrange(3, tokenizer.vocab_size) for _ in range(draw.randrange(30))]
        found = tokenizer.located(tokens)
        assert found.text == tokenizer.decode(tokens, special=True)
        covered = np.zeros(len(found.text) + 1, int)
        for start, end in zip(found.starts, found.ends):
            assert start <= end
            covered[start:end] += 1
        assert np.all(covered[: len(found.text)] > 0)
        assert np.all(np.diff(found.starts) >= 0) and np.all(np.diff(found.ends) >= 0)
    broken = [token for token, byte in enumerate(tokenizer._bytes) if byte == b"\xf0"]
    assert tokenizer.decode([*broken, *tokenizer.encode("a")]) == "\ufffda"


def test_marks_tags_and_steps_are_token_ranges():
    words = "<answer>ab</answer> Step 1: all\n\nStep 2: ab.\n\n\n"
    tokens = BYTES.encode(words)
    found = BYTES.located(tokens)

    def texts(ranges):
        return [BYTES.decode(tokens[start:end], special=True) for start, end in ranges]

    assert texts(found.tags("answer")) == ["ab"]
    assert texts(found.spans(r"Step \d+")) == ["Step 1", "Step 2"]
    assert texts(found.spans(r"Step (\d+)")) == ["1", "2"]
    assert texts(found.steps("\n\n")) == ["<answer>ab</answer> Step 1: all\n\n", "Step 2: ab.\n\n\n"]
    assert texts(found.steps(r"(?=Step \d)")) == ["<answer>ab</answer> ", "Step 1: all\n\n", "Step 2: ab.\n\n\n"]
    assert found.tags("absent") == []
    assert BYTES.located([]).steps() == []
    # A mark inside of a token takes the whole token.
    assert texts(found.spans("b(?=</)")) == ["ab"]


def test_steps_split_a_row_whatever_its_tokens():
    draw = random.Random(2)
    for _ in range(100):
        tokens = [draw.choice([10, 257, 64, 32, 256]) for _ in range(draw.randrange(1, 20))]
        steps = BYTES.located(tokens).steps()
        assert [place for start, end in steps for place in range(start, end)] == list(range(len(tokens)))


def test_changes_are_ranges_of_both_rows():
    assert spans.changes([1, 2, 3, 4], [1, 9, 3, 4, 5]) == ([(1, 2)], [(1, 2), (4, 5)])
    assert spans.changes([1, 2], [1, 2]) == ([], [])
    assert spans.changes([], [7]) == ([], [(0, 1)])
    # Between two changes a match of one token; the last token is only put in.
    before, after = [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 9, 5, 8, 7, 0]
    assert spans.changes(before, after) == ([(3, 4), (5, 6)], [(3, 4), (5, 6), (7, 8)])
    assert spans.changes(before, after, one_sided=False) == ([(3, 4), (5, 6)], [(3, 4), (5, 6)])
    assert spans.changes(before, after, shortest=3) == ([(3, 7)], [(3, 8)])
    assert spans.changes([1, 2], [1, 2, 3], one_sided=False) == ([], [])


def test_a_label_must_be_one_token():
    assert BYTES.decode([BYTES.single_token(" ab")]) == " ab"
    with pytest.raises(ValueError, match="'abab' is not one token of tiny but 'ab', 'ab': choose another label"):
        BYTES.single_token("abab")
    with pytest.raises(ValueError, match="but nothing"):
        BYTES.single_token("")


def test_what_has_no_tokens_or_no_text_is_refused():
    with pytest.raises(ValueError, match="token 263 at place 1 lies outside of the 263 tokens of tiny"):
        BYTES.decode([3, 263])
    with pytest.raises(ValueError, match="token -1 at place 0"):
        BYTES.located([-1])
    with pytest.raises(ValueError, match="is not Unicode text"):
        BYTES.encode("\ud800")
    with pytest.raises(ValueError, match="tiny has no token that begins a document"):
        BYTES.encode("a", bos=True)
    with pytest.raises(ValueError, match="pad is 263, outside of its 263 tokens"):
        Tokenizer(folders.backend(), eos=1, pad=263)


@pytest.mark.parametrize("tokenizer", [STORIES, BYTES], ids=["stories", "bytes"])
def test_what_is_written_is_read_back_and_means_the_same_to_others(tokenizer, tmp_path):
    settings = text.save_tokenizer(tokenizer, tmp_path)
    read = text.load_tokenizer(tmp_path, settings)
    assert (read.eos, read.pad, read.bos) == (tokenizer.eos, tokenizer.pad, tokenizer.bos)
    begins = tokenizer.bos is not None
    words = "Once upon a time, all ab é"
    np.testing.assert_array_equal(read.encode(words, begins), tokenizer.encode(words, begins))
    np.testing.assert_array_equal(read.encode(words), tokenizer.encode(words))
    others = Backend.from_file(str(tmp_path / "tokenizer.json"))
    assert others.encode(words, add_special_tokens=False).ids == tokenizer.encode(words, begins).tolist()[begins:]


def test_folders_without_a_whole_tokenizer_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="tokenizer.json is missing"):
        text.load_tokenizer(tmp_path, {})
    file = tmp_path / "tokenizer.json"
    file.write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json is damaged, it is no tokenizer"):
        text.load_tokenizer(tmp_path, {})
    Backend(models.WordLevel({"a": 0}, unk_token="a")).save(str(file))
    with pytest.raises(ValueError, match="is a WordLevel tokenizer"):
        text.load_tokenizer(tmp_path, {})
    folders.backend().save(str(file))
    with pytest.raises(ValueError, match="names no eos_token"):
        text.load_tokenizer(tmp_path, {})
    with pytest.raises(ValueError, match="has no '</s>', the eos_token"):
        text.load_tokenizer(tmp_path, {"eos_token": "</s>"})
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rl_jax\[language\]'"):
        text.load_tokenizer(tmp_path, {})
