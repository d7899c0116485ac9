"""The one main: flags, one line for an error, the last line, result.json, a sweep in sequence."""

import json
import re

import numpy as np
import pytest

from rl_jax.core import loop
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.runtime import PREEMPTED_EXIT_CODE
from tests.binaries import finish, run_main, run_module, start
from tests.core import binary


def run(*arguments, preset="short"):
    return run_main(binary.run, f"--config=tests/core/binary_config.py:{preset}", *arguments)


def test_the_last_line_is_the_result_and_lies_in_the_folder(tmp_path):
    ended = run_module("tests.core.binary", f"--workdir={tmp_path}")
    assert (ended.code, len(ended.stdout.splitlines())) == (0, 1), ended.stderr
    line = ended.last_line
    assert list(line) == ["paper", "preset", "step", "seeds", "score", "updates_per_s", "workdir", "rows"]
    assert (line["paper"], line["preset"], line["step"], line["seeds"]) == ("toy", "quick", 20, 2)
    outcomes = read_outcomes(tmp_path / "outcomes.npz").values["weight"]
    assert line["score"] == pytest.approx(float(outcomes[-1].mean()), rel=1e-6)
    assert line["workdir"] == str(tmp_path) and line["rows"] == 64 and line["updates_per_s"] > 0
    assert json.loads((tmp_path / "result.json").read_text()) == line
    assert (tmp_path / "figure.txt").read_text() == "20"
    assert json.loads((tmp_path / "provenance.json").read_text())["starts"][0]["inputs"] == {"rows": 64}
    # Started again, it says the same.
    assert run_module("tests.core.binary", f"--workdir={tmp_path}").last_line == line


def test_fields_are_set_by_flags_and_a_relative_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = f"--config={binary.__file__.removesuffix('.py')}_config.py:quick"
    ended = run_main(binary.run, config, "--workdir=a/b", "--config.num_steps=6", "--config.agent.rate=0.5")
    assert ended.last_line["step"] == 6 and (tmp_path / "a" / "b" / "result.json").is_file()
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text())["agent"]["rate"] == 0.5


def test_settings_side_by_side_have_a_score_each(tmp_path):
    line = run(f"--workdir={tmp_path}", "--config.sweep=agent.rate=0.9,0.3").last_line
    assert line["score"] is None
    outcomes = read_outcomes(tmp_path / "outcomes.npz").values["weight"][-1].mean(-1)
    assert line["sweep"] == [
        {"setting": {"agent.rate": rate}, "score": pytest.approx(float(scores.mean()), rel=1e-6)}
        for rate, scores in zip((0.9, 0.3), outcomes.reshape(2, 2), strict=True)
    ]


def test_a_sweep_in_sequence_has_a_folder_each_and_goes_on(tmp_path, monkeypatch):
    arguments = (f"--workdir={tmp_path}", "--config.sweep=agent.width=8,16; agent.rate=0.9,0.3; num_steps=4,2")
    line = run(*arguments).last_line
    assert [part["setting"] for part in line["sweep"]] == [
        {"agent.width": width, "num_steps": steps} for width in (8, 16) for steps in (4, 2)
    ]
    for part in line["sweep"]:
        folder = tmp_path / f"agent.width={part['setting']['agent.width']},num_steps={part['setting']['num_steps']}"
        assert json.loads((folder / "result.json").read_text()) == part["summary"]
        assert part["summary"]["step"] == part["setting"]["num_steps"]
        assert [own["setting"] for own in part["summary"]["sweep"]] == [{"agent.rate": 0.9}, {"agent.rate": 0.3}]
    trained = []
    start = loop.run
    monkeypatch.setattr(loop, "run", lambda *arguments: trained.append(start(*arguments)) or trained[-1])
    assert run(*arguments).last_line == line
    assert [result.trained_steps for result in trained] == [0] * 4


