"""Search/replace blocks and the similarity of changes: the card's rules by hand, each trap, and hostile responses."""

import difflib

import numpy as np
import pytest

from rl_jax.language.patches import (
    Block,
    PatchError,
    applied,
    changes,
    is_test,
    line_precision,
    normalised,
    parse,
    patched,
    quotes,
    rendered,
    similarities,
)
from rl_jax.language.rewards import reward
from rl_jax.losses.advantages import group_advantages

CODE = "def f(a, b):\n    if a < b:\n        return a\n    return b\n"
TRUE = CODE.replace("a < b", "a <= b")
ROW = {"files": {"f.py": CODE}, "patched": {"f.py": TRUE}}
RIGHT = Block("f.py", "    if a < b:", "    if a <= b:")


def score(*blocks, row=ROW, **options):
    return reward("patch", **options)(row, rendered("why", blocks), 0.5)


def test_what_is_rendered_is_read():
    blocks = [RIGHT, Block("a/b.py", "one\n\ntwo", "=====\n## three"), Block("f.py", "x", "")]
    assert parse(rendered("why\nnot", blocks)) == blocks
    assert parse(rendered("why", blocks).replace("\n", "\r\n")) == blocks
    assert parse(rendered("why", [RIGHT]).replace("```python", "see:\n```", 1)) == [RIGHT]


@pytest.mark.parametrize("change, message", [
    (("<think>", ""), "<think> comes 0 times"), (("why", "why </think>"), "</think> comes 2 times"),
    (("<solution>", "solution"), "<solution> comes 0 times"), (("why", " \n "), "the thought is empty"),
    (("### f.py", "f.py"), "no search/replace block"), (("=======", "==="), "no search/replace block"),
    ((">>>>>>> REPLACE\n```", ">>>>>>> REPLACE"), "no search/replace block"),
])
def test_a_broken_contract_is_refused_and_costs_1(change, message):
    response = rendered("why", [RIGHT]).replace(*change)
    with pytest.raises(PatchError, match=message):
        parse(response)
    assert reward("patch")(ROW, response, 0.5) == (-1.0, {"invalid": 1.0, "exact": 0.0}, "scored")


@pytest.mark.parametrize("block, message", [
    (Block("f.py", "    if a < b:", "    if a < b:"), "changes nothing"),
    (Block("f.py", "    if a > b:", "    if a <= b:"), "does not stand at the begin of a line"),
    (Block("f.py", "a < b:", "a <= b:"), "does not stand at the begin of a line"),  # within a line
    (Block("g.py", "    if a < b:", "    if a <= b:"), "does not stand at the begin"),  # another file
    (Block("f.py", "", "import os"), "the search text is empty"),
])
def test_blocks_that_change_nothing_or_what_is_not_there_are_refused(block, message):
    with pytest.raises(PatchError, match=message):
        applied(ROW["files"], [block])
    assert score(block).score == -1.0
    assert score(block, exact=True).score == -1.0


def test_blocks_act_in_their_order_on_what_is_left_and_everywhere():
    first, second = Block("f", "a", "b"), Block("f", "b", "c")
    assert applied({"f": "a\nb\n"}, [first, second]) == {"f": "c\nc\n"}
    assert applied({"f": "a\nb\n"}, [second, first]) == {"f": "b\nc\n"}
    with pytest.raises(PatchError):
        applied({"f": "a\n"}, [first, first])
    assert applied({"f": "xy\n xy\nxyz\n"}, [Block("f", "xy", "q")]) == {"f": "q\n xy\nqz\n"}  # may end within a line
    assert applied({"f": "a\n", "g": "a\n"}, [first, Block("g", "a", "d")]) == {"f": "b\n", "g": "d\n"}


def test_the_reward_by_hand():
    """The diff of one line in a file of one: "@@ -1 +1 @@", "-a", "+b"; of 17 letters 16 are alike."""
    row = {"files": {"f": "a\n"}, "patched": {"f": "b\n"}}
    assert changes(row["files"], row["patched"]) == {"f": "@@ -1 +1 @@\n-a\n+b"}
    found = score(Block("f", "a", "c"), row=row)
    assert found.score == pytest.approx(2 * 16 / 34)
    assert found.parts == {
        "invalid": 0.0, "exact": 0.0, "removed_precision": 1.0, "added_precision": 0.0, "similarity": found.score,
    }
    assert score(Block("f", "a", "b"), row=row).score == 1.0
    assert [score(Block("f", "a", x), row=row, exact=True).score for x in "bc"] == [1.0, 0.0]
    # Changes that undo each other change nothing, and the true file is not touched.
    assert score(Block("f", "a", "c"), Block("f", "c", "a"), row=row).score == 0.0
    # A file that one side alone changes counts 0 in the mean.
    two = {"files": {"f": "a\n", "g": "a\n"}, "patched": {"f": "b\n"}}
    assert score(Block("f", "a", "b"), Block("g", "a", "b"), row=two).score == 0.5
    assert score(Block("g", "a", "b"), row=two).score == 0.0
    nothing = {"files": {"f": "a\n"}, "patched": {"f": "a\n"}}
    assert score(Block("f", "a", "c"), Block("f", "c", "a"), row=nothing).score == 1.0


