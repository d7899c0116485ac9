"""The agents under test, and how a test trains one. An agent joins by adding one line to CASES."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents import (
    awac,
    bc,
    cpl,
    cql,
    dt,
    edac,
    fdvl,
    iq_learn,
    iql,
    oril,
    piql,
    rebrac,
    recoil,
    recoil_v,
    rlpd,
    sac,
    smodice,
    td3_bc,
    xql,
)
from rl_jax.agents.agent import Agent
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.segments import Comparisons
from rl_jax.data.sequences import Sequences
from rl_jax.data.transitions import Demonstrations, Transitions


def as_sequences(data: Transitions, length: int = 4) -> Sequences:
    """The same rows cut into stretches of `length` steps from the beginning of an episode."""
    observations, actions, rewards = (
        x.reshape(-1, length, *x.shape[1:]) for x in (data.observations, data.actions, data.rewards)
    )
    timesteps = np.broadcast_to(np.arange(length, dtype=np.int32), rewards.shape)
    return Sequences(observations, actions, rewards, timesteps, np.ones_like(rewards))


def as_comparisons(data: Transitions, length: int = 4) -> Comparisons:
    """The same rows cut into segments, the first half of them compared with the second; every third is preferred."""
    steps = jax.tree.map(lambda x: x.reshape(-1, length, *x.shape[1:]), data)
    places = np.arange(SIZE // length // 2)
    labels = (places % 3 > 0).astype(np.float32)
    return Comparisons(steps, np.ones_like(steps.rewards), places, places + len(places), labels)


def first_steps(batch: Comparisons) -> Any:
    return batch.steps.observations[:, 0]


def as_demonstrations(data: Transitions) -> Demonstrations:
    """Every fourth row as an expert's, the others as offline data; both halves of SIZE rows."""
    return Demonstrations(
        *(jax.tree.map(lambda x, step=step: np.resize(x[step::4], x.shape), data) for step in (0, 1))
    )


class Case(NamedTuple):
    """One agent under test.

    Attributes:
      flips: settings under which every field of its config acts within FLIP_STEPS updates.
      batch: what the agent learns from, made of transitions.
      shown: what its `act` takes, made of a batch.
      elsewhere: fields of its config that do not act in an update of this batch, but where it is evaluated or on
        screens: the agent's own tests have them.
      choices: another legal value of each field that is a name.
    """

    make: Callable[[ConfigDict, int], Agent]
    default_config: Callable[[], ConfigDict]
    flips: Mapping[str, Any] = {}
    batch: Callable[[Transitions], Any] = lambda data: data
    shown: Callable[[Any], Any] = lambda batch: batch.observations
    elsewhere: tuple[str, ...] = ()
    choices: Mapping[str, str] = {}


def offline(batch: Demonstrations) -> Any:
    return batch.offline.observations


