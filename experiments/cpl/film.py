"""Draws what policies of finished runs do in Meta-World, a strip of pictures a run, from the same start.

    MUJOCO_GL=egl python -m experiments.cpl.film --runs=runs/cpl,runs/bc --path=film.png

The runs are of experiments.cpl.train in tasks of Meta-World; the first seed of each acts at its mode until it succeeds
or the time is up. MUJOCO_GL names what draws: egl or osmesa where there is no display.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from experiments.cpl.claims import LABELS
from rl_jax.control.agents import make_agent
from rl_jax.control.offline import on_raw_observations
from rl_jax.control.preferences import preference_experiment
from rl_jax.core.checkpoint import load_state
from rl_jax.core.files import atomically, read_object
from rl_jax.core.runtime import run_binary
from rl_jax.envs.meta_world import TIME_LIMIT, MetaWorld
from rl_jax.envs.meta_world_data import PREFIX

_RUNS = flags.DEFINE_list("runs", [], "The --workdir of each finished run.")
_PATH = flags.DEFINE_string("path", "film.png", "Where the picture goes.")
_EPISODE = flags.DEFINE_integer("episode", 0, "Which start: the seed of the reset.")
SIZE, FRAMES = 160, 7  # pixels of a side, pictures of a strip

ActIn = Callable[[np.ndarray], np.ndarray]  # observation [O] -> action [A]


def policy_of(run: Path) -> tuple[str, ActIn]:
    """(the task, the mode of the first seed's policy in the newest checkpoint) of a run.

    Raises:
      FileNotFoundError or ValueError: it is no run of CPL's in Meta-World from states.
    """
    config = ConfigDict(read_object(run / "config.json"))
    name = config.get("dataset", {}).get("name", "")
    if not name.startswith(PREFIX) or config.dataset.picture:
        raise ValueError(f"{run}: no run of experiments.cpl.train in a task of Meta-World from states")
    state = load_state(run, preference_experiment(config).program(config), config.num_seeds)
    first = jax.tree.map(lambda x: x[0], (state.params, state.extra))
    act = jax.jit(on_raw_observations(make_agent(config, 4)))
    return name.removeprefix(PREFIX), lambda seen: act(first, seen[None].astype(np.float32), jax.random.key(0), 0.0)[0]


def film(task: str, act: ActIn, episode: int) -> tuple[list[np.ndarray], bool]:
    """(what is seen before each step of an episode and at its end, whether it succeeds)."""
    env = MetaWorld(task, until_success=True)
    try:
        observation, _ = env.reset(seed=episode)
        states, success = [env.save_state()], False
        while len(states) <= TIME_LIMIT and not success:
            observation, _, success, _, _ = env.step(np.asarray(act(observation)))
            states.append(env.save_state())
        pictures = []
        for step in np.linspace(0, len(states) - 1, FRAMES).round().astype(int):
            env.restore_state(states[step])
            pictures.append((step, env.draw(SIZE)))
        return pictures, success
    finally:
        env.close()


def draw(strips: Mapping[str, tuple[list, bool]], path: Path) -> None:
    """One row a run, with the step under each picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.25 * FRAMES, 1.55 * len(strips)), dpi=160, layout="constrained")
    for row, (name, (pictures, success)) in zip(figure.subplots(len(strips), FRAMES, squeeze=False), strips.items()):
        for axes, (step, picture) in zip(row, pictures, strict=True):
            axes.imshow(picture)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"step {step}", fontsize=7, labelpad=2)
        row[0].set_ylabel(f"{name}\n{'succeeds' if success else 'fails'}", fontsize=8)
    with atomically(path) as file:
        figure.savefig(file, format="png")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}: settings are flags, such as --runs=DIR,DIR")
    if not _RUNS.value:
        raise ValueError("--runs: give the --workdir of one finished run or more of experiments.cpl.train")
    strips = {}
    for run in map(Path, _RUNS.value):
        task, act = policy_of(run)
        strips[LABELS.get(run.name.partition("-")[0], run.name)] = film(task, act, _EPISODE.value)
    draw(strips, Path(_PATH.value))
    print(f"{_PATH.value}: {', '.join(strips)}")


if __name__ == "__main__":
    run_binary(main)