def test_the_comparison_is_of_diffs_in_their_order_without_autojunk():
    chosen = np.random.default_rng(0)
    lines = ["".join(chosen.choice(list("abc =()"), 12)) for _ in range(60)]
    true, other = ([*lines[:n], "value = 1", *lines[n + 1 :]] for n in (20, 24))
    files, texts = {"f": "\n".join(lines) + "\n"}, ["\n".join(x) + "\n" for x in (true, other)]
    block = Block("f", lines[24], "value = 1")
    found = score(block, row={"files": files, "patched": {"f": texts[0]}}).score
    diffs = ["\n".join(list(difflib.unified_diff(lines, x, lineterm=""))[2:]) for x in (true, other)]
    assert found == difflib.SequenceMatcher(None, diffs[1], diffs[0], False).ratio()
    assert found < 0.9 < difflib.SequenceMatcher(None, texts[1], texts[0], False).ratio()  # of whole files
    long = ["xyz" + "ab" * 150, "ab" * 150 + "xyz"]
    with_junk = difflib.SequenceMatcher(None, *long).ratio()
    assert similarities({"f": long[0]}, {"f": long[1]}, 1000)["f"] > 0.9 > with_junk
    uneven = {"f": "tide"}, {"f": "diet"}  # the documentation's own example
    assert [similarities(*x, 99)["f"] for x in (uneven, uneven[::-1])] == [0.25, 0.5]


def test_a_long_diff_is_not_compared():
    row = {"files": {"f": "a\n"}, "patched": {"f": "b\n"}}
    long = score(Block("f", "a", "b" * 200), row=row, longest=100)
    assert long.score == 0.0 and score(Block("f", "a", "b"), row=row, longest=100).score == 1.0


def test_lines_are_counted_by_sign():
    predicted = changes({"f": CODE}, {"f": CODE.replace("return a", "return b")})
    true = changes({"f": CODE}, {"f": CODE.replace("        return a\n", "")})
    assert line_precision(predicted, true, "-") == 1.0 and line_precision(predicted, true, "+") == 0.0
    assert line_precision(true, predicted, "+") is None


def test_line_ends_are_those_of_all_texts():
    assert normalised("a\r\nb\rc") == "a\nb\nc\n" and normalised("") == ""
    files = {"f.py": normalised(CODE.replace("\n", "\r\n").rstrip())}
    row = {"files": files, "patched": {"f.py": normalised(TRUE.rstrip())}}
    assert reward("patch")(row, rendered("why", [RIGHT]).replace("\n", "\r\n"), 0.0).score == 1.0


def test_a_group_of_refused_responses_teaches_nothing():
    rewards = np.array([[-1.0] * 4, [-1.0, 1.0, 0.5, 0.5]], np.float32)
    found = np.asarray(group_advantages(rewards))
    assert np.all(found[0] == 0.0) and np.all(np.isfinite(found)) and found[1, 1] > 0


def test_unified_diffs_become_files():
    files = {"a.py": "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "b.py": "x\n"}
    after = {"a.py": "1\n2\n-- two\n4\n5\n6\n7\n8\nnine\nten\n", "b.py": "", "c.py": "new\n"}
    text = ["diff --git a/a.py b/a.py"]
    for path, new in after.items():
        names = [f"a/{path}" if path in files else "/dev/null", f"b/{path}" if new else "/dev/null"]
        old = files.get(path, "").splitlines()
        text += difflib.unified_diff(old, new.splitlines(), *names, n=1, lineterm="")
        text.append("\\ No newline at end of file")
    assert patched(files, "\r\n".join(text)) == after
    for patch, message in [
        ("nothing", "changes no file"),
        ("--- a/c.py\n+++ b/c.py\n@@ -1 +1 @@\n-1\n+2\n", "changes 'c.py', which is none"),
        ("--- a/b.py\n+++ b/b.py\n@@ -1 +1 @@\n-y\n+z\n", "does not fit 'b.py' at line 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            patched(files, patch)


def test_what_a_target_leaves_out():
    assert all(map(is_test, ("tests/a.py", "a/test_b.py", "b_test.go", "conftest.py")))
    assert not any(map(is_test, ("src/a.py", "contest/a.py", "latest.py", "testament.py")))
    true = changes({"f.py": CODE}, {"f.py": CODE.replace("return a", "return minimum_of(a, b)")})
    assert quotes("It should say\n    return minimum_of(a, b)\n", true) and not quotes("return the minimum", true)