CASES = {
    "bc": Case(bc.bc, bc.default_config),
    "td3_bc": Case(td3_bc.td3_bc, td3_bc.default_config),
    "awac": Case(awac.awac, awac.default_config, {"max_weight": 2.0}),
    "iql": Case(iql.iql, iql.default_config, {"decay_steps": 4, "max_weight": 2.0}),
    "xql": Case(
        xql.xql, xql.default_config,
        {
            "decay_steps": 4, "max_weight": 2.0, "max_clip": 0.5, "huber_delta": 1.0, "noise_std": 0.2,
            "random_actions": 1,
        },
    ),
    "cql": Case(cql.cql, cql.default_config),
    "sac": Case(sac.sac, sac.default_config, {"log_std_min": 0.1}),
    "edac": Case(edac.edac, edac.default_config, {"log_std_min": 0.1}),
    "rebrac": Case(rebrac.rebrac, rebrac.default_config, {"policy_freq": 1}),
    "dt": Case(
        dt.dt, dt.default_config, {"warmup_steps": 1}, as_sequences, lambda batch: batch, elsewhere=("target_return",)
    ),
    "fdvl": Case(
        fdvl.fdvl, fdvl.default_config, {"decay_steps": 4, "max_weight": 2.0, "huber_delta": 1.0, "random_actions": 1},
        choices={"surrogate": "chi2_hinged"},
    ),
    "recoil": Case(
        recoil.recoil, recoil.default_config,
        {"decay_steps": 4, "max_weight": 2.0, "max_clip": 0.1, "form": "objective"}, as_demonstrations, offline,
        choices={"form": "fixed_targets"},
    ),
    "recoil_v": Case(recoil_v.recoil_v, recoil_v.default_config, {"decay_steps": 4}, as_demonstrations, offline),
    "smodice": Case(
        smodice.smodice, smodice.default_config, {}, as_demonstrations, offline, choices={"divergence": "pearson_chi2"}
    ),
    "oril": Case(oril.oril, oril.default_config, {}, as_demonstrations, offline),
    "cpl": Case(
        cpl.cpl, cpl.default_config, {"cloning_steps": 1, "warmup_steps": 1, "cloning_weight": 1.0}, as_comparisons,
        first_steps, elsewhere=("shift", "encoder"), choices={"cloned": "preferred"},
    ),
    "piql": Case(
        piql.piql, piql.default_config, {"decay_steps": 4, "max_weight": 2.0, "reward_share": 0.5}, as_comparisons,
        first_steps,
    ),
    "iq_learn": Case(iq_learn.iq_learn, iq_learn.default_config, {}, as_demonstrations, offline),
    "rlpd": Case(
        rlpd.rlpd, rlpd.default_config, {"num_critics": 4, "num_min_critics": 1, "log_std_min": 0.1, "tau": 0.3}
    ),
}
FLIP_STEPS = 2
# The core's for a run with seed 0.
INIT_KEY, TRAIN_KEY = (jax.random.fold_in(jax.random.key(stream), 0) for stream in (0, 1))
# For what runs a few times: compiling is most of its time, and without LLVM's optimisations it takes half as long.
QUICK = {"xla_backend_optimization_level": 0}

# One shape for all probes, so that what JAX compiles for one serves the others.
SIZE = 128
SMALL = {
    "hidden_dims": (32, 32), "num_critics": 2, "num_samples": 4, "embedding_dim": 16, "num_layers": 1,
    "learning_rate": 3e-3,
}
# A short horizon, quick targets and policies as quick as their critics: values settle in a thousand updates.
FAST = {"discount": 0.5, "tau": 0.05, "actor_learning_rate": 3e-3}
GENTLE = {"conservatism": 0.01}  # at its own weight CQL's regulariser outweighs rewards as small as the probes'


def make_config(name: str, **overrides: Any) -> ConfigDict:
    """The agent's own settings, small; an override that the agent does not have is left out."""
    config = CASES[name].default_config()
    settings = {**SMALL, **FAST, **GENTLE, **overrides}
    config.update({field: value for field, value in settings.items() if field in config})
    return config


def make_agent(name: str, **overrides: Any) -> Agent:
    return CASES[name].make(make_config(name, **overrides), 1)


def transitions(observations, actions, rewards=0.0, masks=0.0, next_observations=None) -> Transitions:
    """SIZE transitions of one observation and one action dimension; numbers stand for constant columns."""
    column = lambda x: np.broadcast_to(np.asarray(x, np.float32), (SIZE,))  # noqa: E731
    observations = column(observations)
    after = observations if next_observations is None else column(next_observations)
    actions, rewards = column(actions), column(rewards)
    return Transitions(
        observations[:, None], actions[:, None], rewards, column(masks), after[:, None],
        next_actions=np.roll(actions, -1)[:, None], mc_returns=rewards,
    )


def floats_of(config: ConfigDict) -> dict[str, jax.Array]:
    """The floats of an agent's config as arrays: what a sweep hands in traced."""
    return {field: jnp.float32(value) for field, value in config.items() if isinstance(value, float)}


def with_floats(config: ConfigDict, floats: Mapping[str, Any]) -> ConfigDict:
    """The config with these values, traced ones too."""
    config = config.copy_and_resolve_references()
    with config.ignore_type():
        config.update(floats)
    return config


