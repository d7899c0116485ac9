"""Regenerates a paper's results: runs, scores, tables, figures, and a verdict on each of its claims.

    python -m experiments.reproduce --paper=offline_rl --preset=quick
    python -m experiments.reproduce --paper=offline_rl --preset=quick --jobs=2 --only='iql|bc-'
    python -m experiments.reproduce --paper=offline_rl --preset=quick --report_only
    python -m experiments.reproduce --paper=offline_rl --preset=paper --launcher=slurm \
        --slurm=slurm_partition=gpu,gpus_per_node=1,timeout_min=600

Give the same command again and it goes on where it was: a finished run is not started again, and one that was
interrupted goes on from its checkpoint. A run that needs another one's weights waits for it. SIGTERM and Ctrl-C let
every run save (on Slurm they go on) and end with exit code 75. A run that fails is reported and the others go on; exit
code 1 says that runs are missing in the end.

Everything lies in --outdir (runs/reproduce/<paper>/<preset>): runs/ with each run's folder and log, scores.npz and
scores.json, and what is made from these alone: table.md, table.csv, the figures and report.json. The last line on
standard output is one JSON object: paper, preset, seeds, claims (name, verdict pass, fail, "not run here" or missing,
value, interval, paper_value), missing runs with the reason, and the paths written.

What a paper runs and claims is declared in experiments/<paper>/claims.py (types: rl_jax/reports/declaration.py, claims:
rl_jax/reports/claims.py).
"""

import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from rich.console import Console
from rich.table import Table

from experiments.launch import Launcher, command, run_all
from experiments.local import LocalLauncher
from experiments.slurm import SlurmLauncher, parse_options
from rl_jax.core.config import unknown
from rl_jax.core.runtime import run_binary
from rl_jax.reports.declaration import Paper, Preset, Run
from rl_jax.reports.records import RESULT, load_runs, read_run, save_run
from rl_jax.reports.report import write_report
from rl_jax.reports.scores import check_declared
from rl_jax.reports.tables import number

PAPER = flags.DEFINE_string("paper", None, "A folder of experiments/ that has a claims.py.")
PRESET = flags.DEFINE_string("preset", "quick", "What to run: a preset of the paper's claims.py.")
OUTDIR = flags.DEFINE_string("outdir", "", "Where all of it lies; runs/reproduce/<paper>/<preset> if not given.")
ONLY = flags.DEFINE_string("only", "", "Run those alone whose name (<method>-<task>) this regular expression finds.")
JOBS = flags.DEFINE_integer("jobs", None, "Runs at once: 1 here, all on Slurm if not given.", lower_bound=1)
LAUNCHER = flags.DEFINE_enum("launcher", "local", ["local", "slurm"], "Where runs start: here, or as jobs of Slurm.")
SLURM = flags.DEFINE_string("slurm", "", "Options of the jobs, KEY=VALUE,...: those of submitit's AutoExecutor.")
REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Run nothing: make the report from the scores that are saved.")

PUBLIC = ("name", "verdict", "value", "interval", "paper_value")  # of a claim, on the last line


