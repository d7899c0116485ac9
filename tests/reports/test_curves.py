"""Learning curves: reading metrics of one and of many runs, damaged files, and the picture's content."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rl_jax.reports.curves import plot_learning_curve, read_metric
from rl_jax.reports.statistics import bootstrap_interval

SCORE = "eval/normalized_score"


def write_metrics(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_read_metric_of_many_runs_and_of_one(tmp_path):
    records = [
        {"step": 100, "critic/loss": [1.0, 2.0]},
        {"step": 100, SCORE: [10, 20.5]},
        {"step": 200, SCORE: [30.0, 40.0], "critic/loss": [0.5, 0.25]},
    ]
    path = write_metrics(tmp_path / "metrics.jsonl", records)
    steps, values = read_metric(path, SCORE)
    np.testing.assert_array_equal(steps, [100, 200])
    np.testing.assert_array_equal(values, [[10.0, 20.5], [30.0, 40.0]])
    path = write_metrics(path, [{"step": 5, SCORE: 1.5}])
    steps, values = read_metric(path, SCORE)
    np.testing.assert_array_equal(steps, [5])
    np.testing.assert_array_equal(values, [[1.5]])


def test_read_metric_passes_over_a_last_line_in_the_making(tmp_path):
    path = write_metrics(tmp_path / "metrics.jsonl", [{"step": 1, SCORE: 2.0}])
    with open(path, "a") as file:
        file.write('{"step": 2, "eval/nor')
    assert read_metric(path, SCORE)[0].tolist() == [1]


@pytest.mark.parametrize(
    "lines, message",
    [
        ('{"step": 1}\nnonsense\n', "line 2: not a JSON object with a step"),
        ('{"loss": 1}\n', "line 1: not a JSON object with a step"),
        ("[1, 2]\n", "line 1: not a JSON object with a step"),
        ('{"step": 1, "eval/normalized_score": "high"}\n', "is not a number or a list of S numbers in every line"),
        (
            '{"step": 1, "eval/normalized_score": [1, 2]}\n{"step": 2, "eval/normalized_score": 3}\n',
            "is not a number or a list of S numbers in every line",
        ),
        ('{"step": 1, "loss": 3}\n', "has no eval/normalized_score: it has loss, step"),
        ("", "it has no lines"),
    ],
)
def test_damaged_metrics_name_file_and_line(tmp_path, lines, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines)
    with pytest.raises(ValueError, match=message) as info:
        read_metric(path, SCORE)
    assert str(path) in str(info.value)


def test_the_picture_shows_mean_interval_and_behaviour(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    steps = np.arange(0, 50_001, 10_000)
    values = np.random.default_rng(0).normal(50, 5, size=(len(steps), 4))
    curves = {"IQL": (steps, values), "BC": (steps, values[:, :1])}
    plot_learning_curve(curves, tmp_path / "curve.png", levels={"behaviour policy": 44.0}, title="hopper-medium")
    (axes,) = figures[0].axes
    iql, bc, behaviour = axes.lines
    np.testing.assert_allclose(iql.get_xydata(), np.stack([steps, values.mean(1)], 1))
    np.testing.assert_allclose(bc.get_ydata(), values[:, 0])
    assert set(behaviour.get_ydata()) == {44.0} and behaviour.is_dashed()
    (band,) = axes.collections
    low, high = bootstrap_interval(values.T)
    vertices = band.get_paths()[0].vertices
    at_last_step = vertices[vertices[:, 0] == steps[-1], 1]
    np.testing.assert_allclose([at_last_step.min(), at_last_step.max()], [low[-1], high[-1]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "IQL: mean of 4 runs, 95% bootstrap interval",
        "BC: 1 run",
        "behaviour policy",
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("gradient steps", "normalised score")
    assert axes.get_title() == "hopper-medium"


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    (tmp_path / "curve.png").write_bytes(b"old")

    def fail(self, file, **kwargs):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_learning_curve({"": ([0, 1], [[1.0], [2.0]])}, tmp_path / "curve.png")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"curve.png": b"old"}


def test_bad_curves_are_named(tmp_path):
    with pytest.raises(ValueError, match="no curve"):
        plot_learning_curve({}, tmp_path / "curve.png")
    with pytest.raises(ValueError, match=r"curve 'a' needs .* got \(3,\) and \(2, 1\)"):
        plot_learning_curve({"a": ([0, 1, 2], [[1.0], [2.0]])}, tmp_path / "curve.png")
    with pytest.raises(FileNotFoundError):
        read_metric(tmp_path / "metrics.jsonl", SCORE)


def test_pyplot_stays_out_of_it(tmp_path):
    code = (
        "import sys\n"
        "from rl_jax.reports.curves import plot_learning_curve\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_learning_curve({{'': ([0, 1], [[1.0], [2.0]])}}, {str(tmp_path / 'curve.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'jax' not in sys.modules"
    )
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
