"""A paper, its scores and its run folders, made up: what the tests of reports judge."""

import json

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.core.outcomes import add_outcomes
from rl_jax.reports.declaration import Paper, Preset, Reference, Run
from rl_jax.reports.measures import Evaluations
from rl_jax.reports.records import Record, identity
from rl_jax.reports.scores import Scores

SCORE = Metric("eval/score", "score")
COST = Metric("eval/cost", "cost", "lower")
LABELS = {"a": "A", "b": "B", "c": "C"}
RUNS = tuple(Run(method, task, "m", "c") for task in ("t", "u") for method in ("a", "b"))


def evaluations(finals, steps=(10, 20), num_episodes=2, outcome="score", summary={}, **outcomes):
    """Straight lines from 0 to `finals`, one a seed, in episodes that lie 1 apart; other outcomes [T, S] as given."""
    spread = np.arange(num_episodes) - (num_episodes - 1) / 2
    last = np.asarray(finals, float)[:, None] + spread
    values = np.stack([last * k / len(steps) for k in range(1, len(steps) + 1)])
    others = {name: np.asarray(x, float)[..., None] for name, x in outcomes.items()}
    return Evaluations(np.array(steps), np.array(steps) * 2.0, {outcome: values} | others, summary)


def curve(values, outcome="score", steps=None, **outcomes):
    """A run with the curve [T, S] given."""
    values = np.asarray(values, float)
    steps = np.arange(1, len(values) + 1) * 10 if steps is None else np.asarray(steps)
    others = {name: np.broadcast_to(np.asarray(x, float), values.shape)[..., None] for name, x in outcomes.items()}
    return Evaluations(steps, steps * 2.0, {outcome: values[..., None]} | others)


def paper(*, measure=SCORE, claims=(), runs=RUNS, reference=None, **fields):
    preset = Preset(runs, tuple(claims), **{name: fields.pop(name) for name in ("beside", "figures") if name in fields})
    return Paper("Title", LABELS, "a", measure, {"p": lambda: preset}, reference=reference, **fields)


def scores(saved, **fields):
    """Scores of runs by name, such as "a-t"; the declared runs are those."""
    runs = tuple(Run(*name.split("-"), "m", "c") for name in saved)
    made = paper(runs=runs, **fields)
    return Scores(made, made.presets["p"](), saved)


def records(saved, runs=RUNS, git=({"revision": "a" * 40, "clean": True},)):
    """Saved runs by name."""
    about = {run.name: identity(run) for run in runs}
    return {
        name: Record(
            about[name] | {"seeds": list(range(next(iter(x.outcomes.values())).shape[1])), "git": list(git),
                           "devices": ["cpu"], "inputs": {}, "summary": dict(x.summary), "command": [], "step": 20},
            x,
        )
        for name, x in saved.items()
    }


def write_folder(workdir, run, seed=7):
    """The folder of a finished run, as the core leaves it."""
    workdir.mkdir(parents=True, exist_ok=True)
    for place, step in enumerate(run.steps):
        outcomes = {name: values[place] for name, values in run.outcomes.items()}
        add_outcomes(workdir / "outcomes.npz", int(step), float(run.train_seconds[place]), outcomes)
    (workdir / "config.json").write_text(json.dumps({"seed": seed}))
    start = {"inputs": {"checksum": "abc"}, "git": {"revision": "r", "clean": True}, "devices": {"kind": "cpu"}}
    late = start | {"step": int(run.steps[-1]), "git": {"revision": "later", "clean": True}}  # it trained nothing
    (workdir / "provenance.json").write_text(json.dumps({"starts": [start, start, late]}))
    (workdir / "result.json").write_text(json.dumps({"step": int(run.steps[-1])} | dict(run.summary)))
    return workdir


BEHAVIOUR = Reference("behaviour", "behaviour policy")
