"""Makes the sets of text that lie here of the files that their authors published (SOURCE.md).

    python -m rl_jax.data.text.embed FOLDER

The folder holds input.txt.gz (Tiny Shakespeare), train.jsonl.gz (GSM8K), harmless_base_test.jsonl.gz (HH-RLHF),
dpo_en_demo.json.gz and kto_en_demo.json.gz (LLaMA-Factory).
"""

import gzip
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rl_jax.core.files import write_atomically
from rl_jax.core.runtime import run_binary
from rl_jax.data.text.records import FOLDER, SETS

GSM8K_ROWS = 1200  # the first ones of its training split
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
TURNS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}


def gsm8k(lines: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    for line in lines[:GSM8K_ROWS]:
        yield {"prompt": [{"role": "user", "content": line["question"]}], "answer": line["answer"]}


def hh_rlhf(lines: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """The last turn of the assistant is the answer. Pairs with different prompts or an empty answer are left out."""
    for line in lines:
        (prompt, chosen), (other, rejected) = (_dialogue(line[name]) for name in ("chosen", "rejected"))
        if prompt == other and chosen and rejected:
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def dpo_demo(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        prompt = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        yield {"prompt": prompt, "chosen": row["chosen"]["value"], "rejected": row["rejected"]["value"]}


def kto_demo(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        *prompt, answer = row["messages"]
        yield {"prompt": prompt, "answer": answer["content"], "desirable": row["label"]}


def _dialogue(text: str) -> tuple[list[dict[str, str]], str]:
    """The messages before the last answer, and that answer."""
    messages = []
    while text:
        mark = next(mark for mark in TURNS if text.startswith(mark))
        ends = [at for other in TURNS if (at := text.find(other, len(mark))) >= 0]
        end = min(ends, default=len(text))
        messages.append({"role": TURNS[mark], "content": text[len(mark) : end].strip()})
        text = text[end:]
    return messages[:-1], messages[-1]["content"]


def compressed(records: Iterable[dict[str, Any]]) -> bytes:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise ValueError("give the folder that holds the published files")

    def read(name: str) -> str:
        return gzip.decompress((Path(argv[1]) / name).read_bytes()).decode()

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in read(name).splitlines()]

    shakespeare = lzma.compress(read("input.txt.gz").encode(), preset=9 | lzma.PRESET_EXTREME)
    made = {
        "tiny_shakespeare": shakespeare,
        "gsm8k": compressed(gsm8k(lines("train.jsonl.gz"))),
        "hh_harmless": compressed(hh_rlhf(lines("harmless_base_test.jsonl.gz"))),
        "dpo_en": compressed(dpo_demo(json.loads(read("dpo_en_demo.json.gz")))),
        "kto_en": compressed(kto_demo(json.loads(read("kto_en_demo.json.gz")))),
    }
    for name, content in made.items():
        write_atomically(FOLDER / SETS[name], content)
        print(f"{SETS[name]}: {len(content)} bytes")


if __name__ == "__main__":
    run_binary(main)
