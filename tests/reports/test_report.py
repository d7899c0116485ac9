"""Tables and files of made-up scores: numbers by hand, what is missing, mixed revisions, records that come back."""

import csv
import json
import re

import numpy as np
import pytest

from rl_jax.core.experiment import Metric
from rl_jax.reports import figures
from rl_jax.reports.claims import better_than, reaches
from rl_jax.reports.declaration import Claim, Finding, Published, Run
from rl_jax.reports.measures import final, log10
from rl_jax.reports.records import load_runs, read_run, save_run
from rl_jax.reports.report import revisions, write_report
from tests.reports.made_up import BEHAVIOUR, COST, RUNS, SCORE, curve, evaluations, paper, records, write_folder

REFERENCES = {"t": {"behaviour": 50.0}, "u": {"behaviour": 70.0}}
SAVED = {
    "a-t": evaluations([1.0, 2.0, 9.0], summary=REFERENCES["t"]),
    "b-t": evaluations([3.0, 4.0, 5.0], summary=REFERENCES["t"]),
    "a-u": evaluations([60.0, 61.0, 62.0], summary=REFERENCES["u"]),
    "b-u": evaluations([80.0, 81.0, 61.5], summary=REFERENCES["u"]),
}
HEAD = {"paper": "x", "preset": "p", "missing": {}}


def rows(text, heading, place=0):
    """The cells of a table below a heading of a Markdown text."""
    (part,) = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(f"{heading}\n")]
    table = [block for block in part.split("\n\n") if block.startswith("|")][place]
    lines = table.splitlines()
    return [[cell.strip() for cell in line[2:-2].split(" | ")] for line in (lines[0], *lines[2:])]


def report(made, saved, outdir, head=HEAD, runs=RUNS):
    result = write_report(made, made.presets["p"](), records(saved, runs), outdir, head)
    return result, (outdir / "table.md").read_text()


def test_tables_have_the_numbers_by_hand(tmp_path):
    published = Published("CORL", "a page", {"b": {"t": (40.0, 1.5)}})
    never = Claim("never", "Never", "a time", lambda scores: Finding(np.inf, (2.0, np.inf), False))
    made = paper(claims=[better_than("b", "a", published=0.875), never], reference=BEHAVIOUR, published=(published,),
                 notes=("Mind this.",))
    result, text = report(made, SAVED, tmp_path)
    assert result["claims"][1]["value"] is None and result["claims"][1]["interval"] == [2.0, None]
    assert "Mind this." in text and "4 runs of 3 seeds" in text and "2 outcomes a seed" in text
    assert "Not made from one" not in text and "Code: aaaaaaaa." in text
    head, a, b, reference = rows(text, "Score, higher is better")
    assert head == ["method", "t", "u", "IQM [95%]", "P(better than A) [95%]", "steps",
                    "seconds of training, all seeds", "CORL (other data)"]
    assert a[:3] == ["A", "4.00", "61.0"] and a[3].startswith("33.0 [") and a[4:] == ["", "20", "40.0", ""]
    assert b[3].startswith("37.6 [") and b[4].startswith("0.78 [") and b[-1] == "40.0 (1 of 2 tasks)"
    assert reference[:3] == ["*behaviour policy*", "50.0", "70.0"]
    assert rows(text, "Each seed")[1] == ["t", "A", "4.00 [1.00, 9.00]", "1.00 2.00 9.00"]
    claim = rows(text, "Claims")[1]
    assert claim[0] == "B better than A" and claim[-1] == "0.88" and "- CORL (other data): a page" in text

    table = list(csv.DictReader((tmp_path / "table.csv").open()))
    cell = {(row["method"], row["task"], row["statistic"]): row for row in table}
    assert float(cell["b", "all", "iqm"]["value"]) == pytest.approx(37.625)
    assert float(cell["a", "u", "mean"]["value"]) == 61.0 and cell["a", "u", "mean"]["seeds"] == "3"
    assert float(cell["b", "all", "probability_of_improvement_on_a"]["value"]) == pytest.approx(7 / 9)
    assert float(cell["b", "t", "published: CORL (other data)"]["value"]) == 40.0
    assert {row["better"] for row in table} == {"higher"}
    assert set(result["files"]) == {"table.md", "table.csv", *figures.DEFAULT, "report.json"}
    assert all((tmp_path / name).exists() for name in result["files"]) and result["seeds"] == 3
    assert json.loads((tmp_path / "report.json").read_text()) == result


