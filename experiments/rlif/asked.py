"""Scores at equal numbers of what was asked of the expert: the tables of the README, from results/quick alone.

    python -m experiments.rlif.asked

An action is one that the expert took in the learner's place or, of DAgger, a label.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.rlif.claims import LABELS
from rl_jax.control.tasks import SCORE
from rl_jax.reports.measures import Evaluations, as_curve, outcome
from rl_jax.reports.records import Record, load_runs
from rl_jax.reports.tables import table

ASKED = {"actions": ("expert_steps", "labels"), "interventions": ("interventions",)}
NUMBERS = {"actions": (500, 1000, 1500, 2000), "interventions": (100, 200, 300, 400)}


def asked_of(run: Evaluations, kind: str) -> np.ndarray:
    """How often the expert was asked until each evaluation, [T, S]."""
    return sum(outcome(run, name) for name in ASKED[kind])


def at_equal(run: Evaluations, kind: str, numbers: Sequence[int]) -> np.ndarray:
    """The scores [N, S] when the expert had been asked so often, linear between evaluations; NaN where it never was.

    Of the evaluations before it is asked at all the last one counts: a clone is trained by then.
    """
    found = []
    for asked, scores in zip(asked_of(run, kind).T, as_curve(SCORE).of(run).T, strict=True):
        start = np.flatnonzero(asked == 0)[-1]
        found.append(np.interp(numbers, asked[start:], scores[start:], right=np.nan))
    return np.stack(found, 1)


def equal_table(runs: Sequence[Record], kind: str) -> str:
    """Markdown, a row a run that asks: means over seeds, with the lowest and the highest seed."""
    rows = []
    for run in runs:
        scored = run.evaluations
        if ASKED[kind][0] in scored.outcomes and asked_of(scored, kind).any():
            cells = [
                f"{seeds.mean():.0f} ({seeds.min():.0f} to {seeds.max():.0f})" if np.isfinite(seeds).all() else ""
                for seeds in at_equal(scored, kind, NUMBERS[kind])
            ]
            whole = f"{asked_of(scored, kind)[-1].mean():,.0f}"
            rows.append([run.about["task"], LABELS[run.about["method"]], *cells, whole])
    tasks = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: tasks.index(row[0]))
    return table(["task", "method", *(f"{number:,} {kind}" for number in NUMBERS[kind]), "in all"], rows)


def tables() -> list[str]:
    """Those of results/quick."""
    runs = list(load_runs(Path(__file__).parent / "results" / "quick").values())
    return [equal_table(runs, kind) for kind in ASKED]


if __name__ == "__main__":
    print("\n\n".join(tables()))
