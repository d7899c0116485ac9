"""Models fitted to random steps of an environment, judged by how far their roll-outs are from what really happened."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.online import Steps, collect, start
from rl_jax.control.dynamics import Rows, make_dynamics
from rl_jax.core.fused import evaluated
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.envs.surrogate import World, roll_out


def random_steps(world: World, copies: int, length: int, hold: int, key: Key) -> Steps:
    """Steps [length, copies, ...] from the start of episodes, under uniform actions that are held."""
    start_key, draw_key, collect_key = jax.random.split(key, 3)
    environment = world.environment
    shape = -(-length // hold), copies, environment.num_actions
    held = jnp.repeat(jax.random.uniform(draw_key, shape, minval=-1.0, maxval=1.0), hold, 0)[:length]
    begun = start(environment, copies, start_key)
    return collect(environment, begun, lambda observations, held: held, held, collect_key)[1]


def model_program(config: ConfigDict, world: World) -> Program:
    """A model of `config.data.size` random steps; every step of the program is a fit.

    Each run has steps of its own, and others for the judgement. Outcomes [S, 1]: "rmseH" for each H of
    `config.data.horizons`, over all observations H steps behind the start of a window that was not fitted, each number
    in units of its standard deviation, and, of SINDy's models, "terms". Where fits leave steps in contact out, so does
    the judgement.

    Raises:
      ValueError: the environment is a simulator's, or a window does not fit into an episode.
    """
    data, longest = config.data, max(config.data.horizons)
    if world.environment is None:
        raise ValueError(f"config.world={config.world!r}: models are judged in pure-JAX environments, as swingup")
    if world.environment.horizon % longest:
        raise ValueError(f"config.data.horizons={data.horizons}: {longest} does not divide an episode")
    dynamics = make_dynamics(config.model, world)
    box = tuple(jnp.asarray(end, jnp.float32) for end in world.box)

    def init(key: Key, resident: PyTree) -> TrainState:
        model_key, data_key, held_key = jax.random.split(key, 3)
        steps = jax.tree.map(lambda x: x[:, 0], random_steps(world, 1, data.size, data.hold, data_key))
        rows = Rows(
            steps.observations, steps.actions, steps.rewards, steps.next_observations, jnp.ones(data.size, bool)
        )
        held = random_steps(world, data.held_out_episodes, world.environment.horizon, data.hold, held_key)

        def windows(x: jax.Array) -> jax.Array:  # [T, N, ...] -> [W, longest, ...]
            x = jnp.swapaxes(x, 0, 1)
            return x.reshape(-1, longest, *x.shape[2:])

        held = jax.tree.map(windows, (held.observations, held.actions, held.next_observations))
        return TrainState.create({}, {}, extra={"rows": rows, "held_out": held, "model": dynamics.init(model_key)})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        model, metrics = dynamics.fit(state.extra["model"], state.extra["rows"], key)
        return state.replace(extra={**state.extra, "model": model}), metrics

    def judged(extra: PyTree) -> dict[str, jax.Array]:
        observations, actions, following = extra["held_out"]
        predict = functools.partial(dynamics.predict, extra["model"])
        predicted = jax.vmap(lambda start, actions: roll_out(world, predict, start, actions, box))(
            observations[:, 0], actions
        )
        deviation = jnp.std(following, (0, 1))
        error = jnp.mean(jnp.square((predicted - following) / deviation), -1)  # [W, T]
        counted = jnp.ones(len(error), bool)
        if config.model.skip_contact:
            counted = jnp.all(world.smooth(following) & world.smooth(observations), 1)
        share = counted / jnp.maximum(jnp.sum(counted), 1)
        found = {f"rmse{h}": jnp.sqrt(jnp.sum(share * error[:, h - 1])) for h in data.horizons}
        if config.model.kind == "sindy":
            found["terms"] = jnp.sum(extra["model"].coefficients != 0.0).astype(jnp.float32)
        return found

    judge_all = evaluated(judged)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = judge_all(state.extra)
        return Evaluation(outcomes={name: np.asarray(x, np.float64)[:, None] for name, x in found.items()})

    return Program(init, step, evaluate)