def test_a_preset_may_have_published_numbers_of_its_own(tmp_path):
    made = paper(published=(Published("X", "a page", {"b": {"t": (40.0, 1.5)}}),))
    other = made.presets["p"]()._replace(published=(Published("Y", "a book", {"b": {"t": (30.0, 1.5)}}),))
    write_report(made, other, records(SAVED, RUNS), tmp_path, HEAD)
    text = (tmp_path / "table.md").read_text()
    assert rows(text, "Score, higher is better")[2][-1] == "30.0 (1 of 2 tasks)"
    assert "- Y (other data): a book" in text and "a page" not in text


def test_what_is_missing_is_said_and_nothing_takes_its_place(tmp_path):
    made = paper(claims=[better_than("b", "a")])
    report(made, SAVED, tmp_path)
    assert (tmp_path / "improvement.png").exists()
    saved = {name: run for name, run in SAVED.items() if name != "a-u"}
    result, text = report(made, saved, tmp_path, HEAD | {"missing": {"a-u": "out of memory"}})
    assert rows(text, "Score, higher is better")[1][:4] == ["A", "4.00", "missing", ""]
    assert rows(text, "Missing")[1] == ["a-u", "out of memory"]
    assert result["claims"][0]["verdict"] == "missing" and not (tmp_path / "improvement.png").exists()


def test_each_metric_has_its_own_table_and_direction(tmp_path):
    guard = Metric("eval/judge", "judge's accuracy")
    lower = curve([[9.0, 8.0, 9.0], [1.0, 2.0, 3.0]], steps=[0, 10], judge=[[0.9], [0.1]])
    higher = curve([[9.0, 8.0, 9.0], [4.0, 4.0, 5.0]], steps=[0, 10], judge=[[0.9], [0.8]])
    saved = {"a-t": higher, "b-t": lower, "a-u": higher, "b-u": lower}
    made = paper(measure={"t": SCORE._replace(better="lower"), "u": SCORE}, beside=(guard,), figures={})
    _, text = report(made, saved, tmp_path)
    head, a, b = rows(text, "Score, lower is better")
    assert head == ["method", "at the start", "t: mean over seeds [95%]", "P(better than A) [95%]",
                    "judge's accuracy, before -> after", "steps", "seconds of training, all seeds"]
    assert a[1] == "8.67" and b[3] == "1.00 [1.00, 1.00]" and b[4] == "0.90 -> 0.10"
    assert rows(text, "Score, higher is better")[2][3] == "0.00 [0.00, 0.00]"
    assert "IQM [95%]" not in text


def test_lengths_of_runs_are_one_or_two_or_a_range(tmp_path):
    tasks = ("t", "u", "v")
    runs = tuple(Run(method, task, "m", "c") for task in tasks for method in ("a", "b", "c"))
    lengths = {"a": (9, 9, 9), "b": (2000, 30, 30), "c": (1000, 40, 2000)}
    saved = {run.name: curve([[1.0, 2.0]], steps=[lengths[run.method][tasks.index(run.task)]]) for run in runs}
    _, text = report(paper(runs=runs, claims=[], figures={}), saved, tmp_path, runs=runs)
    head, *table = rows(text, "Score, higher is better")
    assert [row[head.index("steps")] for row in table] == ["9", "30 or 2,000", "40 to 2,000"]


