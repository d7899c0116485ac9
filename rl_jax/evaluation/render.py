"""Pictures of a roll-out in a MuJoCo task, drawn by matplotlib: no display, no OpenGL, the same on every machine.

The bodies' capsules and spheres are projected onto the x-z plane, in which Hopper, HalfCheetah and Walker2d move.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_jax.core.extras import require
from rl_jax.core.files import atomically, write_atomically
from rl_jax.envs.gym_pool import find_spec
from rl_jax.envs.worker import make_env

COLOUR, GROUND = "#0072B2", "0.6"


class Rollout(NamedTuple):
    """One episode of T steps of a body with G geoms, seen from the side; metres and seconds."""

    ends: np.ndarray  # [T, G, 2, 2]: both ends of each geom's axis, (x, z)
    radii: np.ndarray  # [G]
    rewards: np.ndarray  # [T]
    step_seconds: float  # simulated time of a step


def record_rollout(
    env_id: str, act: Callable[[np.ndarray], np.ndarray], *, seed: int = 0, max_steps: int = 1000
) -> Rollout:
    """Plays one episode, to its end or for `max_steps`, and keeps where the body's geoms were before each step.

    Args:
      env_id: a Gymnasium id of a MuJoCo task, such as `Hopper-v4`.
      act: observation [O] -> action [A] within the bounds of the action space.
      seed: of the reset.

    Raises:
      ValueError: there is no such task, MuJoCo does not simulate it, or its body has neither capsules nor spheres.
      MissingExtraError: Gymnasium or MuJoCo is not installed.
    """
    env = make_env(find_spec(env_id), {})
    try:
        if not hasattr(env.unwrapped, "model"):
            raise ValueError(f"{env_id} is not simulated by MuJoCo: there is no body to draw")
        geoms = _geoms(env.unwrapped.model)
        if not len(geoms):
            raise ValueError(f"the body of {env_id} has neither capsules nor spheres: there is nothing to draw")
        observation, _ = env.reset(seed=seed)
        ends, rewards = [], []
        for _ in range(max_steps):
            ends.append(_ends(env.unwrapped.model, env.unwrapped.data, geoms))
            observation, reward, terminated, truncated, _ = env.step(np.asarray(act(observation)))
            rewards.append(float(reward))
            if terminated or truncated:
                break
        radii = env.unwrapped.model.geom_size[geoms, 0].copy()
        return Rollout(np.array(ends), radii, np.array(rewards), float(env.unwrapped.dt))
    finally:
        env.close()


def draw_film_strips(rollouts: Mapping[str, Rollout], path: str | os.PathLike, *, frames: int = 8) -> None:
    """Draws each roll-out under its title: `frames` poses, evenly spaced in time, with time and place beneath."""
    figure = _figure(1.1 * frames + 0.4, 1.7 * len(rollouts))
    for axes, (title, rollout) in zip(figure.subplots(len(rollouts), squeeze=False)[:, 0], rollouts.items()):
        steps = np.linspace(0, len(rollout.ends) - 1, frames).round().astype(int)
        width = 1.1 * max(np.ptp(rollout.ends[steps][..., 0], axis=(1, 2)).max(), 1.0)
        for place, step in enumerate(steps):
            ends = rollout.ends[step].copy()
            middle = ends[..., 0].mean()
            ends[..., 0] += place * width - middle
            _draw_pose(axes, ends, rollout.radii)
            when = f"{step * rollout.step_seconds:.1f} s, {middle:.0f} m"
            axes.text(place * width, -0.16, when, ha="center", va="top", fontsize=7)
        _dress(axes, (-0.6 * width, (frames - 0.4) * width), rollout)
        axes.set_title(title, fontsize="medium")
    with atomically(path) as file:
        figure.savefig(file, format="png")


def write_animation(rollout: Rollout, path: str | os.PathLike, *, frames_per_second: int = 20) -> None:
    """Writes the roll-out as a GIF in the task's own time; the camera follows the body."""
    from matplotlib import animation

    figure = _figure(3.2, 2.4)
    axes = figure.add_subplot()
    stride = max(round(1.0 / (frames_per_second * rollout.step_seconds)), 1)
    steps = range(0, len(rollout.ends), stride)

    def draw(step: int) -> list:
        axes.clear()
        ends = rollout.ends[step]
        _draw_pose(axes, ends, rollout.radii)
        middle = ends[..., 0].mean()
        marks = np.arange(np.floor(middle - 2), middle + 2.5)
        axes.plot(marks, np.zeros_like(marks), "|", color=GROUND, markersize=6)  # one a metre: they show the speed
        _dress(axes, (middle - 1.5, middle + 1.5), rollout)
        axes.set_title(f"{step * rollout.step_seconds:.1f} s, {middle:.1f} m", fontsize="small")
        return []

    film = animation.FuncAnimation(figure, draw, frames=steps)
    with tempfile.TemporaryDirectory() as folder:  # matplotlib writes films to a path alone
        film.save(Path(folder) / "film.gif", writer=animation.PillowWriter(fps=frames_per_second))
        write_atomically(path, (Path(folder) / "film.gif").read_bytes())