@functools.cache
def compiled(name: str, steps: int, fixed: str) -> Callable[..., tuple[TrainState, Metrics]]:
    """A run of `steps` updates with what of an agent's config (JSON) is no float; floats and data are arguments, so
    that one program serves many probes. Every update sees all data, so that the answers have no sampling noise."""

    def run(state: TrainState, data: PyTree, floats: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
        agent = CASES[name].make(with_floats(ConfigDict(json.loads(fixed)), floats), 1)

        def one(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
            state, metrics = agent.update(state, data, key)
            return state.replace(step=state.step + 1), metrics

        keys = jax.vmap(lambda step: jax.random.fold_in(TRAIN_KEY, step))(jnp.arange(steps))
        state, metrics = jax.lax.scan(one, state, keys)
        return state, jax.tree.map(jnp.mean, metrics)

    return jax.jit(run)


def train(name: str, data: PyTree, steps: int = 1500, **overrides: Any) -> tuple[TrainState, Metrics]:
    """One run of `steps` updates on a batch: its final state, and its metrics averaged over all updates."""
    data = jax.tree.map(jnp.asarray, data)
    config = make_config(name, **overrides)
    # Not jitted: the initialisers are then compiled once for all agents of a shape.
    state = make_agent(name, **overrides).init(INIT_KEY, data)
    floats = floats_of(config)
    config.update(dict.fromkeys(floats, 0.0))
    state, metrics = compiled(name, steps, config.to_json())(state, data, floats)
    return state, {metric: float(value) for metric, value in metrics.items()}


def few_updates(name: str, data: PyTree, **overrides: Any) -> tuple[TrainState, Metrics]:
    """A run of FLIP_STEPS updates and the metrics of the last, op by op: compiling every config takes far longer."""
    return few_updates_of(make_agent(name, **overrides), data)


def few_updates_of(agent: Agent, data: PyTree) -> tuple[TrainState, Metrics]:
    data = jax.tree.map(jnp.asarray, data)
    state = agent.init(jax.random.key(0), data)
    with jax.disable_jit():
        for step in range(FLIP_STEPS):
            state, metrics = agent.update(state, data, jax.random.key(step))
            state = state.replace(step=state.step + 1)
    return state, metrics


@functools.cache
def compiled_update(name: str, fixed: str) -> Callable[..., tuple[TrainState, Metrics]]:
    """An agent's update with what of its config (JSON) is no float: (floats, state, batch, key) -> (state, metrics)."""

    def update(floats: Mapping[str, Any], state: TrainState, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        return CASES[name].make(with_floats(ConfigDict(json.loads(fixed)), floats), 1).update(state, batch, key)

    return jax.jit(update, compiler_options=QUICK)


def update_of(name: str, **overrides: Any) -> Callable[..., tuple[TrainState, Metrics]]:
    """An agent's update, (state, batch, key) -> (state, metrics), compiled once for all its float settings."""
    config = make_config(name, **overrides)
    floats = floats_of(config)
    config.update(dict.fromkeys(floats, 0.0))
    return functools.partial(compiled_update(name, config.to_json()), floats)


def linear_critics(params: PyTree, slopes: Sequence[float]) -> None:
    """Turns critics that are zero everywhere into Q_i(s, a) = slopes[i] * a, in place."""
    critic = params["params"]["members"]["MLP_0"]
    # relu(a) - relu(-a) = a; the second input of the critic is the action.
    first, second, last = (critic[f"Dense_{i}"] for i in range(3))
    first["kernel"] = first["kernel"].at[:, 1, :2].set(jnp.array([1.0, -1.0]))
    second["kernel"] = second["kernel"] + jnp.eye(second["kernel"].shape[-1])
    last["kernel"] = last["kernel"].at[:, :2, 0].set(jnp.outer(jnp.array(slopes), jnp.array([1.0, -1.0])))


def act(name: str, params: PyTree, observations, **overrides: Any) -> np.ndarray:
    """The agent's modes for observations [N] of one dimension: actions [N]."""
    agent = make_agent(name, **overrides)
    observations = jnp.asarray(observations, jnp.float32)[:, None]
    return np.asarray(agent.act(params, observations, jax.random.key(0), 0.0))[:, 0]
