"""Draws the policy of a finished run beside the policy behind its data, as film.png in the run's folder.

    python -m experiments.offline_rl.film --run=runs/offline_rl_quick

The run is one of experiments.offline_rl.train in a task that moves in the x-z plane: Hopper, HalfCheetah, Walker2d. The
first seed acts at its mode. A behaviour policy is drawn where the data are a built-in set, its last one with its noise.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from rl_jax.control.agents import make_agent
from rl_jax.control.offline import load, offline_experiment, on_raw_observations
from rl_jax.control.tasks import headline_of, references_of, task_of
from rl_jax.core.checkpoint import load_state
from rl_jax.core.files import read_object
from rl_jax.core.runtime import run_binary
from rl_jax.data.load import Dataset
from rl_jax.data.locomotion.policies import load_policy
from rl_jax.data.locomotion.sets import FAMILY, SETS
from rl_jax.data.scores import score_between
from rl_jax.evaluation.render import Rollout, draw_film_strips, record_rollout

_RUN = flags.DEFINE_string("run", None, "The --workdir of a finished run.")
_EPISODE = flags.DEFINE_integer("episode", 0, "Which start: the seed of the reset.")

ActIn = Callable[[np.ndarray], np.ndarray]  # observation [O] -> action [A]


def learnt_policy(run: Path, config: ConfigDict, dataset: Dataset) -> ActIn:
    """The mode of the first seed's policy in a run's newest checkpoint."""
    state = load_state(run, offline_experiment(config, dataset).program(config), config.num_seeds)
    first = jax.tree.map(lambda x: x[0], (state.params, state.extra))
    policy = jax.jit(on_raw_observations(make_agent(config, dataset.episodes.actions.shape[1])))
    return lambda observation: policy(first, observation[None].astype(np.float32), jax.random.key(0), 0.0)[0]


def behaviour_policy(dataset: Dataset, seed: int) -> dict[str, ActIn]:
    """The last policy behind a built-in set, with its noise, by its name; empty for another set."""
    family, _, set_name = dataset.name.partition("/")
    if family != FAMILY:
        return {}
    name = SETS[set_name].policies[-1]
    policy, generator = load_policy(name), np.random.default_rng(seed)
    noise = lambda: generator.standard_normal((1, dataset.episodes.actions.shape[1]))  # noqa: E731
    return {f"behaviour policy, {name}": lambda observation: policy.act(observation[None], noise())[0]}


def rollouts_of(run: Path, seed: int = 0) -> dict[str, Rollout]:
    """An episode of the behaviour policy, if it is known, and one of a finished run's policy, by name and score.

    Raises:
      FileNotFoundError or ValueError: the run is not one of an offline agent whose policy sees one observation.
    """
    config = ConfigDict(read_object(run / "config.json"))
    if "dataset" not in config or config.dataset.context_length:
        raise ValueError(f"{run}: no run of experiments.offline_rl.train whose policy acts on one observation")
    dataset, found = load(config.dataset), {}
    task = task_of(config, dataset)
    references = references_of(task.label, config)
    policies = behaviour_policy(dataset, seed) | {config.agent.name: learnt_policy(run, config, dataset)}
    for name, act in policies.items():
        rollout = record_rollout(task.env_id, act, seed=seed)
        total = rollout.rewards.sum()
        score = total if references is None else score_between(references, total)
        found[f"{name}: {headline_of(task.label, config).label} {score:.1f}"] = rollout
    return found


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}: settings are flags, such as --run=DIR")
    if not _RUN.value:
        raise ValueError("--run: give the --workdir of a finished run of experiments.offline_rl.train")
    rollouts = rollouts_of(Path(_RUN.value), _EPISODE.value)
    draw_film_strips(rollouts, Path(_RUN.value) / "film.png")
    print(f"{Path(_RUN.value) / 'film.png'}: {'; '.join(rollouts)}")


if __name__ == "__main__":
    run_binary(main)