def body_pictures(
    env_id: str, observations: np.ndarray, size: int, colour: tuple[float, float, float], thickness: float = 1.0
) -> np.ndarray:
    """What a body looks like from the side where observations are made: uint8 [N, size, size, 3], the ground in grey.

    Args:
      env_id: a MuJoCo task whose observations begin with the positions without the first, which is the place along the
        ground: Hopper, HalfCheetah, Walker2d.
      observations: [N, O].
      thickness: times the radii of the body's own geoms.

    Raises:
      ValueError: there is no such task, or observations are shorter than the positions.
    """
    mujoco = require("mujoco", "mujoco")
    env = make_env(find_spec(env_id), {})
    try:
        model, data = env.unwrapped.model, env.unwrapped.data
        geoms, count = _geoms(model), model.nq - 1
        if observations.shape[1] < count:
            raise ValueError(f"{env_id} has {count} positions beside its place, and observations {observations.shape}")
        ends = np.empty((len(observations), len(geoms), 2, 2))
        for i, positions in enumerate(observations[:, :count]):
            data.qpos[:] = 0.0, *positions
            mujoco.mj_kinematics(model, data)
            ends[i] = _ends(model, data, geoms)
        radii = model.geom_size[geoms, 0] * thickness
    finally:
        env.close()
    side = (np.arange(size) + 0.5) / size * 1.9 - 0.95  # metres; a body of 1.6 m fits
    place = np.stack(np.meshgrid(side, -side + 0.75), -1)  # (x, z) of each pixel
    ground = np.where(place[..., 1:] < 0.0, 0.6, 0.95) * np.ones(3)
    pictures = np.empty((len(ends), size, size, 3), np.uint8)
    for i, segments in enumerate(ends):
        start, along = segments[:, None, None, 0], (segments[:, 1] - segments[:, 0])[:, None, None]
        share = ((place - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
        distance = np.linalg.norm(place - start - np.clip(share, 0.0, 1.0)[..., None] * along, axis=-1)
        outside = (distance - radii[:, None, None]).min(0)
        cover = np.clip(0.5 - outside * size / 1.9, 0.0, 1.0)[..., None]  # softened over a pixel
        pictures[i] = np.round(255.0 * ((1.0 - cover) * ground + cover * np.array(colour)))
    return pictures


def _geoms(model) -> np.ndarray:
    mujoco = require("mujoco", "mujoco")
    round_ones = (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE)
    return np.flatnonzero(np.isin(model.geom_type, round_ones))


def _ends(model, data, geoms: np.ndarray) -> np.ndarray:
    """[G, 2, 2]: a capsule's axis is the z direction of its frame; a sphere's has no length."""
    mujoco = require("mujoco", "mujoco")
    half = np.where(model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_CAPSULE, model.geom_size[geoms, 1], 0.0)
    axis = data.geom_xmat[geoms].reshape(-1, 3, 3)[:, :, 2] * half[:, None]
    centre = data.geom_xpos[geoms]
    return np.stack([centre - axis, centre + axis], axis=1)[..., [0, 2]]


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_pose(axes, ends: np.ndarray, radii: np.ndarray) -> None:
    from matplotlib.patches import Circle, Polygon

    for (start, stop), radius in zip(ends, radii):
        length = np.linalg.norm(stop - start)
        if length > 0:
            side = radius * np.array([start[1] - stop[1], stop[0] - start[0]]) / length
            axes.add_patch(Polygon([start + side, stop + side, stop - side, start - side], color=COLOUR, linewidth=0))
        for end in (start, stop):
            axes.add_patch(Circle(end, radius, color=COLOUR, linewidth=0))


def _dress(axes, horizontal: tuple[float, float], rollout: Rollout) -> None:
    axes.axhline(0.0, color=GROUND, linewidth=1.0, zorder=0)
    axes.set_xlim(*horizontal)
    axes.set_ylim(-0.35, max(float(rollout.ends[..., 1].max()) + 0.15, 1.0))
    axes.set_aspect("equal")
    axes.axis("off")
