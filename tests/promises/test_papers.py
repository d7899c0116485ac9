"""What every paper promises beside its programs: presets that build, binaries that start, tiny results from run to
verdict, and claims that can be judged.
"""

import ast
import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.reproduce import load_paper, load_preset, papers, reproduce
from rl_jax.core import loop
from rl_jax.core.config import check_core_config, flat
from rl_jax.core.runtime import PREEMPTED_EXIT_CODE
from rl_jax.reports.declaration import Finding, Run
from rl_jax.reports.measures import Evaluations
from rl_jax.reports.scores import Scores
from rl_jax.science.activities import DEEPDTA
from tests.binaries import run_module
from tests.papers import CASES, PAPERS, ROOT, get_config, make_experiment, smaller
from tests.promises.runner import on_devices, signal_at

# Networks and all else are the authors' own; what is computed with them in two steps is what a CPU can.
FOR_A_CPU = {
    "num_seeds": 1, "eval_episodes": 1, "evaluation_images": 16, "batch_size": 64, "tuning.chunk_size": 64,
    "model.num_calls": 4, "rounds.prompts": 1000, "trajectories": 300, "roll_outs": 50,
}
EACH = pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
DECLARED = [(paper.name, preset) for paper in PAPERS for preset in load_paper(paper.name).presets]


def test_every_paper_has_its_line():
    assert sorted(paper.name for paper in PAPERS) == papers()
    for paper in PAPERS:
        assert {"quick"} <= load_paper(paper.name).presets.keys() or len(load_paper(paper.name).presets) > 1
        assert {"tiny", "paper"} & load_paper(paper.name).presets.keys()


# Presets


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_tiny_preset_builds(case):
    config = get_config(case.config, case.preset)
    assert (config.paper, config.preset) == (case.config, case.preset)
    check_core_config(config)


@EACH
def test_presets_at_scale_and_the_default_build(paper):
    for name in paper.tiny:
        assert importlib.import_module(f"configs.{name}").get_config().preset == "quick"
        with pytest.raises(ValueError, match="unknown preset 'tinny"):
            get_config(name, "tinny")
    for text in paper.at_scale:
        check_core_config(get_config(*text.split(":", 1)))


def config_of(run: Run) -> Any:
    path, _, preset = run.config.partition(":")
    return get_config(path.removeprefix("configs/").removesuffix(".py"), preset, run.overrides)


@pytest.mark.parametrize("paper, preset", DECLARED)
def test_every_declared_run_has_a_configuration(paper, preset):
    """Its binary is there and its overrides are fields, with values of their types."""
    for run in load_preset(load_paper(paper), preset).runs:
        config = config_of(run)
        assert importlib.util.find_spec(run.module), run
        assert run.needs.keys() <= flat(config).keys(), run
        check_core_config(config)


# Binaries


