"""Sets of text: those that lie here are whole, splits keep prompts together, a damaged file is one error."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from rl_jax.data.text import embed, records
from rl_jax.data.text.records import Answer, Pair, answers, documents, judged, load, split

PROMPT = [{"role": "user", "content": "Hello?"}]


def test_the_sets_are_those_that_the_source_says():
    said = dict(re.findall(r"\| (\S+\.xz) \| ([0-9a-f]{64}) \|", (records.FOLDER / "SOURCE.md").read_text()))
    assert said == {
        file: hashlib.sha256((records.FOLDER / file).read_bytes()).hexdigest() for file in records.SETS.values()
    }


@pytest.mark.parametrize("name, kind, number", [
    ("tiny_shakespeare", Answer, 2932), ("gsm8k", Answer, 1200), ("hh_harmless", Pair, 2303), ("dpo_en", Pair, 300),
    ("kto_en", Answer, 300),
])
def test_a_set_by_its_name(name, kind, number):
    found = load(name).records
    assert len(found) == number and {type(record) for record in found} == {kind}
    train, held_out = split(found, 0.2)
    assert len(train) + len(held_out) == number and 0.15 < len(held_out) / number < 0.26
    assert not {records.opening(record) for record in train} & {records.opening(record) for record in held_out}
    assert all(record.prompt[-1]["role"] == "user" for record in found if record.prompt)


def test_rows_of_one_opening_stay_together_wherever_they_stand():
    whole = load("hh_harmless").records
    openings = [records.opening(record) for record in whole]
    assert len(set(openings)) < len(openings)
    forwards, backwards = split(whole, 0.3), split(whole[::-1], 0.3)
    assert [part[::-1] for part in backwards] == list(forwards)


def test_plain_text_is_cut_between_lines_and_nothing_is_lost():
    text = "".join(f"line {number}\n" for number in range(40)) + "x" * 90 + "\n"
    found = documents(text, 60)
    assert "\n".join(found) == text.strip() and max(map(len, found[:-1])) <= 60 and len(found[-1]) == 90


def test_pairs_become_answers_to_imitate_or_to_judge():
    pair, bad = Pair((), "yes", "no"), Answer((), "bad", False)
    assert answers([pair, bad]) == [Answer((), "yes")]
    assert judged([pair, bad]) == [Answer((), "yes"), Answer((), "no", False), bad]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_users_own_file(suffix, tmp_path):
    lines = [{"prompt": PROMPT, "chosen": "a", "rejected": "b", "margin": 2}]
    lines.append({"prompt": [], "chosen": "c", "rejected": "d"})
    content = "\n".join(map(json.dumps, lines)).encode()
    path = tmp_path / f"own.jsonl{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert load(str(path)).records == (Pair(tuple(PROMPT), "a", "b", 2), Pair((), "c", "d"))


@pytest.mark.parametrize("content, message", [
    ('{"prompt": [], "answer": "a"', "line 1 is no JSON"),
    ('\n{"prompt": []}', "line 2 has prompt: a record has prompt and answer, or prompt, chosen and rejected"),
    ('{"prompt": [], "answer": "a", "label": 1}', "line 1 has prompt, answer, label"),
    ("[1]", "line 1 has list"),
    ('{"prompt": "Hello?", "answer": "a"}', "line 1: prompt is not a list of messages"),
    ('{"prompt": [{"role": "user"}], "answer": "a"}', "line 1: prompt is not a list of messages"),
    ('{"prompt": [], "answer": 3}', "line 1: answer is 3: it is another kind of value"),
    ('{"prompt": [], "answer": "a"}\n{"prompt": [], "chosen": "a", "rejected": "b"}', "holds answers and pairs"),
    ("", "holds no record"),
])
def test_a_damaged_file_is_one_error(content, message, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load(str(path))


def test_files_that_are_not_there_or_no_text(tmp_path):
    with pytest.raises(ValueError, match="unknown set of text 'gsm8': did you mean gsm8k.*ends with .txt or .jsonl"):
        load("gsm8")
    with pytest.raises(FileNotFoundError, match="no such file: name one, or a set"):
        load(str(tmp_path / "none.txt"))
    for name, content in (("a.txt", b"\xff\xfe\xff"), ("a.txt.xz", b"no xz"), ("a.txt.gz", gzip.compress(b"abc")[:-9])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="is no text in UTF-8, or damaged"):
            load(str(tmp_path / name))


def test_dialogues_of_hh_rlhf_are_read_turn_by_turn():
    text = "\n\nHuman: A\n\nB\n\nAssistant: C\n\nHuman: D\n\nAssistant: E"
    rejected = text[:-1] + "F"
    lines = [{"chosen": text, "rejected": rejected}, {"chosen": text, "rejected": "\n\nHuman: X\n\nAssistant: E"},
             {"chosen": text[:-1], "rejected": rejected}]
    prompt = [("user", "A\n\nB"), ("assistant", "C"), ("user", "D")]
    assert list(embed.hh_rlhf(lines)) == [
        {"prompt": [{"role": role, "content": said} for role, said in prompt], "chosen": "E", "rejected": "F"}
    ]


def test_embedding_makes_the_sets_of_published_files(tmp_path, monkeypatch):
    """What `python -m rl_jax.data.text.embed FOLDER` does."""
    monkeypatch.setattr(embed, "FOLDER", tmp_path)
    turns = [{"from": "human", "value": "Q"}]
    published = {
        "train.jsonl": {"question": "Q", "answer": "A"},
        "harmless_base_test.jsonl": {name: f"\n\nHuman: Q\n\nAssistant: {name}" for name in ("chosen", "rejected")},
        "dpo_en_demo.json": [{"conversations": turns, "chosen": {"value": "C"}, "rejected": {"value": "R"}}],
        "kto_en_demo.json": [{"messages": [*PROMPT, {"role": "assistant", "content": "A"}], "label": False}],
    }
    texts = {"input.txt": "To be\n"} | {name: json.dumps(content) for name, content in published.items()}
    for name, text in texts.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    embed.main(["embed", str(tmp_path)])
    found = {name: load(str(tmp_path / Path(file).name)).records for name, file in records.SETS.items()}
    asked = ({"role": "user", "content": "Q"},)
    assert found == {
        "tiny_shakespeare": (Answer((), "To be"),), "gsm8k": (Answer(asked, "A"),),
        "hh_harmless": (Pair(asked, "chosen", "rejected"),), "dpo_en": (Pair(asked, "C", "R"),),
        "kto_en": (Answer(tuple(PROMPT), "A", False),),
    }
    with pytest.raises(ValueError, match="give the folder"):
        embed.main(["embed"])
