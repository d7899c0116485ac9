"""Success by arm beside what V-PTR sees: a frame of the video, one of the robot, the value of a goal over the maze."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.v_ptr.experiment import SUCCESS
from experiments.v_ptr.world import CELLS, GOAL, MAZE
from rl_jax.envs.velocity_maze import SPRITES, picture
from rl_jax.reports.curves import COLOURS, save_figure, thin_frame
from rl_jax.reports.measures import as_measure
from rl_jax.reports.scores import Scores
from rl_jax.reports.tables import found

PIXELS = 16
THINGS = jnp.array([[2.6, 5.2, 0.8, 0.2, 0.5], [5.4, 2.5, 0.3, 0.7, 0.2]])


def draw_success(scores: Scores, path: Path) -> None:
    """Bars of the mean success over seeds, a seed a dot, in each task that has it; then frames and values."""
    from matplotlib.figure import Figure

    tasks = [task for task in ("few", "many") if task in scores.tasks]
    figure = Figure(figsize=(10.5, 3.0), dpi=150, layout="constrained")
    *bars, video, robot, value = figure.subplots(1, len(tasks) + 3, width_ratios=[*(1.5,) * len(tasks), 1, 1, 1.15])
    for axes, task in zip(bars, tasks, strict=True):
        methods = [method for method in scores.methods if scores.declared(method, task)]
        for place, method in enumerate(methods):
            values = found(lambda method=method, task=task: scores.values(method, as_measure(SUCCESS), (task,)).values)
            if values is None:
                continue
            colour = COLOURS[list(scores.paper.labels).index(method) % len(COLOURS)]
            axes.barh(place, values.mean(), color=colour, alpha=0.75)
            axes.plot(values.ravel(), np.full(values.size, place), "o", color="black", markersize=3)
        axes.set_yticks(range(len(methods)), [scores.label(method) for method in methods], fontsize=7)
        axes.invert_yaxis()
        axes.set_title(f"success, {task} demonstrations", fontsize=8)
        axes.set_xlim(0.0, 1.0)
        axes.tick_params(labelsize=7)
        thin_frame(axes)
    place = jnp.array([4.6, 3.4])
    for axes, sprite, title in ((video, "square", "the video"), (robot, "own", "the robot")):
        axes.imshow(np.asarray(jax.jit(lambda: picture(MAZE, place, PIXELS, SPRITES[sprite], THINGS))()))
        axes.set_title(title, fontsize=8)
    run = found(lambda: scores.evaluations("icvf", "video"))
    values = np.full(MAZE.shape, np.nan)
    if run is not None:
        values[tuple(CELLS.T)] = run.outcomes["value"][-1].mean(0)
    shown = value.imshow(values, cmap="viridis")
    value.plot(GOAL[1], GOAL[0], "*", color="#D55E00", markersize=9)
    value.set_title("V(s, g, g) of the robot", fontsize=8)
    figure.colorbar(shown, ax=value, shrink=0.7).ax.tick_params(labelsize=6)
    for axes in (video, robot, value):
        axes.set_axis_off()
    save_figure(figure, path)
