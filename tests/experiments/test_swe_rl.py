"""SWE-RL: edits and what undoes them, the policy's language, the committed data, a user's own, execution, settings."""

import ast
import json

import jax
import numpy as np
import pytest

from configs import swe_rl
from experiments.swe_rl import bugs
from experiments.swe_rl import experiment as paper
from experiments.swe_rl import make_data
from experiments.swe_rl.edits import KINDS, OPERATORS, Edit, changed, edits
from experiments.swe_rl.execution import pass_rate, pass_rates
from experiments.swe_rl.language import LINES, TOKENS, language, source_of, spelled
from rl_jax.language.reward_pool import RewardPool, Scorer, scorer_of

SOURCE = """def f(self, a, b):
    if not a.x and b != 3:
        return "x" + a
    return a - b
"""


def configured(preset, fields={}):
    config = swe_rl.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def functions():
    return bugs.functions()


@pytest.fixture(scope="module")
def spoken(functions):
    return language(map(source_of, functions[0]))


def test_edits_by_hand():
    found = edits(SOURCE)
    assert found[Edit(1, "to ==", 0)] == "    if not a.x and b == 3:"
    assert found[Edit(1, "add 1", 0)] == "    if not a.x and b != 4:"
    assert found[Edit(1, "drop not", 0)] == "    if a.x and b != 3:"
    assert found[Edit(1, "insert not", 1)] == "    if not a.x and not b != 3:"
    assert found[Edit(2, "swap", 0)] == '        return a + "x"'
    assert found[Edit(3, "name", 1, "self")] == "    return a - self"
    assert Edit(1, "swap", 0) not in found and not any(edit.line == 0 for edit in found)
    assert {edit.operator for edit in found} <= set(OPERATORS)
    with pytest.raises(SyntaxError):
        edits("def f(:\n")


def test_the_committed_functions_are_broken_by_one_edit_and_split_by_package(functions, spoken):
    train, held_out = functions
    assert len(train) > 3900 and len(held_out) == 300
    packages = [{path.split("/")[0].removesuffix(".py") for row in part for path in row["files"]} for part in functions]
    assert not packages[0] & packages[1] and len(packages[1]) > 10
    alike = [{tuple(spelled(*row["patched"].values(), ()).words) for row in part} for part in functions]
    assert not alike[0] & alike[1]
    kinds = {row["source"] for row in held_out}
    assert kinds == set(KINDS.values())
    beyond = 0
    for row in held_out:
        buggy, (fixed,) = source_of(row), row["patched"].values()
        ast.parse(buggy)
        assert fixed.count("\n") <= LINES and len(fixed) <= 200 and buggy != fixed
        repairs = [edit for edit in edits(buggy) if changed(buggy, edit) == fixed]
        assert repairs
        # The policy can say nearly every repair, and the true reward of what that is rendered to is 1.
        if (answer := spoken.answer(buggy, repairs[0])) is None:
            beyond += 1
            continue
        said = spoken.rendered(row, spoken.words.decode(answer[:-1]))
        assert Scorer("patch").scores([row], [said], 0.0)[0].score == 1.0
    assert beyond < 6


def test_prompts_are_whole_functions(functions, spoken):
    found = spoken.questions(functions[1])
    assert found.tokens.shape == (300, found.lengths.max()) and found.lengths.max() <= TOKENS
    words = spelled(SOURCE, ("x",)).words
    assert " ".join(words[:18]) == "L1 def v0 ( self , v1 , v2 ) : L2 if not v1 . x and"
    assert spelled(SOURCE, ("x",)).names["v2"] == "b"


@pytest.mark.parametrize("said, refused", [
    ("L4\tadd 1\t#0", "the block changes nothing"), ("L8\tswap\t#0", "the search text is empty"),
    ("L4\tname\t#0", "<solution> comes 0 times"), ("", "<solution> comes 0 times"),
    ("L4\tswap\t#0\tself", "<solution> comes 0 times"), ("L4\tname\t#0\tv9", "the block changes nothing"),
    ("swap\tL4\t#0", "<solution> comes 0 times"),
])
def test_what_is_no_edit_is_refused_by_the_reward(said, refused, spoken):
    row = {"files": {"f.py": SOURCE}, "patched": {"f.py": SOURCE.replace("a - b", "b - a")}, "name": "f"}
    right, wrong = (Scorer("patch").scores([row], [spoken.rendered(row, x)], 0.0)[0] for x in ("L4\tswap\t#0", said))
    assert right.score == 1.0 and wrong.score == -1.0
    page = paper.before_and_after(row, [spoken.rendered(row, said), spoken.rendered(row, "L4\tswap\t#0")], [-1.0, 1.0])
    assert f"refused: {refused}" in page.replace("f.py: ", "") and page.count("+    return b - a") == 2


