"""Regenerating a paper: declarations, stages, resume, failures, signals and Slurm with a made-up binary; READMEs."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import index, launch, local, reproduce, slurm
from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import better_than
from rl_jax.reports.declaration import Paper, Preset, Run
from rl_jax.reports.progress import Status, status
from rl_jax.reports.records import load_runs
from rl_jax.reports.report import write_report

ROOT = Path(__file__).resolve().parents[2]

# Leaves what --config says ("binary:KIND:SCORE") as the core does; keeps a diary of starts and ends beside its folder.
FAKE_BINARY = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np

flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
kind, score = flags["config"].split(":")[1:]
workdir = Path(flags["workdir"])
workdir.mkdir(parents=True, exist_ok=True)

def note(what):
    with (workdir.parent / "diary").open("a") as file:
        file.write(f"{workdir.name} {what} {sorted(os.sched_getaffinity(0))}\\n")

note("start")
print("some line for people", file=sys.stderr)
needed = flags.get("config.init_from.run")
if needed and not (Path(needed) / "result.json").exists():
    print(f"error: {needed} is not finished", file=sys.stderr)
    sys.exit(1)
if kind == "fail" and not (workdir.parent / "mended").exists():
    print("error: the learning rate is wrong", file=sys.stderr)
    sys.exit(1)
if kind == "silent":
    sys.exit(0)
if kind == "once" and not (workdir.parent / "told").exists():
    (workdir.parent / "told").touch()
    sys.exit(75)
if kind == "slow":
    def stop(number, frame):
        note("saved")
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    deadline = time.monotonic() + 60
    while not (workdir.parent / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
scores = np.full((2, 2, 3), float(score) + float(flags.get("config.offset", 0)))
scores[:, 1] += 2.0
np.savez(workdir / "outcomes.npz", step=np.array([10, 20]), train_seconds=np.array([1.0, 2.0]), score=scores)
(workdir / "config.json").write_text(json.dumps({"seed": 0, "num_steps": 20}))
start = {"inputs": {}, "git": {"revision": "r", "clean": True}, "devices": {"kind": "cpu"}}
(workdir / "provenance.json").write_text(json.dumps({"starts": [start]}))
(workdir / "result.json").write_text(json.dumps({"step": 20}))
note("end")
"""


def paper(*runs, overrides={}, needs={}):
    """The paper of that binary; `needs` is by a run's name."""
    made = tuple(
        Run(method, task, "fake_binary", config, overrides, needs.get(f"{method}-{task}", {}))
        for method, task, config in runs
    )
    preset = Preset(made, (better_than("b", "a", published=0.9),), figures={})
    labels = {"a": "A", "b": "B", "c": "C"}
    return Paper("Made up", labels, "a", Metric("eval/score", "score"), {"p": lambda: preset})


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The binary can be started by name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "fake_binary.py").write_text(FAKE_BINARY)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.02)


def diary(outdir: Path) -> list[str]:
    """What the made-up binary did, in order: "<run> <what>"."""
    path = outdir / "runs" / "diary"
    return [" ".join(line.split()[:2]) for line in path.read_text().splitlines()] if path.exists() else []


def run(made, outdir, jobs=1, **options):
    options = {"launcher": local.LocalLauncher(jobs)} | options
    return reproduce.reproduce(made, ("made_up", "p"), outdir, **options)


# Declarations


@pytest.mark.parametrize("name", reproduce.papers())
def test_every_declared_run_of_every_paper_has_a_config_that_takes_its_overrides(name):
    made = reproduce.load_paper(name)
    for preset in made.presets:
        declared = reproduce.load_preset(made, preset)
        for one in declared.runs:
            path, config_name = one.config.split(":")
            assert importlib.util.find_spec(one.module) and (ROOT / path).exists(), one
            config = importlib.import_module(path.removesuffix(".py").replace("/", ".")).get_config(config_name)
            config.update_from_flattened_dict(dict(one.overrides))  # an unknown field or a wrong type raises
            for field in one.needs:
                config.update_from_flattened_dict({field: "folder"})


def test_unknown_names_have_near_ones():
    with pytest.raises(ValueError, match="did you mean offline_rl"):
        reproduce.load_paper("ofline_rl")
    with pytest.raises(ValueError, match="did you mean p"):
        reproduce.load_preset(paper(("a", "t", "x:ok:1"), ("b", "t", "x:ok:1")), "pp")
    with pytest.raises(ValueError, match="preset 'p': claim 'b_better_than_a' speaks of b on t"):
        reproduce.load_preset(paper(("a", "t", "x:ok:1")), "p")


