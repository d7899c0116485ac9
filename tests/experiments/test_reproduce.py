"""Regenerating a paper: declarations, tables by hand, resume, failures and signals of a made-up binary; a true run."""

import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from absl import flags
from absl.testing import flagsaver

from configs.offline_rl import get_config
from experiments import declaration, processes, report, reproduce, score_file
from experiments.declaration import Claim, Evaluations, MissingScores, Paper, Preset, Published, Run, Scores
from experiments.offline_rl.published import CORL
from experiments.offline_rl.reproduce import LABELS
from experiments.offline_rl.reproduce import PAPER as OFFLINE_RL
from experiments.offline_rl.reproduce import published_difference, published_probability

ROOT = Path(__file__).resolve().parents[2]

# Prints what --config says ("binary:KIND:SCORE"); keeps a diary of starts and ends beside its folder.
FAKE_BINARY = """
import json, os, signal, sys, time
from pathlib import Path

flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
kind, score = flags["config"].split(":")[1:]
workdir = Path(flags["workdir"])
workdir.mkdir(parents=True, exist_ok=True)

def note(what):
    with (workdir.parent / "diary").open("a") as file:
        file.write(f"{workdir.name} {what} {sorted(os.sched_getaffinity(0))}\\n")

note("start")
print("some line for people", file=sys.stderr)
if kind == "fail" and not (workdir.parent / "mended").exists():
    print("error: the learning rate is wrong", file=sys.stderr)
    sys.exit(1)
if kind == "silent":
    sys.exit(0)
if kind == "slow":
    def stop(number, frame):
        note("saved")
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    deadline = time.monotonic() + 60
    while not (workdir.parent / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
note("end")
print(json.dumps({"step": 20, "score": float(score), "offset": float(flags.get("config.offset", 0))}))
"""

