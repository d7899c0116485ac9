"""Regenerates a paper's results: runs, scores, tables, figures, and a verdict on each of its claims.

    python -m experiments.reproduce --paper=offline_rl --preset=quick
    python -m experiments.reproduce --paper=offline_rl --preset=quick --jobs=2 --only='iql|bc-'
    python -m experiments.reproduce --paper=offline_rl --preset=quick --report_only

Give the same command again and it goes on where it was: a finished run is not started again, and one that was
interrupted goes on from its checkpoint. SIGTERM and Ctrl-C let every run save and end with exit code 75. A run that
fails is reported and the others go on; exit code 1 says that runs are missing in the end.

Everything lies in --outdir (runs/reproduce/<paper>/<preset>): runs/ with each run's folder and log, scores.npz and
scores.json, and what is made from these alone: table.md, table.csv, curves.png, profile.png, improvement.png and
report.json. The last line on standard output is one JSON object: paper, preset, seeds, claims (name, verdict pass, fail
or missing, value, interval, paper_value), missing runs with the reason, and the paths written.

What a paper runs and claims is declared in experiments/<paper>/reproduce.py (types: experiments/declaration.py).
"""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from absl import flags, logging

from experiments.declaration import Paper, Preset, Run, Scores
from experiments.processes import command, run_all
from experiments.report import judge, write_report
from experiments.score_file import load_runs, make_record, save_run
from rl_jax.core.config import unknown
from rl_jax.core.runtime import run_binary

PAPER = flags.DEFINE_string("paper", None, "A folder of experiments/ that has a reproduce.py.")
PRESET = flags.DEFINE_string("preset", "quick", "What to run: a preset of the paper's reproduce.py.")
OUTDIR = flags.DEFINE_string("outdir", "", "Where all of it lies; runs/reproduce/<paper>/<preset> if not given.")
ONLY = flags.DEFINE_string("only", "", "Run those alone whose name (<method>-<task>) this regular expression finds.")
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at once, each on its share of the cores.", lower_bound=1)
REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Run nothing: make the report from the scores that are saved.")

PUBLIC = ("name", "verdict", "value", "interval", "paper_value")  # of a claim, on the last line


def load_paper(name: str) -> Paper:
    """The declaration in experiments/<name>/reproduce.py; ValueError lists the near names where there is none."""
    known = [path.parent.name for path in Path(__file__).parent.glob("*/reproduce.py")]
    if name not in known:
        raise ValueError(unknown("paper", name, known))
    return importlib.import_module(f"experiments.{name}.reproduce").PAPER


def load_preset(paper: Paper, name: str) -> Preset:
    """The preset of that name, checked: what is wrong in a declaration comes up before hours of runs, not after.

    Raises:
      ValueError: there is no such preset, two of its runs have one name, a method has no label, or a claim speaks of a
        run that is not declared.
    """
    if name not in paper.presets:
        raise ValueError(unknown("preset", name, paper.presets))
    preset = paper.presets[name]()
    names = [run.name for run in preset.runs]
    twice = sorted({run for run in names if names.count(run) > 1})
    if twice:
        raise ValueError(f"preset {name!r} declares runs of one name: {', '.join(twice)}")
    unnamed = sorted({run.method for run in preset.runs} - set(paper.labels))
    if unnamed:
        raise ValueError(f"preset {name!r} runs methods without a label: {', '.join(unnamed)}")
    for claim in preset.claims:
        try:
            judge(claim, Scores(preset.runs, {}))
        except KeyError as error:
            raise ValueError(f"claim {claim.name!r} speaks of {error}, which preset {name!r} does not run") from error
    return preset


def reproduce(
    paper: Paper, names: tuple[str, str], outdir: Path, *, only: str = "", jobs: int = 1, report_only: bool = False
) -> dict[str, Any]:
    """Runs what is not finished yet and writes the report; returns the content of report.json.

    Args:
      names: of the paper and of its preset.
      only, jobs, report_only: as the flags.

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
    declared = {run.name: run for run in preset.runs}

    def finished(run: Run, workdir: Path, summary: dict[str, Any]) -> None:
        saved = make_record(run, command(run, workdir), workdir, summary, paper.read(workdir, summary))
        save_run(outdir, saved)
        logging.info("%s: score %.1f", run.name, saved.evaluations.scores[-1].mean())

    errors = {}
    if not report_only:
        done = {name for name, saved in load_runs(outdir).items() if name in declared and saved.is_of(declared[name])}
        waiting = [run for run in chosen if run.name not in done]
        logging.info("%d of %d runs are finished, %d to do", len(done), len(declared), len(waiting))
        errors = run_all(waiting, outdir / "runs", jobs, finished)
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


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}")
    paper = load_paper(PAPER.value)
    outdir = Path(OUTDIR.value or f"runs/reproduce/{PAPER.value}/{PRESET.value}").expanduser().absolute()
    report = reproduce(
        paper, (PAPER.value, PRESET.value), outdir,
        only=ONLY.value, jobs=JOBS.value, report_only=REPORT_ONLY.value,
    )
    for claim in report["claims"]:
        logging.info("%s: %s", claim["verdict"], claim["text"])
    for name, reason in report["missing"].items():
        logging.warning("missing: %s: %s", name, reason)
    claims = [{field: claim[field] for field in PUBLIC} for claim in report["claims"]]
    print(json.dumps(report | {"claims": claims}), flush=True)
    sys.exit(1 if report["missing"] else 0)


if __name__ == "__main__":
    flags.mark_flag_as_required("paper")
    run_binary(main)