# What is committed


SAVED = sorted(path.parent for path in (ROOT / "experiments").glob("*/results/*/scores.npz"))


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: f"{folder.parents[1].name}-{folder.name}")
def test_committed_tables_are_made_from_the_committed_scores(folder, tmp_path):
    """Claims made again from the saved scores have the values and verdicts that stand in table.md."""
    made = reproduce.load_paper(folder.parents[1].name)
    preset = reproduce.load_preset(made, folder.name)._replace(figures={})
    saved = load_runs(folder)
    assert all(saved[one.name].is_of(one) for one in preset.runs), "a run is declared otherwise than it was made"
    head = {"paper": folder.parents[1].name, "preset": folder.name, "missing": {}}
    report = write_report(made, preset, saved, tmp_path, head)
    again = "make it again: python -m experiments.reproduce --report_only"
    assert (tmp_path / "table.md").read_text() == (folder / "table.md").read_text(), again
    committed = json.loads((folder / "report.json").read_text())["claims"]
    for ours, theirs in zip(report["claims"], committed, strict=True):
        for name, value in ours.items():
            approximately = pytest.approx(theirs[name], abs=1e-9) if name in ("value", "interval") else theirs[name]
            assert value == approximately, (ours["name"], name, again)


def test_readmes_show_the_results_that_are_committed():
    for folder in index.papers():
        assert index.with_results(folder) == (folder / "README.md").read_text(), "python -m experiments.index"
    assert index.index() == (ROOT / "experiments" / "README.md").read_text(), "python -m experiments.index"


def test_a_marker_without_results_is_named(tmp_path):
    (tmp_path / "README.md").write_text("# A\n\nB\n\n<!-- results:quick -->\nold\n<!-- end -->\n")
    with pytest.raises(ValueError, match="shows results:quick, and .*/results/quick/table.md is not there"):
        index.with_results(tmp_path)
    (tmp_path / "README.md").write_text("# A\n\nB\n\n<!-- results:quick -->\n")
    with pytest.raises(ValueError, match="has no <!-- end -->"):
        index.with_results(tmp_path)


# Running


def test_finished_runs_are_not_started_again(fake, tmp_path):
    out = tmp_path / "out"
    made = paper(("a", "t", "x:ok:10"), ("b", "t", "x:ok:20"), ("a", "u", "x:ok:30"), ("b", "u", "x:ok:40"))
    result = run(made, out, only="-t")
    assert diary(out) == ["a-t start", "a-t end", "b-t start", "b-t end"]
    assert result["missing"] == {"a-u": "not run", "b-u": "not run"} and result["claims"][0]["verdict"] == "missing"
    # A run's folder may go once its scores are saved.
    for path in (out / "runs" / "a-t").iterdir():
        path.unlink()
    result = run(made, out)
    assert diary(out)[4:] == ["a-u start", "a-u end", "b-u start", "b-u end"]
    assert result["missing"] == {} and result["claims"][0]["verdict"] == "pass" and result["seeds"] == 2
    run(made, out)
    assert len(diary(out)) == 8
    np.testing.assert_array_equal(load_runs(out)["a-t"].evaluations.outcomes["score"][-1].mean(1), [10.0, 12.0])
    assert "$ python -m fake_binary --config=x:ok:10" in (out / "runs" / "a-t.log").read_text()
    # Nothing is started to make the report alone.
    before = (out / "table.md").read_text()
    (out / "table.md").unlink()
    run(made, out, launcher=None)
    assert (out / "table.md").read_text() == before and len(diary(out)) == 8


def test_a_changed_declaration_is_run_again_and_never_mixed(fake, tmp_path):
    out, runs = tmp_path / "out", [("a", "t", "x:ok:10"), ("b", "t", "x:ok:20")]
    run(paper(*runs), out)
    changed = paper(*runs, overrides={"offset": 5})
    result = run(changed, out, launcher=None)
    assert set(result["missing"]) == {"a-t", "b-t"} and "other settings" in result["missing"]["a-t"]
    assert run(changed, out)["missing"] == {}
    assert load_runs(out)["a-t"].evaluations.outcomes["score"][-1, 0, 0] == 15.0