# The paper of that binary, for this process and for others: --preset names a list of runs as KIND:SCORE.
FAKE_PAPER = """
import numpy as np
from experiments.declaration import Claim, Evaluations, Paper, Preset, Run, better_than

def read(workdir, summary):
    scores = np.full((2, 2, 3), summary["score"] + summary["offset"])
    scores[:, 1] += 2.0
    return Evaluations(np.array([10, summary["step"]]), scores, scores * 10, 5.0)

def paper(*runs, overrides={}):
    runs = tuple(Run(method, task, "fake_binary", config, overrides) for method, task, config in runs)
    claims = (Claim("b_above_a", "B > A", "P(better) above 0.5", better_than("b", "a"), 0.9),)
    return Paper("Made up", {"a": "A", "b": "B"}, "a", {"p": lambda: Preset(runs, claims)}, read)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The module of the made-up paper; its binary can be started by name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "fake_binary.py").write_text(FAKE_BINARY)
    (folder / "fake_paper.py").write_text(FAKE_PAPER)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(report, "_figures", lambda *args: [])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "fake_paper", raising=False)
    return importlib.import_module("fake_paper")


def diary(outdir: Path) -> list[str]:
    """What the made-up binary did, in order: "<run> <what>"."""
    path = outdir / "runs" / "diary"
    return [" ".join(line.split()[:2]) for line in path.read_text().splitlines()] if path.exists() else []


def run(paper, outdir, **options):
    return reproduce.reproduce(paper, ("made_up", "p"), outdir, **options)


# Declarations


@pytest.mark.parametrize("preset", OFFLINE_RL.presets)
def test_every_declared_run_has_a_config_that_takes_its_overrides(preset):
    runs = reproduce.load_preset(OFFLINE_RL, preset).runs
    for run in runs:
        assert importlib.util.find_spec(run.module), run.module
        path, name = run.config.split(":")
        assert (ROOT / path).exists() and path == "configs/offline_rl.py"
        config = get_config(name)
        config.update_from_flattened_dict(dict(run.overrides))  # an unknown field or a wrong type raises
        assert run.method in OFFLINE_RL.labels and run.task in config.dataset.name
        assert config.num_steps % config.loop.eval_every == 0, "the last evaluation comes at the end"


def test_the_offline_rl_presets_are_what_the_paper_says():
    quick, full = (reproduce.load_preset(OFFLINE_RL, name) for name in ("quick", "paper"))
    assert len(full.runs) == 9 * 11 and len(quick.runs) == 3 * 10
    assert tuple(dict.fromkeys(run.method for run in full.runs)) == tuple(LABELS)
    for preset in (quick, full):
        assert len(preset.claims) == 10 and len({claim.name for claim in preset.claims}) == 10
        missing = [report.judge(claim, Scores(preset.runs, {})) for claim in preset.claims]
        assert {claim["verdict"] for claim in missing} == {"missing"}


def test_published_numbers_have_the_published_averages():
    # The row "locomotion average" of CORL's table.
    averages = dict(
        bc=50.40, bc10=69.29, td3_bc=76.45, awac=67.72, cql=78.28, iql=81.63, rebrac=89.74, sac_n=83.52, edac=92.92,
        dt=73.84,
    )
    assert set(averages) == set(CORL.values)
    for method, average in averages.items():
        means = [mean for mean, _ in CORL.values[method].values()]
        assert len(means) == 9 and np.mean(means) == pytest.approx(average, abs=0.0051), method


def test_statistics_of_published_numbers():
    source = Published("X", "", {"a": {"t": (1.0, 3.0), "u": (9.0, 4.0)}, "b": {"t": (2.0, 4.0), "v": (1.0, 1.0)}})
    # Only t is in both: b - a is normal with mean 1 and deviation 5.
    expected = scipy.stats.norm.sf(0.0, loc=1.0, scale=5.0)
    assert published_probability(source, "b", "a", ["t", "u", "v"]) == pytest.approx(expected)
    assert published_difference(source, "b", "a", ["t", "u", "v"]) == 1.0
    assert published_probability(source, "a", "c", ["t"]) is None
    assert published_difference(source, "c", "a", ["t"]) is None


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: reproduce.load_paper("ofline_rl"), "did you mean offline_rl"),
        (lambda: reproduce.load_preset(OFFLINE_RL, "quik"), "did you mean quick"),
    ],
)
def test_unknown_names_have_near_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_wrong_declaration_is_refused_before_anything_runs():
    a, b = Run("a", "t", "m", "c"), Run("b", "t", "m", "c")
    claim = Claim("b_above_a", "B > A", "P(better) above 0.5", declaration.better_than("b", "a"))
    for runs, labels, message in [
        ((a, a), {"a": "A"}, "one name: a-t"),
        ((a, b), {"a": "A"}, "without a label: b"),
        ((a,), {"a": "A"}, r"claim 'b_above_a' speaks of \('b', 't'\)"),
    ]:
        paper = Paper("", labels, "a", {"p": lambda runs=runs: Preset(runs, (claim,))}, None)
        with pytest.raises(ValueError, match=message):
            reproduce.load_preset(paper, "p")


# Scores and verdicts


def evaluations(finals, reference=50.0, steps=(10, 20), num_episodes=2):
    """Runs whose last evaluation has the mean `finals`, one a seed, in episodes that lie 1 apart."""
    spread = np.arange(num_episodes) - (num_episodes - 1) / 2
    last = np.asarray(finals, float)[:, None] + spread
    scores = np.stack([last * k / len(steps) for k in range(1, len(steps) + 1)])
    return Evaluations(np.array(steps), scores, scores * 30, reference)


RUNS = tuple(Run(method, task, "m", "c") for task in ("t", "u") for method in ("a", "b"))
SCORES = {
    "a-t": evaluations([1.0, 2.0, 9.0]), "b-t": evaluations([3.0, 4.0, 5.0]),
    "a-u": evaluations([60.0, 61.0, 62.0], 70.0), "b-u": evaluations([80.0, 81.0, 61.5], 70.0),
}


def test_scores_of_methods_and_references():
    scores = Scores(RUNS, SCORES)
    assert (scores.methods, scores.tasks) == (("a", "b"), ("t", "u"))
    np.testing.assert_allclose(scores.final("b"), [[3.0, 80.0], [4.0, 81.0], [5.0, 61.5]])
    np.testing.assert_allclose(scores.final("b", ["u"]), [[80.0], [81.0], [61.5]])
    np.testing.assert_array_equal(scores.reference(), [50.0, 70.0])
    with pytest.raises(KeyError):
        scores.final("c")
    with pytest.raises(MissingScores) as info:
        Scores(RUNS, {"a-t": SCORES["a-t"]}).final("b")
    assert info.value.args == ("b-t", "b-u")
    with pytest.raises(ValueError, match=r"a has \[3, 2\] seeds"):
        Scores(RUNS, SCORES | {"a-u": evaluations([1.0, 2.0])}).final("a")
    with pytest.raises(ValueError, match="the runs on t disagree"):
        Scores(RUNS, SCORES | {"b-t": evaluations([1.0, 2.0, 3.0], 51.0)}).reference()


def test_verdicts():
    scores = Scores(RUNS, SCORES)
    # Of the nine pairs b wins 6 on t and 8 on u.
    found = declaration.better_than("b", "a")(scores)
    assert found.value == pytest.approx((6 / 9 + 8 / 9) / 2)
    assert found.passed == (found.interval[0] > 0.5)
    # Sorted a: 1 2 9 60 61 62, one of six is cut off at each end; b: 3 4 5 61.5 80 81.
    difference = (4 + 5 + 61.5 + 80) / 4 - (2 + 9 + 60 + 61) / 4
    found = declaration.not_worse_than("b", "a", 5.0)(scores)
    assert found.value == pytest.approx(difference) and found.passed == (found.interval[0] > -5.0)
    # b's gains: -47 -46 -45 -8.5 10 11, a's: -49 -48 -41 -10 -9 -8.
    found = declaration.best_above_reference(["a", "b"])(scores)
    assert found.value == pytest.approx((-46 - 45 - 8.5 + 10) / 4)
    assert found.detail == "b" and not found.passed
    one = declaration.best_above_reference(["b"])(scores)
    assert found.interval[0] <= one.interval[0] and found.interval[1] >= one.interval[1], "it holds for both at once"

    claim = Claim("n", "text", "rule", declaration.better_than("b", "a"), 0.7)
    clear = Scores(RUNS, {name: evaluations([i, i + 1.0]) for i, name in enumerate(["a-t", "a-u", "b-t", "b-u"], 5)})
    assert report.judge(claim, clear)["verdict"] == "pass" and report.judge(claim, clear)["interval"] == [1.0, 1.0]
    same = Scores(RUNS, {run.name: evaluations([1.0, 2.0]) for run in RUNS})
    assert report.judge(claim, same)["verdict"] == "fail" and report.judge(claim, same)["value"] == 0.5
    lacking = report.judge(claim, Scores(RUNS, {"a-t": SCORES["a-t"], "a-u": SCORES["a-u"]}))
    assert lacking["verdict"] == "missing" and lacking["detail"] == "b-t, b-u" and lacking["interval"] is None


def rows(text, heading):
    """The cells of the table below a heading of a Markdown text."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (part,) = [part for part in section if part.startswith(f"{heading}\n")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if "|" in line][2:]


