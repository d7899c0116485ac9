"""What is learnt in an environment: an agent from scratch, or one that a finished offline run has trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.offline_rl.learner import make_agent, make_learner
from rl_jax.core.checkpoint import CheckpointMismatchError, load_state
from rl_jax.core.config import unknown
from rl_jax.core.fused import run_keys
from rl_jax.core.program import Key, Metrics, Program, Resident, TrainState
from rl_jax.core.provenance import plain_config
from rl_jax.data.load import Dataset
from rl_jax.data.preprocess import normalize_observations, return_range, scale_rewards_by_return_range
from rl_jax.data.transitions import Transitions
from rl_jax.envs.gym_pool import EnvPool
from rl_jax.evaluation.rollouts import Act

FROM_SCRATCH = ("sac",)


class OnlineLearner(NamedTuple):
    """An agent in its task.

    Attributes:
      init: key -> TrainState of one run, trained already or not.
      update: (state, batch, key) -> (state, metrics) of one run.
      act: ((params, extra), raw observations, key, temperature) -> actions of the task, for one run.
      prior: the data set that it was trained on.
      prepare: raw observations -> those of `update`'s batch; numpy arrays.
      reward_scale: of a reward of the task, as `update` sees it.
      inputs: for the run's provenance.
      behaviour_returns: of the data set's episodes.
    """

    init: Callable[[Key], TrainState]
    update: Callable[[TrainState, Transitions, Key], tuple[TrainState, Metrics]]
    act: Act
    prior: Transitions | None
    prepare: Callable[[np.ndarray], np.ndarray]
    reward_scale: float
    inputs: dict[str, Any]
    behaviour_returns: np.ndarray


def from_scratch(config: ConfigDict, pool: EnvPool) -> OnlineLearner:
    """An untrained agent in the task of `pool`; agents act in [-1, 1], whatever the task's bounds are."""
    if config.agent.name not in FROM_SCRATCH:
        raise ValueError(unknown("agent that learns from scratch", config.agent.name, FROM_SCRATCH))
    low, high = pool.action_space.low, pool.action_space.high
    if not np.isfinite([low, high]).all():
        raise ValueError(f"actions of {pool.env_id} have no bounds: {pool.action_space}")
    agent = make_agent(config, len(low))
    centre, half_width = (low + high) / 2, (high - low) / 2
    observation = np.zeros((1, *pool.observation_space.shape), np.float32)
    one, action = np.zeros(1, np.float32), np.zeros((1, len(low)), np.float32)
    example = Transitions(observation, action, one, one, observation)

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        return agent.update(state, batch.replace(actions=(batch.actions - centre) / half_width), key)

    def act(policy: Any, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        return centre + half_width * agent.act(policy[0], observations, key, temperature)

    inputs = {"env_id": pool.env_id}
    return OnlineLearner(
        lambda key: agent.init(key, example), update, act, None, lambda x: x, 1.0, inputs, np.zeros(0)
    )


def fine_tuned(config: ConfigDict, dataset: Dataset, started: bool) -> OnlineLearner:
    """The agent that the run in `config.pretrained` has trained on `dataset`.

    Args:
      started: whether the fine-tuning has a checkpoint of its own, so that the run before it is not needed any more.
    """
    if "next_actions" in config.dataset.columns:
        raise ValueError(f"{config.agent.name} needs next_actions, which a replay buffer does not hold")
    learner = make_learner(config, dataset.episodes)
    if learner.context is not None:
        raise ValueError(f"{config.agent.name} reads sequences, which a replay buffer does not hold")
    # The statistics are functions of the data alone.
    extra = jax.device_get(jax.jit(lambda key: learner.init(key).extra)(jax.random.key(0)))
    mean, std = extra["observation_mean"], extra["observation_std"]
    reward_scale = 1.0
    if config.dataset.normalize_rewards:
        kept = dataset.episodes
        if config.dataset.top_fraction != 1.0:
            kept = kept.best_steps(config.dataset.top_fraction)
        reward_scale = float(scale_rewards_by_return_range(np.ones(1), *return_range(kept))[0])
    init, inputs = learner.init, {"dataset": dataset.name, "source": dataset.source, "checksum": dataset.checksum}
    if not started:
        trained = read_pretrained(config, Program(learner.init, learner.step, Resident(learner.data)), dataset.checksum)
        init = starting_from(learner.init, trained, run_keys("init", config.seed, config.num_seeds))
        inputs |= {"pretrained": config.pretrained, "pretrained_step": int(trained.step)}
    return OnlineLearner(
        init, learner.agent.update, learner.act, learner.data, lambda x: normalize_observations(x, mean, std),
        reward_scale, inputs, dataset.episodes.complete_returns,
    )


def read_pretrained(config: ConfigDict, program: Program, checksum: str) -> TrainState:
    """The final state of the run in `config.pretrained`: host arrays with a leading axis of as many runs, or of one.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: it is unfinished, or of another agent, other data or another number of seeds.
    """
    folder, flag = Path(config.pretrained).expanduser(), f"--config.pretrained={config.pretrained}"
    if not config.pretrained or not (folder / "config.json").exists():
        raise FileNotFoundError(f"{flag}: name the --workdir of a finished run of experiments.offline_rl.train")
    run = json.loads((folder / "config.json").read_text())
    wanted = plain_config(config)
    if run["paper"] != "offline_rl" or run["agent"]["name"] != config.agent.name:
        raise ValueError(f"{flag} is of {run['paper']} with {run['agent']['name']}: this run tunes {config.agent.name}")
    fields = run["dataset"] | wanted["dataset"]
    differing = [
        f"dataset.{name}: {run['dataset'].get(name)!r} there, {wanted['dataset'].get(name)!r} here"
        for name in sorted(fields)
        if name != "data_dir" and run["dataset"].get(name) != wanted["dataset"].get(name)
    ]
    if differing:
        raise ValueError(f"{flag} learnt from other data ({'; '.join(differing)}): give the same --config.dataset")
    inputs = json.loads((folder / "provenance.json").read_text())["starts"][0]["inputs"]
    if inputs["checksum"] != checksum:
        raise ValueError(f"{flag} learnt from data of checksum {inputs['checksum']}, and {checksum} lie here now")
    if run.get("sweep"):
        raise ValueError(f"{flag} is of the sweep {run['sweep']!r}: train the setting that is to be tuned by itself")
    if run["num_seeds"] not in (1, config.num_seeds):
        raise ValueError(f"{flag} has {run['num_seeds']} seeds: --config.num_seeds={config.num_seeds} must be as many")
    try:
        state = load_state(folder, program, run["num_seeds"])
    except CheckpointMismatchError as error:
        raise ValueError(f"{flag} has other networks than this run's --config.agent: {error}") from error
    if int(state.step) < run["num_steps"]:
        raise ValueError(f"{flag} is unfinished: step {int(state.step)} of {run['num_steps']}; start it again first")
    return jax.device_get(state)


def starting_from(init: Callable[[Key], TrainState], trained: TrainState, keys: Key) -> Callable[[Key], TrainState]:
    """`init` with what `trained` has learnt; the run is told by its key among `keys` [S].

    Args:
      trained: leaves [S, ...] for as many runs, or [1, ...] for all of them to start from.
    """
    words = np.asarray(jax.random.key_data(keys))
    learnt = {name: getattr(trained, name) for name in ("params", "target_params", "opt_state")}
    statistics = {name: trained.extra[name] for name in ("observation_mean", "observation_std")}

    def start(key: Key) -> TrainState:
        run = jnp.argmax(jnp.all(words == jax.random.key_data(key), axis=-1))
        state = init(key)
        own = jax.tree.map(lambda x: jnp.asarray(x)[run if len(x) > 1 else 0], learnt | {"extra": statistics})
        return state.replace(**own | {"extra": state.extra | own["extra"]})

    return start