def test_a_failure_is_reported_and_the_others_go_on(fake, tmp_path):
    out = tmp_path / "out"
    runs = [("a", "t", "x:fail:10"), ("b", "t", "x:ok:20"), ("a", "u", "x:silent:0"), ("b", "u", "x:ok:nan")]
    result = run(paper(*runs), out)
    assert set(result["missing"]) == {"a-t", "a-u", "b-u"}
    assert result["missing"]["a-t"].startswith("the learning rate is wrong (exit code 1, see ")
    assert "result.json is missing" in result["missing"]["a-u"] and "is nan" in result["missing"]["b-u"]
    assert list(load_runs(out)) == ["b-t"]
    (out / "runs" / "mended").touch()
    result = run(paper(*runs), out, only="a-t")
    assert set(result["missing"]) == {"a-u", "b-u"} and diary(out).count("b-t start") == 1


def test_stages_run_in_order_and_not_without_the_ones_they_need(fake, tmp_path):
    out = tmp_path / "out"
    needs = {"a-t": {"init_from.run": "b-t"}, "b-t": {"init_from.run": "c-t"}}
    runs = [("a", "t", "x:ok:10"), ("b", "t", "x:ok:20"), ("c", "t", "x:fail:30")]
    result = run(paper(*runs, needs=needs), out, jobs=3)
    assert diary(out) == ["c-t start"]
    assert result["missing"]["b-t"] == "not run: needs c-t" and result["missing"]["a-t"] == "not run: needs b-t"
    (out / "runs" / "mended").touch()
    assert run(paper(*runs, needs=needs), out, jobs=3, only="a-t")["missing"] == {}, "--only brings what it needs"
    assert diary(out)[1:] == ["c-t start", "c-t end", "b-t start", "b-t end", "a-t start", "a-t end"]
    assert f"--config.init_from.run={out}/runs/b-t" in (out / "runs" / "a-t.log").read_text()


def test_only_that_finds_nothing_is_an_error(fake, tmp_path):
    made = paper(("a", "t", "x:ok:10"), ("b", "t", "x:ok:20"))
    with pytest.raises(ValueError, match="did you mean a-t"):
        run(made, tmp_path / "out", only="a-tt")
    with pytest.raises(ValueError, match="not a regular expression"):
        run(made, tmp_path / "out", only="(")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin processes")
def test_several_at_once_each_have_their_share_of_the_cores(fake, tmp_path):
    cores = os.sched_getaffinity(0)
    out = tmp_path / "out"
    process = start(out, ("a", "t", "x:slow:10"), ("b", "t", "x:slow:20"), jobs=2)
    wait_for(lambda: len(diary(out)) == 2)
    (out / "runs" / "go").touch()
    assert process.wait(timeout=60) == 0 and os.sched_getaffinity(0) == cores
    starts = [line for line in (out / "runs" / "diary").read_text().splitlines() if " start " in line]
    first, second = (set(json.loads(line.split(" ", 2)[2])) for line in starts)
    assert first | second == cores
    assert len(cores) == 1 or not first & second
    assert local._shares(1) == [None]