def test_samples_until_solved_read_right(tmp_path):
    measure = log10(final(COST, known="solved"))
    tasks = [f"t{k}" for k in range(5)]
    runs = tuple(Run(method, task, "m", "c") for task in tasks for method in ("a", "b"))
    saved = {}
    for task in tasks:
        saved[f"a-{task}"] = curve([[1000.0, 1000.0, 3000.0]], outcome="cost", solved=1.0)
        saved[f"b-{task}"] = curve([[100.0, 200.0, 3000.0]], outcome="cost", solved=[[1.0, 1.0, 0.0]])
    saved["b-t4"] = curve([[3000.0] * 3], outcome="cost", solved=0.0)
    made = paper(measure=measure, runs=runs, claims=[reaches("a", 5000.0, by="worst")],
                 figures={"scatter.png": figures.scatter("a", ("b",))})
    result, text = report(made, saved, tmp_path, runs=runs)
    heading = "Log10 of cost, lower is better"
    assert rows(text, heading)[2][1].startswith("2.79 [") and rows(text, heading)[2][2].startswith("0.61 [")
    assert rows(text, heading, 1)[1] == ["t0", "1,000", "200 (2 of 3)".replace("200", "200.0")]
    assert rows(text, heading, 1)[5] == ["t4", "1,000", "- (0 of 3)"]
    assert "3.48+" in text and result["claims"][0]["verdict"] == "pass" and "scatter.png" in result["files"]


@pytest.mark.parametrize(
    "git, said",
    [
        ([{"revision": "a" * 40, "clean": True}], ""),
        ([{"revision": "a" * 40, "clean": False}], "4 runs from revision aaaaaaaa, 4 with uncommitted changes."),
        ([], "4 runs from no recorded revision."),
        ([{"revision": "a" * 40, "clean": True}, {"revision": "b" * 40, "clean": True}],
         "4 runs from 2 revisions (aaaaaaaa, bbbbbbbb)."),
    ],
)
def test_a_report_says_when_its_runs_are_not_of_one_clean_revision(git, said):
    assert revisions(records(SAVED, git=git)) == (said and f"Not made from one clean revision: {said}")


# Records


def test_runs_come_back_as_they_were_saved(tmp_path):
    run = Run("a", "t", "m", "c", {"agent.hidden_dims": (16, 16)})
    saved = evaluations([1.0, 2.0, 9.0], summary={"behaviour": 50.0}, length=[[3.0] * 3] * 2)
    folder = write_folder(tmp_path / "run", saved)
    record = read_run(run, folder, ["-m", "m"])
    save_run(tmp_path, record)
    save_run(tmp_path, read_run(RUNS[1], folder))
    again = load_runs(tmp_path)
    assert list(again) == ["a-t", "b-t"] and again["a-t"].about == record.about
    for name in ("steps", "train_seconds"):
        np.testing.assert_array_equal(getattr(again["a-t"].evaluations, name), getattr(saved, name))
    assert set(again["a-t"].evaluations.outcomes) == {"score", "length"}
    np.testing.assert_array_equal(again["a-t"].evaluations.outcomes["score"], saved.outcomes["score"])
    assert again["a-t"].is_of(run) and not again["a-t"].is_of(run._replace(overrides={"num_steps": 3}))
    assert not again["a-t"].is_of(run._replace(needs={"init_from.run": "b-t"}))
    about = json.loads((tmp_path / "scores.json").read_text())["a-t"]
    assert about["seeds"] == [7, 8, 9] and about["inputs"] == {"checksum": "abc"} and about["devices"] == ["cpu"]
    assert about["git"] == [{"revision": "r", "clean": True}] and about["step"] == 20
    assert about["final"]["score"][0] == [0.5, 1.5] and about["summary"]["behaviour"] == 50.0


def test_runs_that_cannot_be_used_are_named(tmp_path):
    bad = evaluations([1.0, 2.0])
    bad.outcomes["score"][1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=r"a-t: the last score of seed, episode \[0, 1\] is nan"):
        read_run(RUNS[0], write_folder(tmp_path / "nan", bad))
    folder = write_folder(tmp_path / "short", evaluations([1.0, 2.0], summary={"step": 30}))
    with pytest.raises(ValueError, match="evaluated last at step 20, not at its end, 30"):
        read_run(RUNS[0], folder)
    (folder / "outcomes.npz").unlink()
    with pytest.raises(ValueError, match="outcomes.npz is missing"):
        read_run(RUNS[0], folder)
    (folder / "result.json").unlink()
    with pytest.raises(ValueError, match="result.json is missing: the run is not finished"):
        read_run(RUNS[0], folder)
    (tmp_path / "scores.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match="scores.npz is not a file of scores"):
        load_runs(tmp_path)