@pytest.mark.parametrize("arguments, message", [
    ((), "Flag --workdir must have a value other than None"),
    (("--workdir=RUN", "--config.num_stpes=3"), "the config has no such field: .*num_stpes"),
    (("--workdir=RUN", "--config.agent.rate=fast"), "config.agent.rate.*fast"),
    (("--workdir=RUN", "--config.num_steps=-1"), "config.num_steps=-1: must be at least 0"),
    (("--workdir=RUN", "--config.agent.name=other"), "config.agent.name='other': there is toy alone .--verbosity=1"),
    (("--workdir=RUN", "--config.sweep=agent.rte=1"), "config.sweep: unknown field 'agent.rte': did you mean agent."),
    (("--workdir=RUN", "--config.mesh.data=3"), "config.mesh .*needs 3 devices and there are 8"),
    (("--workdir=RUN", "--config.init_from.run=/nowhere"), "--config.init_from.run=/nowhere is not the --workdir"),
    (("--workdir=RUN", "--config.distributed.coordinator_address=a:1"), "config.distributed: process_id=-1"),
    (("--workdir=RUN", "extra"), "unexpected argument 'extra': fields are set as --config.field=value"),
    (("--workdir=FILE",), "--workdir=.*is a file: name a folder"),
    (("--workdir=RUN", "--config=nowhere.py"), "nowhere.py"),
    (("--workdir=RUN", "--config=tests/core/binary_config.py:shrt"), "unknown preset 'shrt': did you mean short"),
])
def test_bad_input_is_one_line(arguments, message, tmp_path):
    (tmp_path / "file").write_text("")
    places = {"RUN": str(tmp_path / "run"), "FILE": str(tmp_path / "file")}
    words = [word.replace("RUN", places["RUN"]).replace("FILE", places["FILE"]) for word in arguments]
    error = run(*words).error
    assert re.search(message, error), error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_wrong_configuration_is_told_before_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(binary, "experiment", lambda config: pytest.fail("the experiment is made"))
    assert "config.loop.chunk=0: must be at least 1" in run(f"--workdir={tmp_path}", "--config.loop.chunk=0").error


def test_a_defect_of_the_program_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(binary.toys, "init", lambda key, resident: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(f"--workdir={tmp_path}")


def test_a_sweep_in_a_runs_own_folder_is_refused(tmp_path):
    assert run(f"--workdir={tmp_path}").code == 0
    error = run(f"--workdir={tmp_path}", "--config.sweep=agent.width=8,16").error
    assert "holds a run, and a sweep makes folders in it: use another --workdir" in error


@pytest.mark.parametrize("metric, score", [("eval/absent", None), ("eval/weight", 1.0)])
def test_a_headline_that_no_evaluation_has_is_no_score(metric, score, tmp_path, monkeypatch):
    made = binary.experiment

    def other(config):
        own = made(config)
        return own._replace(headline=own.headline._replace(name=metric))

    monkeypatch.setattr(binary, "experiment", other)
    line = run(f"--workdir={tmp_path}").last_line
    assert (line["score"] is None) == (score is None)


# What only a process has: its exit code and its two streams.

WAIT = """
import os, signal
from rl_jax.core import loop
from tests.core import binary
update = loop.ProgressLine.update
def updated(self, step, **shown):
    update(self, step, **shown)
    if step == {at}:
        os.kill(os.getpid(), signal.SIG{name})
loop.ProgressLine.update = updated
binary.run()
"""


def test_the_exit_codes_and_streams_of_a_process(tmp_path):
    """One is told to stop, started again and finished; another is given bad input meanwhile."""
    arguments = ["--config=tests/core/binary_config.py:quick", f"--workdir={tmp_path / 'run'}"]
    stopped = start(["-c", WAIT.format(at=10, name="TERM"), *arguments])
    wrong = start(["-m", "tests.core.binary", *arguments[:1], f"--workdir={tmp_path / 'wrong'}", "--config.seed=-1"])
    stopped, wrong = finish(stopped), finish(wrong)
    assert (stopped.code, stopped.stdout) == (PREEMPTED_EXIT_CODE, ""), stopped.stderr
    assert "step 10 is saved" in stopped.stderr and "Traceback" not in stopped.stderr
    assert wrong.code == 1 and wrong.stdout == ""
    assert wrong.stderr == "error: config.seed=-1: must be in [0, 4294967295] (--verbosity=1 shows where)\n"
    ended = finish(start(["-m", "tests.core.binary", *arguments]))
    assert ended.code == 0 and len(ended.stdout.splitlines()) == 1, ended.stderr
    alone = run(f"--workdir={tmp_path / 'alone'}", "--config.mesh.data=8", preset="quick").last_line
    assert ended.last_line["score"] == pytest.approx(alone["score"], rel=1e-4)
    ends = [start["end"]["state"] for start in json.loads((tmp_path / "run" / "provenance.json").read_text())["starts"]]
    assert ends == ["preempted", "finished"]
    assert np.isfinite(ended.last_line["score"])