def start(out: Path, *runs: tuple[str, str, str], jobs: int = 1) -> subprocess.Popen:
    """`reproduce` in a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom tests.experiments.test_reproduce import paper, run\n"
        f"run(paper(*{runs!r}), Path({str(out)!r}), jobs={jobs})"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL, text=True)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_sigterm_lets_every_run_save_and_starts_no_other(fake, tmp_path):
    out = tmp_path / "out"
    runs = [("a", "t", "x:slow:10"), ("b", "t", "x:slow:20"), ("a", "u", "x:ok:1"), ("b", "u", "x:ok:1")]
    process = start(out, *runs, jobs=2)
    wait_for(lambda: len(diary(out)) == 2)
    time.sleep(0.2)  # the made-up binary takes signals a moment after its start
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert sorted(diary(out)) == ["a-t saved", "a-t start", "b-t saved", "b-t start"]
    (out / "runs" / "go").touch()
    assert run(paper(*runs), out)["missing"] == {}, "the same command goes on"


def test_a_run_that_a_killed_start_left_behind_is_not_started_beside_itself(fake, tmp_path):
    out, runs = tmp_path / "out", [("a", "t", "x:slow:10"), ("b", "t", "x:ok:20")]
    process = start(out, *runs)
    wait_for(lambda: diary(out) == ["a-t start"])
    process.kill()
    process.wait(timeout=60)
    again = start(out, *runs)
    # While the run that was left behind goes on, the other one is done.
    wait_for(lambda: "b-t end" in diary(out))
    assert diary(out).count("a-t start") == 1
    (out / "runs" / "go").touch()
    assert again.wait(timeout=60) == 0
    assert [line for line in diary(out) if line.startswith("a-t")] == ["a-t start", "a-t end"] * 2


# Slurm, by submitit's executor of local processes


def test_jobs_are_submitted_requeued_and_collected(fake, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    out = tmp_path / "out"
    runs = [("a", "t", "x:once:10"), ("b", "t", "x:ok:20"), ("a", "u", "x:fail:1"), ("b", "u", "x:ok:2")]
    result = run(paper(*runs), out, launcher=slurm.SlurmLauncher({"timeout_min": 5}, 4, cluster="local"))
    assert set(result["missing"]) == {"a-u"} and "the learning rate is wrong" in result["missing"]["a-u"]
    assert [line for line in diary(out) if line.startswith("a-t")] == ["a-t start", "a-t start", "a-t end"]
    assert "$ python -m fake_binary" in (out / "runs" / "a-t.log").read_text()
    assert json.loads((out / "runs" / ".a-t.job").read_text())["job_id"]


def test_a_job_whose_node_is_taken_saves_and_can_be_queued_again(fake, tmp_path):
    pytest.importorskip("submitit")
    arguments = ["-m", "fake_binary", "--config=x:slow:1", f"--workdir={tmp_path / 'runs' / 'a-t'}"]
    (tmp_path / "runs").mkdir()
    job = slurm.Command(arguments, tmp_path / "log")
    handler = []

    def preempt(number, frame):
        handler.append(job.checkpoint())

    previous = signal.signal(signal.SIGUSR2, preempt)
    try:
        killer = subprocess.Popen([sys.executable, "-c", (
            "import os, signal, time\nfrom pathlib import Path\n"
            f"while not Path({str(tmp_path / 'runs' / 'diary')!r}).exists(): time.sleep(0.02)\n"
            f"time.sleep(0.3); os.kill({os.getpid()}, signal.SIGUSR2)"
        )])
        job()
        killer.wait(timeout=60)
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert diary(tmp_path) == ["a-t start", "a-t saved"]
    (again,) = handler
    assert again.function.arguments == arguments


def test_options_of_jobs():
    assert slurm.parse_options("slurm_partition=gpu,timeout_min=60") == {"slurm_partition": "gpu", "timeout_min": 60}
    with pytest.raises(ValueError, match="'gpu' is not KEY=VALUE"):
        slurm.parse_options("gpu")


# Progress


def test_progress_is_read_from_the_folder(tmp_path):
    assert status(tmp_path / "none") == Status(None, None, None)
    (tmp_path / "config.json").write_text('{"num_steps": 400}')
    lines = [{"step": 100, "time/updates_per_s": 50.0}, {"step": 150, "loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step"')
    found = status(tmp_path)
    assert found == Status(150, 400, 50.0) and found.seconds_left == 5.0
    assert found.texts() == ("150 of 400", "50 updates/s", "0:00:05")


# The binary


def test_missing_runs_are_named_on_the_last_line_and_give_exit_code_1(tmp_path, capsys):
    flags.FLAGS.mark_as_parsed()
    values = {"paper": "offline_rl", "preset": "tiny", "outdir": str(tmp_path), "report_only": True}
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit) as info:
        reproduce.main(["reproduce"])
    assert info.value.code == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert set(result["missing"]) == {"bc-hopper-medium", "td3_bc-hopper-medium"} and result["seeds"] == []
    assert {(claim["verdict"], claim["value"], claim["interval"]) for claim in result["claims"]} == {
        ("missing", None, None)
    }
    assert "verdict" in err and "missing: bc-hopper-medium: not run" in err


def test_the_tiny_preset_from_nothing_to_verdicts(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "experiments.reproduce", "--paper=offline_rl", "--preset=tiny", f"--outdir={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["paper"], result["preset"], result["missing"]) == ("offline_rl", "tiny", {})
    assert [claim["name"] for claim in result["claims"]] == ["td3_bc_better_than_bc", "best_above_reference"]
    for claim in result["claims"]:
        assert set(claim) == set(reproduce.PUBLIC) and claim["verdict"] in ("pass", "fail")
    assert all(Path(path).exists() for path in result["paths"].values())
    record = json.loads((out / "scores.json").read_text())["bc-hopper-medium"]
    raw = np.array(record["final"]["return"])
    np.testing.assert_allclose(record["final"]["normalized_score"], 100 * (raw + 20.272305) / (3234.3 + 20.272305))
    assert record["seeds"] == [0, 1] and len(record["inputs"]["checksum"]) == 64