def test_mutations_are_made_again_and_quixbugs_read(tmp_path, capsys):
    chosen = [np.random.default_rng(0) for _ in range(2)]
    made = [make_data.mutated(SOURCE, x) for x in chosen]
    assert made[0] == made[1] and changed(*made[0]) == SOURCE
    for folder, body in (("python_programs", "a - b"), ("correct_python_programs", "a + b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "add.py").write_text(f'def add(a, b):\n    # sums\n    return {body}\n\n"""\nAdds.\n"""\n')
    (tmp_path / "json_testcases").mkdir()
    (tmp_path / "json_testcases" / "add.json").write_text("[[1, 2], 3]\n[[1, 0], 2]\n")
    (row,) = make_data.quixbugs(tmp_path)
    wanted = "def add(a, b):\n    return a {} b\n"
    assert row == {"name": "add", "buggy": wanted.format("-"), "fixed": wanted.format("+"), "cases": [[[1, 2], 3]]}
    library = tmp_path / "library"
    library.mkdir()
    (library / "one.py").write_text(f'class A:\n    def g(self, x):\n        "Says."\n        return x < 1\n{SOURCE}')
    found = make_data.standard_library(library)
    assert {row["name"] for row in found} == {"f", "g"} and all(row["held_out"] for row in found)
    with pytest.raises(SystemExit):
        make_data.main([])  # python -m experiments.swe_rl.make_data
    assert "--quixbugs" in capsys.readouterr().err


def test_programs_run_within_limits():
    cases = [[[3], 6], [[4], 8], [[5], 11]]
    programs = {
        "def f(x):\n    return 2 * x\n": 2 / 3, "def f(x):\n    yield 1\n": 0.0, "def g(x):\n    return 1\n": 0.0,
        "def f(x):\n    print('3')\n    raise SystemExit\n": 0.0, "import os\ndef f(x):\n    os._exit(3)\n": 0.0,
        "def f(x):\n    while True:\n        pass\n": 0.0,
        "def f(x):\n    with open('a', 'w') as file:\n        file.write('a')\n    return 2 * x\n": 0.0,
        "x = 'a' * 2**33\n": 0.0,
    }
    rows = [{"name": "f", "cases": cases}] * len(programs)
    assert pass_rates(list(programs), rows, seconds=1.0) == pytest.approx(list(programs.values()))
    assert pass_rate("def f(x):\n    return (x, [x])\n", "f", [[[1], [1, [1]]]]) == 1.0


def test_quixbugs_programs_fail_and_their_repairs_pass():
    found = {row["name"]: row for row in bugs.quixbugs()}
    assert len(found) == 31
    row = found["gcd"]
    assert pass_rate(*row["patched"].values(), "gcd", row["cases"]) == 1.0
    assert pass_rate(source_of(row), "gcd", row["cases"]) < 0.5


ISSUE = {"issue": "wrong", "files": {"a.py": "x = 1\r\n", "tests/a.py": "1\n"},
         "patch": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2 + the_other_one\n"
                  "--- a/tests/a.py\n+++ b/tests/a.py\n@@ -1 +1 @@\n-1\n+2\n"}


def test_a_users_issues(tmp_path):
    path = tmp_path / "issues.jsonl"
    leak = ISSUE | {"issue": "write x = 2 + the_other_one"}
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (ISSUE, leak)))
    (row,) = bugs.issues(str(path))
    assert row["patched"] == {"a.py": "x = 2 + the_other_one\n"} and row["files"]["a.py"] == "x = 1\n"
    for line, message in [
        ("{", "line 1: "), ("[]", "line 1: 'issue' is to be a text"),
        (json.dumps(ISSUE | {"files": {"a.py": 3}}), "line 1: 'files' is to be an object of texts"),
        (json.dumps(ISSUE | {"patch": ISSUE["patch"].replace("x = 1", "x = 3")}), "does not fit 'a.py' at line 1"),
        (json.dumps(ISSUE | {"patch": ISSUE["patch"][ISSUE["patch"].index("--- a/tests") :]}), "but tests"),
        (json.dumps(leak), "holds no row to learn from, and 1 whose issue quotes"),
    ]:
        path.write_text(f"{line}\n")
        with pytest.raises(ValueError, match=f"issues.jsonl.*{message}"):
            bugs.issues(str(path))
    with pytest.raises(FileNotFoundError, match="config.data.name"):
        bugs.issues(str(tmp_path / "none.jsonl"))


@pytest.mark.slow
def test_the_committed_start_knows_the_format_and_is_judged(monkeypatch):
    config = configured("tiny", {"judge.samples": 1, "judge.batch_size": 100, "num_seeds": 1, "judge.execute": True})
    run = {"gcd": 0.5}
    monkeypatch.setattr("experiments.swe_rl.judge.pass_rate", lambda program, name, cases, seconds: run.get(name, 1.0))
    program = paper.experiment(config).program(config)
    state = jax.tree.map(lambda x: x[None], program.init(jax.random.key(0), program.resident))
    found = program.evaluate(state, program.resident, jax.random.key(0)).outcomes
    program.feed.close()
    assert found["score"].shape == (1, 300) and 0.2 < found["invalid"].mean() < 0.8
    assert 0.02 < found["exact"].mean() < 0.25
    # -1 where refused, and a similarity elsewhere; an exact one is 1.
    valid = found["score"] + found["invalid"]
    assert np.all(valid >= found["exact"] - 1e-6) and np.all(valid <= 1 - found["invalid"] + 1e-6)
    passed = found["quixbugs_passed"][0]
    assert sorted(set(passed)) == [0.5, 1.0] and sum(passed == 0.5) == 1
    np.testing.assert_array_equal(found["quixbugs_solved"][0], passed == 1.0)


def test_rewards_are_scored_in_processes_where_asked():
    config = configured("tiny", {"reward.workers": 1})
    pool = scorer_of(config.reward, "patch", paper.options(config, exact=True))
    assert isinstance(pool, RewardPool)
    pool.close()


@pytest.mark.parametrize("preset, fields, message", [
    ("tiny", {"task": "edit"}, "unknown config.task 'edit': did you mean edits"),
    ("tiny", {"start": "nowhere.npz"}, "nowhere.npz: no such model"),
    ("tiny", {"data.longest": 5}, "no function has at most config.data.longest=5 tokens"),
    ("tiny-text", {"data.longest": 20}, "no prompt has at most config.data.longest=20 tokens"),
])
def test_settings_that_cannot_work_are_named(preset, fields, message):
    config = configured(preset, fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(config)