@pytest.mark.parametrize("paper, binary", [(paper.name, binary) for paper in PAPERS for binary in paper.binaries])
def test_a_binary_is_three_lines_and_says_what_is_wrong(paper, binary, tmp_path):
    body = ast.parse((ROOT / "experiments" / paper / f"{binary}.py").read_text()).body
    docstring, *imports, start = body
    assert isinstance(docstring, ast.Expr) and len(imports) == 2 and all(isinstance(x, ast.ImportFrom) for x in imports)
    assert ast.unparse(start.test) == "__name__ == '__main__'" and len(start.body) == 1
    assert ast.unparse(start.body[0]).startswith("main(experiment, 'configs/")
    module = f"experiments.{paper}.{binary}"
    assert f"-m {module} " in ast.get_docstring(ast.parse((ROOT / "experiments" / paper / f"{binary}.py").read_text()))
    assert "config.num_steps=-1: must be at least 0" in run_module(
        module, f"--workdir={tmp_path / 'run'}", "--config.num_steps=-1"
    ).error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module, arguments, message", [
    ("experiments.sqirl.build", ("--outdir=nowhere", "extra"), "unexpected argument 'extra'"),
    ("experiments.sqirl.analyze", ("--mdp=nowhere.npz",), "nowhere.npz"),
    ("experiments.open_rl_benchmark.query", ("--root=nowhere", "--filters=agent.name=bc"), "nowhere"),
    ("experiments.reproduce", ("--paper=offline",), "unknown paper 'offline': did you mean offline_rl"),
    ("experiments.reproduce", ("--paper=rlcm", "--preset=quick"), "unknown preset 'quick'"),
    ("experiments.reproduce", (), "--paper must have a value"),
    ("experiments.benchmark", ("--suite=offline",), "offline"),
])
def test_the_other_binaries_say_what_is_wrong(module, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = run_module(module, *arguments)
    assert ended.code == 1 and ended.stdout.count("{") == 0
    assert message in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


# Results


class Here:
    """Starts a run in this process and waits for its end; what it does is counted."""

    slots, requeues = 1, False

    def __init__(self):
        self.started = []

    def start(self, run, arguments, folder):
        config = config_of(run)
        fields = [f"--config.dataset.data_dir={config.dataset.data_dir}"] if "dataset" in config else []
        (folder / f"{run.name}.log").touch()
        with on_devices(1):
            ended = run_module(*arguments[1:], *fields)
        (folder / f"{run.name}.log").write_text(ended.stderr)
        self.started.append((run.name, ended))
        return SimpleNamespace(place="here", poll=lambda: ended.code)

    def stop(self, jobs):
        """Nothing runs in the background."""


# In `make test` offline RL's goes this way, in processes of its own: tests/experiments/test_reproduce.py.
@pytest.mark.slow
@pytest.mark.parametrize("paper", [pytest.param(one, id=one.name, marks=one.marks) for one in PAPERS])
def test_the_tiny_preset_goes_from_run_to_verdict(paper, tmp_path):
    launcher, declared = Here(), load_paper(paper.name)
    report = reproduce(declared, (paper.name, "tiny"), tmp_path, launcher=launcher)
    preset = load_preset(declared, "tiny")
    assert report["missing"] == {}, [ended.stderr for _, ended in launcher.started]
    assert sorted(name for name, _ in launcher.started) == sorted(run.name for run in preset.runs)
    assert [claim["verdict"] for claim in report["claims"] if claim["verdict"] not in ("pass", "fail")] == []
    assert len(report["claims"]) == len(preset.claims)
    for name, ended in launcher.started:
        assert json.loads((tmp_path / "runs" / name / "result.json").read_text()) == ended.last_line
        starts = json.loads((tmp_path / "runs" / name / "provenance.json").read_text())["starts"]
        assert starts[-1]["end"]["state"] == "finished"
    table = (tmp_path / "table.md").read_text()
    assert all(declared.labels[run.method] in table for run in preset.runs)
    for name in report["files"]:
        assert (tmp_path / name).stat().st_size > 0, name
    # Again: nothing is left to run, and the same is said.
    again = Here()
    assert reproduce(declared, (paper.name, "tiny"), tmp_path, launcher=again)["claims"] == report["claims"]
    assert again.started == []


def test_a_run_that_was_told_to_stop_ends_with_its_code(tmp_path):
    """A whole binary in one process; exact resumption is the programs' promise."""
    config = get_config("offline_rl", "tiny-bc")
    arguments = (
        "experiments.offline_rl.train", "--config=configs/offline_rl.py:tiny-bc", f"--workdir={tmp_path}",
        f"--config.dataset.data_dir={config.dataset.data_dir}", "--config.loop.eval_every=0", "--config.num_seeds=1",
    )
    with on_devices(1), signal_at(10):
        ended = run_module(*arguments)
    assert (ended.code, ended.stdout) == (PREEMPTED_EXIT_CODE, "")
    with on_devices(1):
        assert run_module(*arguments).last_line["step"] == config.num_steps


# Claims


class Invented(Mapping):
    """Any name has a value, drawn from the name."""

    def __init__(self, draw, salt):
        self._draw, self._salt = draw, salt

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        digest = hashlib.sha256(f"{self._salt}/{name}".encode()).digest()
        return self._draw(np.random.default_rng(int.from_bytes(digest[:4], "big")))

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def invented(run: Run, seeds: int = 3) -> Evaluations:
    """Evaluations of which nothing is true but the shapes; numbers that all runs on a task share are shared."""
    outcomes = Invented(lambda rng: np.sort(rng.uniform(0.1, 0.9, (4, seeds, 2)), axis=0), run.name)
    summary = Invented(lambda rng: float(rng.uniform(1.0, 2.0)), run.task)
    return Evaluations(np.arange(1, 5) * 10, np.arange(1, 5) * 1.5, outcomes, summary)


@pytest.mark.parametrize("paper, preset", [
    pytest.param(*own, marks=[pytest.mark.slow] if own[1] == "paper" else []) for own in DECLARED
])
def test_claims_on_invented_scores(paper, preset):
    """Every claim is decided, from whatever scores; the same scores decide it the same way."""
    declared = load_paper(paper)
    chosen = load_preset(declared, preset)
    scores = Scores(declared, chosen, {run.name: invented(run) for run in chosen.runs})
    for claim in chosen.claims:
        if claim.elsewhere:
            continue
        finding = claim.check(scores)
        assert isinstance(finding, Finding) and finding.passed in (True, False), claim.name
        low, high = finding.interval
        assert not low > high, claim.name
        assert claim.text and claim.rule
        if isinstance(claim.published, float | int):
            assert np.isfinite(claim.published)


# At the authors' scale


@pytest.mark.slow
@pytest.mark.parametrize(
    "paper, text", [pytest.param(paper.name, text, marks=paper.marks) for paper in PAPERS for text in paper.at_scale]
)
def test_a_preset_at_scale_compiles_and_takes_two_steps(paper, text, tmp_path):
    fields = {"num_steps": 2, "loop.chunk": 2, "loop.log_every": 1, "loop.eval_every": 0, "tensorboard": False}
    config = get_config(*text.split(":", 1), fields)
    smaller(config, FOR_A_CPU | {"dataset.num_steps": 5000})
    if "dataset" in config:
        config.dataset.num_steps = 5000
    with on_devices(1):
        result = loop.run(make_experiment(paper, config), config, tmp_path)
    assert result.trained_steps == 2


def in_kind(run: Run) -> str:
    """What a run shares with those that differ from it in the values of fractions alone, 0 or not: to compile these as
    well, which takes most of the time, would check nothing more."""
    kinds = {name: bool(value) if isinstance(value, float) else value for name, value in run.overrides.items()}
    return f"{run.module} {run.config} {sorted(kinds.items())}"


@pytest.mark.slow
@pytest.mark.parametrize("paper, preset", [own for own in DECLARED if own[1] in ("paper", "emoji-large")])
def test_the_runs_at_the_papers_scale_take_two_steps(paper, preset, tmp_path):
    """One run a method that needs no other run and no model or data that must be fetched, on the first task that it is
    declared on, and one of methods that differ in coefficients alone; ways that others take are those of presets with
    the smallest language model, `at_scale`."""
    runs = {run.method: run for run in reversed(load_preset(load_paper(paper), preset).runs) if not run.needs}
    runs = {in_kind(run): run for run in runs.values()}
    configs = {run.name: config_of(run) for run in runs.values()}
    configs = {name: config for name, config in configs.items() if flat(config).get("model.name", "") == ""}
    by_path = ("gdsc", *DEEPDTA)  # sets that a user has to have
    configs = {name: own for name, own in configs.items() if flat(own).get("activities.name") not in by_path}
    if not configs:
        pytest.skip("all of its runs need a model that must be fetched, or another run")
    for name, config in configs.items():
        config.update_from_flattened_dict(
            {"loop.chunk": 2, "loop.log_every": 1, "loop.eval_every": 0, "loop.eval_at_start": False}
        )
        smaller(config, FOR_A_CPU | {"num_steps": 2})  # what is solved in closed form has none
        if "samples" in config:
            config.num_steps = 2  # 0 stands there for as many as the samples take, which is hours
        if "dataset" in config:
            config.dataset.num_steps = 5000
        with on_devices(1):
            result = loop.run(make_experiment(paper, config), config, tmp_path / name)
        assert result.trained_steps <= 2 and (result.step > 0) == (config.num_steps > 0), name
