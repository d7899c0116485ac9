"""Figures of many methods: what is drawn where, that methods can be told apart, and what is refused."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from rl_jax.reports.aggregate import Estimate
from rl_jax.reports.figures import across_tasks, over_evaluations
from rl_jax.reports.measures import MissingScores
from rl_jax.reports.plots import plot_curves, plot_improvement, plot_profiles, plot_scatter
from tests.reports.made_up import COST, SCORE
from tests.reports.made_up import curve as run
from tests.reports.made_up import scores

LABELS = [f"method {index}" for index in range(12)]


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    return figures


def curve(steps, height):
    return np.array(steps), height + np.arange(3.0) + np.arange(len(steps))[:, None]


def legend(figure):
    (box,) = figure.legends
    return [text.get_text() for text in box.get_texts()]


def test_curves_have_a_panel_a_task_and_keep_their_own_steps(drawn, tmp_path):
    tasks = {
        "hopper": {"A": curve([100, 200], 10.0), "B": curve([30, 60], 20.0)},
        "walker2d": {"B": curve([100, 200], 5.0)},
    }
    plot_curves(
        tasks, tmp_path / "curves.png", labels=["A", "B"], references={"hopper": 15.0}, reference_label="behaviour"
    )
    hopper, walker = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [axes.get_title() for axes in (hopper, walker)] == ["hopper", "walker2d"]
    a, b, reference = hopper.lines
    np.testing.assert_array_equal(a.get_xydata(), [[100, 11.0], [200, 12.0]])
    np.testing.assert_array_equal(b.get_xydata(), [[30, 21.0], [60, 22.0]])
    assert set(reference.get_ydata()) == {15.0}
    assert len(hopper.collections) == 2 and len(walker.lines) == 1
    assert walker.lines[0].get_color() == b.get_color() != a.get_color()
    assert legend(drawn[0]) == ["A", "B", "behaviour"]


def test_twelve_methods_can_be_told_apart(drawn, tmp_path):
    plot_curves({"task": {label: curve([1, 2], 0.0) for label in LABELS}}, tmp_path / "curves.png", labels=LABELS)
    lines = drawn[0].axes[0].lines
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 12


def test_profiles_and_improvements_show_value_and_interval(drawn, tmp_path):
    profile = Estimate(np.array([1.0, 0.5]), np.array([0.9, 0.2]), np.array([1.0, 0.7]))
    plot_profiles({"score": ({"method 3": profile}, [10.0, 20.0], "higher")}, tmp_path / "profile.png", labels=LABELS)
    (axes,) = drawn[0].axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[10.0, 1.0], [20.0, 0.5]])
    band = axes.collections[0].get_paths()[0].vertices
    assert {0.2, 0.7} <= set(band[band[:, 0] == 20.0, 1])
    assert legend(drawn[0]) == ["method 3"]

    estimates = {"method 1": Estimate(0.8, 0.6, 0.9), "method 3": Estimate(0.4, 0.1, 0.55)}
    plot_improvement({"score": estimates}, tmp_path / "improvement.png", labels=LABELS, baseline="BC")
    (axes,) = drawn[1].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["method 1", "method 3"]
    interval, point = axes.lines[2:4]
    assert interval.get_xdata().tolist() == [0.1, 0.55] and point.get_xdata() == [0.4]
    assert set(axes.lines[4].get_xdata()) == {0.5} and "BC" in drawn[1]._supxlabel.get_text()
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first method stands at the top"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["improvement.png", "profile.png"]


def test_nothing_to_draw_is_an_error(tmp_path):
    for call in (
        lambda path: plot_curves({"task": {}}, path, labels=[]),
        lambda path: plot_profiles({}, path, labels=[]),
        lambda path: plot_improvement({}, path, labels=[], baseline="BC"),
    ):
        with pytest.raises(ValueError, match="there is no"):
            call(tmp_path / "figure.png")
    with pytest.raises(ValueError, match=r"curve 'A' on task needs .* got \(3,\) and \(2, 1\)"):
        plot_curves({"task": {"A": ([1, 2, 3], [[1.0], [2.0]])}}, tmp_path / "figure.png", labels=["A"])
    assert list(tmp_path.iterdir()) == []


def test_a_scatter_is_drawn_of_known_points_and_bounds_and_not_of_nothing(tmp_path):
    panels = {"PPO": ([10.0, 20.0], [100.0, 1000.0], [True, False])}
    plot_scatter(panels, tmp_path / "scatter.png", names=["a", "b"], x_label="x", y_label="y")
    assert (tmp_path / "scatter.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="there is no point to draw"):
        plot_scatter({}, tmp_path / "nothing.png", names=[], x_label="x", y_label="y")
    assert not (tmp_path / "nothing.png").exists()


def test_a_line_a_method_across_tasks_and_a_point_an_evaluation(drawn, tmp_path):
    found = scores({
        "a-t": run([[1.0, 3.0], [2.0, 4.0]], cost=[[8.0, 7.0], [6.0, 5.0]]),
        "a-u": run([[5.0, 7.0]], cost=[[1.0, 2.0]]),
        "b-u": run([[9.0, 9.0]], cost=[[3.0, 3.0]]),
    })
    across_tasks(x_label="size")(found, tmp_path / "tasks.png")
    a, b = drawn[0].axes[0].lines
    np.testing.assert_array_equal(a.get_xydata(), [[0, 3.0], [1, 6.0]])
    np.testing.assert_array_equal(b.get_xydata(), [[1, 9.0]])
    over_evaluations(COST, SCORE, ("a",))(found, tmp_path / "points.png")
    (points,) = drawn[1].axes[0].collections
    np.testing.assert_array_equal(points.get_offsets(), [[8, 1], [7, 3], [6, 2], [5, 4], [1, 5], [2, 7]])
    with pytest.raises(MissingScores):
        over_evaluations(COST, SCORE, ("c",))(found, tmp_path / "none.png")