def papers() -> list[str]:
    """The folders that declare results."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/claims.py"))


def load_paper(name: str) -> Paper:
    """The declaration in experiments/<name>/claims.py; ValueError lists the near names where there is none."""
    if name not in papers():
        raise ValueError(unknown("paper", name, papers()))
    return importlib.import_module(f"experiments.{name}.claims").PAPER


def load_preset(paper: Paper, name: str) -> Preset:
    """The preset of that name, checked; ValueError where there is none or its declaration is wrong."""
    if name not in paper.presets:
        raise ValueError(unknown("preset", name, paper.presets))
    preset = paper.presets[name]()
    try:
        check_declared(preset, paper.labels)
    except ValueError as error:
        raise ValueError(f"preset {name!r}: {error}") from error
    return preset


def reproduce(
    paper: Paper, names: tuple[str, str], outdir: Path, *, only: str = "", launcher: Launcher | None = None
) -> dict[str, Any]:
    """Runs what is not finished yet and writes the report; returns the content of report.json.

    Args:
      names: of the paper and of its preset.
      only: as the flag.
      launcher: where runs start; None runs nothing and makes the report from the scores that are saved.

    Raises:
      ValueError: there is no such preset or no run that `only` finds, or the saved scores are damaged.
      SystemExit: told to stop.
    """
    preset = load_preset(paper, names[1])
    try:
        chosen = [run for run in preset.runs if re.search(only, run.name)]
    except re.error as error:
        raise ValueError(f"--only={only} is not a regular expression: {error}") from error
    if not chosen:
        raise ValueError(unknown("run", only, [run.name for run in preset.runs]))
    outdir.mkdir(parents=True, exist_ok=True)
    folder, declared = outdir / "runs", {run.name: run for run in preset.runs}
    errors: dict[str, str] = {}
    if launcher is not None:
        done = {name for name, saved in load_runs(outdir).items() if name in declared and saved.is_of(declared[name])}
        waiting = _to_do(chosen, declared, done, folder)
        logging.info("%d of %d runs are finished, %d to do", len(done), len(declared), len(waiting))

        def finished(run: Run, workdir: Path) -> None:
            save_run(outdir, read_run(run, workdir, command(run, folder)))

        errors = run_all(waiting, folder, launcher, finished, done - {run.name for run in waiting})
    saved, missing = {}, {}
    for name, candidate in load_runs(outdir).items():
        if name in declared and candidate.is_of(declared[name]):
            saved[name] = candidate
        elif name in declared:
            missing[name] = "the saved one was made with other settings than are declared now"
    missing = {run.name: errors.get(run.name, missing.get(run.name, "not run")) for run in preset.runs}
    missing = {name: reason for name, reason in missing.items() if name not in saved}
    head = {"paper": names[0], "preset": names[1], "missing": missing}
    return write_report(paper, preset, saved, outdir, head)


def _to_do(chosen: Sequence[Run], declared: Mapping[str, Run], done: set[str], folder: Path) -> list[Run]:
    """The chosen runs that are not finished, after the runs that they need and whose folders are not there."""
    made: dict[str, Run] = {}

    def add(run: Run) -> None:
        for needed in run.needs.values():
            if needed not in done or not (folder / needed / RESULT).exists():
                add(declared[needed])
        made[run.name] = run

    for run in chosen:
        if run.name not in done:
            add(run)
    return list(made.values())


def show(report: Mapping[str, Any]) -> None:
    """The verdicts, as a table on standard error."""
    table = Table("verdict", "claim", "value", "published")
    colours = {"pass": "green", "fail": "red"}
    for claim in report["claims"]:
        low, high = claim["interval"] or (None, None)
        value = "" if claim["interval"] is None else f"{number(claim['value'])} [{number(low)}, {number(high)}]"
        published = "" if claim["paper_value"] is None else number(claim["paper_value"])
        table.add_row(claim["verdict"], claim["text"], value, published, style=colours.get(claim["verdict"]))
    console = Console(file=sys.stderr)
    if report["claims"]:
        console.print(table)
    for line in [report["revisions"], *(f"missing: {name}: {reason}" for name, reason in report["missing"].items())]:
        if line:
            console.print(line, markup=False, style="yellow", soft_wrap=True)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}")
    paper = load_paper(PAPER.value)
    outdir = Path(OUTDIR.value or f"runs/reproduce/{PAPER.value}/{PRESET.value}").expanduser().absolute()
    launcher: Launcher | None = None
    if LAUNCHER.value == "slurm":
        launcher = SlurmLauncher(parse_options(SLURM.value), JOBS.value or sys.maxsize)
    elif SLURM.value:
        raise ValueError("--slurm gives the options of --launcher=slurm")
    else:
        launcher = LocalLauncher(JOBS.value or 1)
    report = reproduce(
        paper, (PAPER.value, PRESET.value), outdir, only=ONLY.value, launcher=None if REPORT_ONLY.value else launcher
    )
    show(report)
    line = {field: report[field] for field in ("paper", "preset", "seeds", "missing", "revisions")}
    line["claims"] = [{field: claim[field] for field in PUBLIC} for claim in report["claims"]]
    line["paths"] = {name: str(outdir / name) for name in report["files"]}
    print(json.dumps(line), flush=True)
    sys.exit(1 if report["missing"] else 0)


if __name__ == "__main__":
    flags.mark_flag_as_required("paper")
    run_binary(main)
