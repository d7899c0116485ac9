"""The report of a paper's preset, made from its saved scores alone: table.md, table.csv, figures, report.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_jax.core.files import write_atomically
from rl_jax.reports import figures
from rl_jax.reports.declaration import Paper, Preset
from rl_jax.reports.judging import judge
from rl_jax.reports.measures import MissingScores
from rl_jax.reports.records import Record
from rl_jax.reports.scores import Scores
from rl_jax.reports.tables import comma_separated, markdown


def write_report(
    paper: Paper, preset: Preset, saved: Mapping[str, Record], outdir: Path, head: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the report's files into `outdir`.

    Args:
      saved: by a run's name, the finished runs of this preset.
      head: `paper` and `preset`, their names, and `missing`, the reason why each absent run is absent.

    Returns:
      The content of report.json: paper, preset, seeds, claims, missing, revisions, and the names of the files written.
    """
    scores = Scores(paper, preset, {name: run.evaluations for name, run in saved.items()})
    claims = [judge(claim, scores) for claim in preset.claims]
    mixed = revisions(saved)
    made = [*([f"**{mixed}**"] if mixed else []), how_made(saved, head)]
    title = f"{paper.title}: preset `{head['preset']}`"
    write_atomically(outdir / "table.md", markdown(scores, title, made, claims, head["missing"]))
    write_atomically(outdir / "table.csv", comma_separated(scores))
    drawn = []
    # {} says that there are none, None nothing.
    declared = next(own for own in (preset.figures, paper.figures, figures.DEFAULT) if own is not None)
    for name, draw in declared.items():
        try:
            draw(scores, outdir / name)
            drawn.append(name)
        except MissingScores:
            # A figure that there are no scores for is removed, not left as it was.
            (outdir / name).unlink(missing_ok=True)
    seeds = sorted({len(run.about["seeds"]) for run in saved.values()})
    report = {
        "paper": head["paper"],
        "preset": head["preset"],
        "seeds": seeds[0] if len(seeds) == 1 else seeds,
        "claims": claims,
        "missing": dict(head["missing"]),
        "revisions": mixed,
        "files": ["table.md", "table.csv", *drawn, "report.json"],
    }
    write_atomically(outdir / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    return report


def revisions(saved: Mapping[str, Record]) -> str:
    """What a reader has to know of the code that made the runs; empty where it is one clean revision."""
    if not saved:
        return ""
    starts = [start for run in saved.values() for start in run.about["git"]]
    known = sorted({start["revision"] for start in starts})
    unclean = sum(any(not start["clean"] for start in run.about["git"]) for run in saved.values())
    unknown = sum(not run.about["git"] for run in saved.values())
    if len(known) == 1 and not unclean and not unknown:
        return ""
    parts = [f"{len(known)} revisions ({', '.join(x[:8] for x in known)})" if len(known) > 1 else
             f"revision {known[0][:8]}" if known else "no recorded revision"]
    parts += [f"{unclean} with uncommitted changes"] if unclean else []
    parts += [f"{unknown} of unknown revision"] if unknown and known else []
    return f"Not made from one clean revision: {_count(len(saved), 'run')} from {', '.join(parts)}."


def how_made(saved: Mapping[str, Record], head: Mapping[str, Any]) -> str:
    """How the numbers came about, in one paragraph."""
    command = f"python -m experiments.reproduce --paper={head['paper']} --preset={head['preset']}"
    if not saved:
        return f"`{command}` has finished no run yet."
    seeds = sorted({len(run.about["seeds"]) for run in saved.values()})
    sizes = sorted({x.shape[2] for run in saved.values() for x in run.evaluations.outcomes.values()})
    code = sorted({start["revision"][:8] for run in saved.values() for start in run.about["git"]})
    devices = sorted({device for run in saved.values() for device in run.about["devices"]})
    return (
        f"Made by `{command}` from scores.npz: {_count(len(saved), 'run')} of {' or '.join(map(str, seeds))} "
        f"{'seed' if seeds == [1] else 'seeds'}"
        + (f", {' or '.join(map(str, sizes))} outcomes a seed and evaluation" if sizes != [1] else "")
        + ". IQM is the mean of the middle half of all seeds and tasks; intervals are 95% bootstrap over the seeds of "
        "each task, which is too narrow with few seeds."
        + (f" Code: {code[0]}." if len(code) == 1 else "")
        + (f" Devices: {', '.join(devices)}." if devices else "")
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
