"""Run folders that were damaged at random are read, or refused with one error that names them; never a traceback."""

import json
import random

import pytest

from rl_jax.reports.runs import long_table
from rl_jax.reports.scan import scan
from tests.reports.run_folders import write_run


def changed(content: bytes, rng: random.Random) -> bytes:
    """One to four bytes flipped, cut out or put in, or the end cut off."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content)) if content else 0
        kind = rng.choice(("flip", "flip", "cut", "end", "put"))
        if kind == "flip" and content:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            content[place : place + rng.randint(1, 20)] = b""
        elif kind == "end":
            content = content[:place]
        else:
            content[place:place] = rng.randbytes(rng.randint(1, 8))
    return bytes(content)


@pytest.mark.parametrize("tries", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_damage_gives_one_error_that_names_the_folder(tmp_path, tries):
    write_run(tmp_path / "a" / "run", [[1.0, 2.0], [3.0, 4.0]])
    (tmp_path / "a" / "run.json").write_text(json.dumps({"library": "rl_jax", "tag": ["x"]}))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    whole, rng, refused = {file: file.read_bytes() for file in files}, random.Random(tries), 0
    for _ in range(tries):
        file = rng.choice(files)
        file.write_bytes(changed(whole[file], rng))
        try:
            runs = scan([tmp_path])
            long_table(runs) if runs else None
        except ValueError as error:
            assert str(tmp_path) in str(error)
            refused += 1
        file.write_bytes(whole[file])
    assert refused >= tries // 10
