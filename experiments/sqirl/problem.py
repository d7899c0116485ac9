"""What is learned in, and how a greedy policy is judged: exactly in a tabular MDP, by episodes in an Atari game."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs.sqirl import BUILT
from rl_jax.core.program import Key, PyTree, TrainState
from rl_jax.envs.atari import atari
from rl_jax.envs.environment import Environment, ending_at_the_horizon
from rl_jax.envs.tabular import BRIDGE, TabularMDP, bridge_path, checksum, environment, load_mdp, load_screens, pictures
from rl_jax.evaluation.planning import policy_returns

# act(state of one run, observations [B, ...], time) -> actions [B], the greedy ones
Act = Callable[[TrainState, jax.Array, jax.Array], jax.Array]


class Problem(NamedTuple):
    """What a configuration names.

    Attributes:
      data: what comes as an argument of the compiled step; an MDP's tables, or nothing.
      environment: data -> Environment, in which the horizon ends the problem.
      returns: (act, whether it depends on the time) -> ((states of all R runs, key) -> returns of their policies, [R]).
      encoder: that fits its observations.
      horizon: steps of an episode.
      inputs: for the provenance.
    """

    data: PyTree
    environment: Callable[[PyTree], Environment]
    returns: Callable[[Act, bool], Callable[[TrainState, Key], np.ndarray]]
    encoder: str
    horizon: int
    inputs: dict[str, Any]


def load_problem(config: ConfigDict) -> Problem:
    """The problem that a configuration names.

    Raises:
      ValueError: observations are neither states nor screens, or the MDP has no screens.
    """
    if config.observations not in ("state", "screen"):
        raise ValueError(f"config.observations is {config.observations!r}: choose state or screen")
    return _game(config) if config.atari.rom else _tabular(config)


def _tabular(config: ConfigDict) -> Problem:
    path = BUILT / f"{config.mdp}.npz"
    if config.mdp in BRIDGE:
        path = bridge_path(config.mdp)
    elif not path.exists():
        path = Path(config.mdp)
    mdp = load_mdp(path, config.horizon or None)
    observe, encoder = (lambda state: state), f"one_hot_{mdp.num_states}"
    if config.observations == "screen":
        screens = load_screens(path)
        observe, encoder = pictures(screens), encoder_of(screens.images.shape[1:3])
    states, exact = np.arange(mdp.num_states, dtype=np.int32), policy_returns(mdp, config.sticky)

    def returns(act: Act, timed: bool) -> Callable[[TrainState, Key], np.ndarray]:
        times = np.arange(mdp.horizon if timed else 1)

        @jax.jit
        def policies(state: TrainState) -> jax.Array:
            """[R, T or 1, S, A], float32."""
            observations = jax.vmap(observe)(states)
            of_run = lambda own: jax.lax.map(lambda time: act(own, observations, time), times)  # noqa: E731
            return jax.nn.one_hot(_by_run(of_run, state), mdp.num_actions)

        return lambda state, key: exact(jax.device_get(policies(state)))

    def environment_of(mdp: TabularMDP) -> Environment:
        return ending_at_the_horizon(environment(mdp, config.sticky, observe))

    inputs = {"mdp": config.mdp, "checksum": checksum(mdp), "horizon": mdp.horizon}
    return Problem(mdp, environment_of, returns, encoder, mdp.horizon, inputs)


def _game(config: ConfigDict) -> Problem:
    if config.observations != "screen":
        raise ValueError("config.observations is state: an Atari game gives screens alone")
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        # A callback waits for a copy to the first device, which waits, as all of the program's, for the callback.
        raise ValueError(
            f"config.atari.rom: a step calls the host, which hangs on {jax.device_count()} CPU devices at once: start "
            "with one, without --xla_force_host_platform_device_count in XLA_FLAGS"
        )
    env = ending_at_the_horizon(
        atari(config.atari.rom, horizon=config.horizon, frameskip=config.atari.frameskip, sticky=config.sticky,
              frame_stack=config.atari.frame_stack, reward_scale=config.atari.reward_scale)
    )

    def returns(act: Act, timed: bool) -> Callable[[TrainState, Key], np.ndarray]:
        del timed

        @jax.jit
        def by_run(state: TrainState, key: Key) -> jax.Array:
            return _by_run(lambda own: jnp.mean(rollout_returns(env, own, act, config.atari.episodes, key)), state)

        return lambda state, key: np.asarray(by_run(state, key), np.float64)

    inputs = {"rom": config.atari.rom, "frameskip": config.atari.frameskip, "horizon": config.horizon}
    return Problem((), lambda data: env, returns, "nature_cnn", config.horizon, inputs)


def encoder_of(shape: tuple[int, int]) -> str:
    """Of screens of a height and width: MiniGrid's cells are few, and pixels are many."""
    return "nature_cnn" if min(shape) >= 36 else "minigrid_cnn"


def rollout_returns(env: Environment, state: TrainState, act: Act, episodes: int, key: Key) -> jax.Array:
    """Undiscounted returns of E episodes of a run's policy, [E]."""
    reset_key, step_key = jax.random.split(key)
    states, observations = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))

    def one_step(carry: Any, inputs: Any) -> tuple[Any, None]:
        states, observations, active, total = carry
        time, keys = inputs
        states, stepped = jax.vmap(env.step)(states, act(state, observations, time), keys)
        total = total + stepped.reward * active
        return (states, stepped.observation, active & ~(stepped.terminated | stepped.truncated), total), None

    carry = states, observations, jnp.ones(episodes, bool), jnp.zeros(episodes)
    keys = jax.random.split(step_key, (env.horizon, episodes))
    (*_, total), _ = jax.lax.scan(one_step, carry, (jnp.arange(env.horizon), keys))
    return total


def _by_run(fn: Callable[[TrainState], jax.Array], state: TrainState) -> jax.Array:
    """`fn` of every run of a state; all share its step."""
    return jax.vmap(lambda own: fn(own.replace(step=state.step)))(state.replace(step=None))