def test_tables_of_made_up_scores_have_the_numbers_by_hand(tmp_path):
    published = Published("CORL on D4RL", "a page", {"b": {"t": (40.0, 1.5)}})
    claim = Claim("b_above_a", "B > A", "P(better) above 0.5", declaration.better_than("b", "a"), 0.875)
    paper = Paper("Title", {"a": "A", "b": "B"}, "a", {}, None, (published,), notes=("Mind this.",))
    saved = {
        name: score_file.make_record(run, [], tmp_path / "none", {}, SCORES[name])
        for run in RUNS
        for name in [run.name]
        if name in SCORES
    }
    head = {"paper": "x", "preset": "p", "missing": {}}
    never = Claim("never", "Never", "a time", lambda scores: declaration.Finding(np.inf, (2.0, np.inf), False))
    result = report.write_report(paper, Preset(RUNS, (claim, never)), saved, tmp_path, head)
    assert result["claims"][1]["value"] is None and result["claims"][1]["interval"] == [2.0, None]
    text = (tmp_path / "table.md").read_text()
    assert "Mind this." in text and "4 runs, 3 seeds each" in text and "the 2 episodes" in text
    a, b, reference = rows(text, "Over 2 tasks")
    assert a[0] == "A" and a[1].startswith("33.0 [") and a[2:] == ["32.5", "", "20", ""]
    assert b[1].startswith("37.6 [") and b[2] == "39.1" and b[3].startswith("0.78 [") and b[4] == "20"
    assert b[5] == "40.0 (1 of 2 tasks)"
    assert reference[0] == "*behaviour policy*" and reference[2] == "60.0"
    a, b, reference = rows(text, "t")
    assert a == ["A", "4.00 [1.00, 9.00]", "1.00 2.00 9.00", "20", ""]
    assert b == ["B", "4.00 [3.00, 5.00]", "3.00 4.00 5.00", "20", "40.0 ± 1.5"] and reference[1] == "50.0"
    assert rows(text, "Claims")[0][0] == "B > A" and rows(text, "Claims")[0][-1] == "0.88"
    assert "CORL on D4RL (other data)" in text and "- CORL on D4RL: a page" in text

    table = list(csv.DictReader((tmp_path / "table.csv").open()))
    cell = {(row["method"], row["task"], row["statistic"]): row for row in table}
    assert float(cell["b", "all", "iqm"]["value"]) == pytest.approx(37.625)
    assert float(cell["a", "u", "mean"]["value"]) == 61.0 and cell["a", "u", "mean"]["seeds"] == "3"
    assert float(cell["b", "all", "probability_of_improvement_on_a"]["value"]) == pytest.approx(7 / 9)
    assert float(cell["b", "t", "published: CORL on D4RL (other data)"]["value"]) == 40.0
    assert set(result["paths"]) >= {"table.md", "table.csv", "curves.png", "profile.png", "improvement.png"}
    assert all(Path(path).exists() for name, path in result["paths"].items() if not name.startswith("scores."))
    assert json.loads((tmp_path / "report.json").read_text()) == result and result["seeds"] == 3

    # One cell less: no aggregate over fewer tasks takes the place of the one that is missing.
    del saved["a-u"]
    head["missing"] = {"a-u": "out of memory"}
    result = report.write_report(paper, Preset(RUNS, (claim,)), saved, tmp_path, head)
    text = (tmp_path / "table.md").read_text()
    assert rows(text, "Over 2 tasks")[0][:3] == ["A", "missing", ""] and rows(text, "u")[0][:2] == ["A", "missing"]
    assert rows(text, "Missing") == [["a-u", "out of memory"]]
    assert result["claims"][0]["verdict"] == "missing" and not (tmp_path / "improvement.png").exists()


