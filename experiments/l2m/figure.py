"""The picture of L2M: what a method has learned against what it has kept."""

from pathlib import Path

from rl_jax.control.continual import NEW, OLD
from rl_jax.core.experiment import Metric
from rl_jax.reports.curves import COLOURS, save_figure, thin_frame
from rl_jax.reports.measures import MissingScores, as_curve
from rl_jax.reports.scores import Scores
from rl_jax.reports.tables import found

TRAINED = Metric("eval/trained", "numbers trained", "lower", "%")
PURITY = Metric("eval/purity", "I(task; selected) / H(task)")
KEPT = Metric("eval/kept", "share of old windows that nothing modulates")


def draw_trade_off(scores: Scores, path: Path) -> None:
    """One point a seed, and a larger one for the mean: success on the new tasks against that on the old ones.

    Raises:
      MissingScores: there are no runs.
    """
    from matplotlib.figure import Figure

    (task,) = scores.tasks
    runs = {method: run for method in scores.methods
            if (run := found(lambda method=method: scores.evaluations(method, task))) is not None}
    if not runs:
        raise MissingScores("runs")
    figure = Figure(figsize=(6.0, 3.8), dpi=200, layout="constrained")
    axes = figure.subplots()
    for i, (method, run) in enumerate(runs.items()):
        old, new = as_curve(OLD).of(run)[-1], as_curve(NEW).of(run)[-1]
        colour, marker = COLOURS[i % len(COLOURS)], "os^Dv"[i // len(COLOURS) % 5]
        axes.scatter(old, new, s=12, color=colour, alpha=0.5, marker=marker, linewidths=0)
        axes.scatter(old.mean(), new.mean(), s=60, color=colour, marker=marker, label=scores.label(method))
    if "pretrained" in runs:
        axes.axvline(as_curve(OLD).of(runs["pretrained"])[-1].mean(), color="0.6", linewidth=0.8, zorder=0)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("success on pre-training tasks, after the sequence", fontsize=8)
    axes.set_ylabel("success on new tasks", fontsize=8)
    axes.tick_params(labelsize=8)
    thin_frame(axes)
    figure.legend(fontsize=8, frameon=False, loc="outside right center")
    save_figure(figure, path)
