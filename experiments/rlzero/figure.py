"""A film strip of prompts and behaviours: what was imagined, which states were nearest, what was done."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments.rlzero.prompts import MAZE, PROMPTS
from rl_jax.envs.velocity_maze import SPRITES, picture
from rl_jax.reports.curves import save_figure
from rl_jax.reports.measures import Evaluations
from rl_jax.reports.scores import Scores

FRAMES = 3  # of a clip, of what it was projected on, and of a behaviour
PIXELS = 64
BODIES = {"own": "its own body", "square": "another body", "cross": "a third body"}


def film_of(method: str, sprite: str) -> Callable[[Scores, Path], None]:
    """The figure of one method, whose clips have been drawn with `sprite`: its first seed, from the first start."""

    def draw(scores: Scores, path: Path) -> None:
        run = scores.evaluations(method, "prompts")
        strips = zip(track(run, "imagined"), track(run, "shown"), track(run, "path"), strict=True)
        draw_film(list(strips), sprite, path)

    return draw


def track(run: Evaluations, name: str) -> np.ndarray:
    """Positions [P, T, 2] of the first seed at the last evaluation."""
    rows, columns = (run.outcomes[f"{name}_{axis}"][-1, 0] for axis in ("row", "column"))
    return np.stack([rows, columns], -1).reshape(len(PROMPTS), -1, 2)


def draw_film(strips: list[tuple[np.ndarray, np.ndarray, np.ndarray]], sprite: str, path: Path) -> None:
    """One row a prompt, in two columns of rows: FRAMES pictures of each part, and the whole way that was gone.

    Args:
      strips: of each prompt positions [T, 2] that were imagined, projected on, and gone.
    """
    from matplotlib.figure import Figure

    heads = (f"imagined (drawn, {BODIES[sprite]})", "nearest in the data", "done")
    half = -(-len(strips) // 2)
    figure = Figure(figsize=(13.0, 0.88 * half + 0.35), dpi=130)
    ratios = ([1.0] * FRAMES + [0.15]) * 3 + [1.0, 0.3]
    place = {"left": 0.01, "right": 0.995, "bottom": 0.01, "top": 0.9, "wspace": 0.06, "hspace": 0.28}
    panels = figure.subplots(half, 2 * len(ratios), width_ratios=ratios * 2, gridspec_kw=place)
    for axes in panels.ravel():
        axes.axis("off")
    draw = jax.jit(lambda positions, body: picture(MAZE, positions, PIXELS, SPRITES[body]), static_argnums=1)
    for index, (prompt, parts) in enumerate(zip(PROMPTS, strips, strict=True)):
        row, first = index % half, index // half * len(ratios)
        for part, (positions, body) in enumerate(zip(parts, (sprite, "own", "own"), strict=True)):
            times = np.linspace(0, len(positions) - 1, FRAMES).round().astype(int)
            for i, image in enumerate(np.asarray(draw(positions[times], body))):
                axes = panels[row, first + part * (FRAMES + 1) + i]
                axes.imshow(image)
                if i == 1 and row == 0:
                    axes.set_title(heads[part], fontsize=8, pad=16, fontweight="bold")
        panels[row, first].set_title(f"“{prompt.text}”", fontsize=8, loc="left", pad=2)
        draw_way(panels[row, first + len(ratios) - 2], parts[2])
    save_figure(figure, path)


def draw_way(axes, positions: np.ndarray) -> None:
    """Positions [T, 2] as a line in the maze, with a dot at the end."""
    axes.imshow(MAZE, cmap="gray", extent=(0, MAZE.shape[1], MAZE.shape[0], 0), vmin=-0.4, vmax=1.1)
    axes.plot(positions[:, 1], positions[:, 0], color="#0072B2", linewidth=1.0)
    axes.plot(*positions[-1][::-1], "o", color="#D55E00", markersize=3)