# Files of scores


def test_scores_come_back_as_they_were_saved(tmp_path):
    run = Run("a", "t", "m", "c", {"agent.hidden_dims": (16, 16)})
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"seed": 7}))
    start = {"inputs": {"checksum": "abc"}, "git": {"revision": "r", "clean": True}, "devices": {"kind": "cpu"}}
    (workdir / "provenance.json").write_text(json.dumps({"starts": [start, start]}))
    saved = score_file.make_record(run, ["-m", "m"], workdir, {"step": 20}, SCORES["a-t"])
    score_file.save_run(tmp_path, saved)
    score_file.save_run(tmp_path, score_file.make_record(RUNS[1], [], workdir, {}, SCORES["b-t"]))
    again = score_file.load_runs(tmp_path)
    assert list(again) == ["a-t", "b-t"] and again["a-t"].record == saved.record
    for one, other in zip(again["a-t"].evaluations, SCORES["a-t"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert again["a-t"].is_of(run) and not again["a-t"].is_of(run._replace(overrides={"num_steps": 3}))
    record = json.loads((tmp_path / "scores.json").read_text())["a-t"]
    assert record["seeds"] == [7, 8, 9] and record["inputs"] == {"checksum": "abc"} and record["devices"] == ["cpu"]
    assert record["git"] == [{"revision": "r", "clean": True}] and record["step"] == 20
    assert np.mean(record["final_scores"], axis=1).tolist() == [1.0, 2.0, 9.0]
    assert record["final_returns"][0] == [15.0, 45.0] and record["reference_score"] == 50.0


def test_bad_scores_are_refused(tmp_path):
    bad = evaluations([1.0, 2.0])
    bad.scores[1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=r"a-t: the score at evaluation, seed, episode \[1, 0, 1\] is nan"):
        score_file.make_record(RUNS[0], [], tmp_path, {}, bad)
    with pytest.raises(ValueError, match=r"a-t: steps \(2,\), scores \(2, 3\)"):
        score_file.make_record(RUNS[0], [], tmp_path, {}, bad._replace(scores=np.zeros((2, 3))))
    (tmp_path / "scores.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match="scores.npz is not a file of scores"):
        score_file.load_runs(tmp_path)


# Running


def test_finished_runs_are_not_started_again(fake, tmp_path):
    out = tmp_path / "out"
    paper = fake.paper(("a", "t", "x:ok:10"), ("b", "t", "x:ok:20"), ("a", "u", "x:ok:30"), ("b", "u", "x:ok:40"))
    result = run(paper, out, only="-t")
    assert diary(out) == ["a-t start", "a-t end", "b-t start", "b-t end"]
    assert result["missing"] == {"a-u": "not run", "b-u": "not run"} and result["claims"][0]["verdict"] == "missing"
    # A run's folder may go once its scores are saved.
    (out / "runs" / "a-t").rmdir()
    result = run(paper, out)
    assert diary(out)[4:] == ["a-u start", "a-u end", "b-u start", "b-u end"]
    assert result["missing"] == {} and result["claims"][0]["verdict"] == "pass" and result["seeds"] == 2
    run(paper, out)
    assert len(diary(out)) == 8
    # Two seeds, 10 and 12, by the made-up reader.
    np.testing.assert_array_equal(score_file.load_runs(out)["a-t"].evaluations.scores[-1].mean(1), [10.0, 12.0])
    assert "$ python -m fake_binary --config=x:ok:10" in (out / "runs" / "a-t.log").read_text()


def test_a_changed_declaration_is_run_again_and_never_mixed(fake, tmp_path):
    out, runs = tmp_path / "out", [("a", "t", "x:ok:10"), ("b", "t", "x:ok:20")]
    run(fake.paper(*runs), out)
    changed = fake.paper(*runs, overrides={"offset": 5})
    result = run(changed, out, report_only=True)
    assert set(result["missing"]) == {"a-t", "b-t"} and "other settings" in result["missing"]["a-t"]
    assert run(changed, out)["missing"] == {}
    assert score_file.load_runs(out)["a-t"].evaluations.scores[-1, 0, 0] == 15.0


def test_a_failure_is_reported_and_the_others_go_on(fake, tmp_path):
    out = tmp_path / "out"
    runs = [("a", "t", "x:fail:10"), ("b", "t", "x:ok:20"), ("a", "u", "x:silent:0"), ("b", "u", "x:ok:nan")]
    result = run(fake.paper(*runs), out)
    assert set(result["missing"]) == {"a-t", "a-u", "b-u"}
    assert result["missing"]["a-t"].startswith("the learning rate is wrong (exit code 1, see ")
    assert "last line is not a JSON object" in result["missing"]["a-u"]
    assert "is nan" in result["missing"]["b-u"]
    assert list(score_file.load_runs(out)) == ["b-t"]
    (out / "runs" / "mended").touch()
    result = run(fake.paper(*runs), out, only="a-t")
    assert set(result["missing"]) == {"a-u", "b-u"} and diary(out).count("b-t start") == 1


def test_report_only_starts_nothing(fake, tmp_path):
    out, paper = tmp_path / "out", fake.paper(("a", "t", "x:ok:10"), ("b", "t", "x:ok:20"))
    result = run(paper, out, report_only=True)
    assert diary(out) == [] and set(result["missing"]) == {"a-t", "b-t"}
    run(paper, out)
    before = (out / "table.md").read_text()
    (out / "table.md").unlink()
    run(paper, out, report_only=True)
    assert (out / "table.md").read_text() == before and len(diary(out)) == 4


def test_only_that_finds_nothing_is_an_error(fake, tmp_path):
    paper = fake.paper(("a", "t", "x:ok:10"), ("b", "t", "x:ok:20"))
    with pytest.raises(ValueError, match="did you mean a-t"):
        run(paper, tmp_path / "out", only="a-tt")
    with pytest.raises(ValueError, match="not a regular expression"):
        run(paper, tmp_path / "out", only="(")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin processes")
def test_several_at_once_each_have_their_share_of_the_cores(fake, tmp_path):
    cores = os.sched_getaffinity(0)
    out, paper = tmp_path / "out", fake.paper(("a", "t", "x:ok:10"), ("b", "t", "x:ok:20"))
    assert run(paper, out, jobs=2)["missing"] == {}
    assert os.sched_getaffinity(0) == cores
    starts = [line for line in (out / "runs" / "diary").read_text().splitlines() if " start " in line]
    first, second = (set(json.loads(line.split(" ", 2)[2])) for line in starts)
    assert first | second == cores
    assert len(cores) == 1 or not first & second
    assert processes._shares(1) == [None]


def start(fake, out: Path, *runs: tuple[str, str, str], jobs: int = 1) -> subprocess.Popen:
    """`reproduce` in a process of its own."""
    code = (
        "import fake_paper, sys\nfrom pathlib import Path\nfrom experiments.reproduce import reproduce\n"
        f"reproduce(fake_paper.paper(*{runs!r}), ('made_up', 'p'), Path({str(out)!r}), jobs={jobs})"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_sigterm_lets_every_run_save_and_starts_no_other(fake, tmp_path):
    out = tmp_path / "out"
    runs = [("a", "t", "x:slow:10"), ("b", "t", "x:slow:20"), ("a", "u", "x:ok:1"), ("b", "u", "x:ok:1")]
    process = start(fake, out, *runs, jobs=2)
    wait_for(lambda: len(diary(out)) == 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert sorted(diary(out)) == ["a-t saved", "a-t start", "b-t saved", "b-t start"]
    (out / "runs" / "go").touch()
    assert run(fake.paper(*runs), out)["missing"] == {}, "the same command goes on"


def test_a_run_that_a_killed_start_left_behind_is_not_started_beside_itself(fake, tmp_path):
    out, runs = tmp_path / "out", [("a", "t", "x:slow:10"), ("b", "t", "x:ok:20")]
    process = start(fake, out, *runs)
    wait_for(lambda: diary(out) == ["a-t start"])
    process.kill()
    process.communicate(timeout=60)
    again = start(fake, out, *runs)
    # While the run that was left behind goes on, the other one is done.
    wait_for(lambda: "b-t end" in diary(out))
    assert diary(out).count("a-t start") == 1
    (out / "runs" / "go").touch()
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert [line for line in diary(out) if line.startswith("a-t")] == ["a-t start", "a-t end"] * 2


# The binary


def binary(*args: str, home: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT), "HOME": str(home)}
    command = [sys.executable, "-m", "experiments.reproduce", *args]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)


def test_the_tiny_preset_from_nothing_to_verdicts(tmp_path):
    out = tmp_path / "out"
    done = binary("--paper=offline_rl", "--preset=tiny", f"--outdir={out}", "--jobs=2", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "standard output is one JSON object"
    result = json.loads(done.stdout)
    assert (result["paper"], result["preset"], result["seeds"], result["missing"]) == ("offline_rl", "tiny", 2, {})
    assert [claim["name"] for claim in result["claims"]] == ["td3_bc_above_bc", "best_above_behaviour"]
    for claim in result["claims"]:
        assert set(claim) == {"name", "verdict", "value", "interval", "paper_value"}
        assert claim["verdict"] in ("pass", "fail") and claim["interval"][0] <= claim["value"] <= claim["interval"][1]
    names = {
        "scores.npz", "scores.json", "table.md", "table.csv", "curves.png", "profile.png", "improvement.png",
        "report.json",
    }
    assert set(result["paths"]) == names and all(Path(path).exists() for path in result["paths"].values())

    raw = np.load(out / "runs" / "bc-hopper-medium" / "episodes.npz")
    record = json.loads((out / "scores.json").read_text())["bc-hopper-medium"]
    np.testing.assert_array_equal(record["final_returns"], raw["returns"][-1])
    np.testing.assert_allclose(
        record["final_scores"], 100 * (raw["returns"][-1] + 20.272305) / (3234.3 + 20.272305), rtol=1e-12
    )
    assert record["seeds"] == [0, 1] and len(record["inputs"]["checksum"]) == 64 and record["step"] == 40
    assert record["reference_score"] == record["summary"]["behaviour_score"]

    again = reproduce.reproduce(OFFLINE_RL, ("offline_rl", "tiny"), out)
    assert [claim["value"] for claim in again["claims"]] == [claim["value"] for claim in result["claims"]]
    provenance = json.loads((out / "runs" / "bc-hopper-medium" / "provenance.json").read_text())
    assert len(provenance["starts"]) == 1, "a finished run is not started again"


def test_missing_runs_are_named_on_the_last_line_and_give_exit_code_1(tmp_path, capsys):
    flags.FLAGS.mark_as_parsed()
    values = {"paper": "offline_rl", "preset": "tiny", "outdir": str(tmp_path), "report_only": True}
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit) as info:
        reproduce.main(["reproduce"])
    assert info.value.code == 1
    result = json.loads(capsys.readouterr().out)
    assert set(result["missing"]) == {"bc-hopper-medium", "td3_bc-hopper-medium"} and result["seeds"] == []
    assert {(claim["verdict"], claim["value"], claim["interval"]) for claim in result["claims"]} == {
        ("missing", None, None)
    }


def test_a_wrong_name_is_one_line(tmp_path):
    done = binary("--paper=offlin", f"--outdir={tmp_path / 'out'}", home=tmp_path)
    assert done.returncode == 1 and "did you mean offline_rl" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()
