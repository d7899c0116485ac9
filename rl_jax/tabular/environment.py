"""A tabular MDP as an environment, with sticky actions, and what an agent sees of a state.

Sticky actions: Laidlaw et al. 2023, "The Effective Horizon Explains Deep RL Performance in Stochastic Environments",
arXiv 2312.08369.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.envs.environment import Environment, Key, TimeStep, check_sticky, sticky_action
from rl_jax.tabular.mdp import TERMINAL, Screens, TabularMDP


class TabularState(NamedTuple):
    """Where an episode is: int32 scalars. `state` is -1 after a terminal; `previous_action` is the one executed."""

    state: jax.Array
    previous_action: jax.Array
    time: jax.Array


def one_hot(mdp: TabularMDP) -> Callable[[jax.Array], jax.Array]:
    """Makes observations float32 [S] of a state: 1 at its number; zeros after a terminal."""
    return lambda state: jax.nn.one_hot(state, mdp.num_states)


def pictures(screens: Screens) -> Callable[[jax.Array], jax.Array]:
    """Makes observations uint8 [height, width, channels] of a state; zeros after a terminal.

    The F last images of a state are stacked along the channels: [height, width, F * channels].
    """
    images, of_state = jnp.asarray(screens.images), jnp.asarray(screens.of_state)

    def observe(state: jax.Array) -> jax.Array:
        picture = images[of_state[state]] * (state != TERMINAL).astype(jnp.uint8)
        if images.ndim == 3:
            picture = picture[..., None]
        if of_state.ndim == 2:
            picture = jnp.concatenate(list(picture), -1)
        return picture

    return observe


def environment(
    mdp: TabularMDP, sticky: float = 0.0, observe: Callable[[jax.Array], jax.Array] | None = None
) -> Environment:
    """The MDP as an environment of pure functions.

    Every episode begins in state 0, so `reset` ignores its key. A terminal transition is `terminated`; the step at the
    horizon is `truncated`, because the two are different facts. But the horizon is part of these problems and nothing
    is earned after it: a learner of the finite-horizon problem (discount 1, values that know the time) takes both for
    the end, mask 1 - (terminated | truncated). One that bootstraps through `truncated` solves an endless problem, of
    which `planning` knows nothing. What a step does after the end of an episode is undefined.

    The tables may be traced, so that they come as an argument of a compiled step; they are not checked here.

    Args:
      sticky: probability that a step executes the action executed before it instead of the given one; never at an
        episode's first step (arXiv 2312.08369, section 4).
      observe: int32 MDP state, a scalar -> observation [*O], called with -1 after a terminal; `one_hot(mdp)` without
        it, `pictures(screens)` for images. It does not see the previous action.
    """
    check_sticky(sticky)
    transitions, rewards = jnp.asarray(mdp.transitions), jnp.asarray(mdp.rewards)
    observe = observe or one_hot(mdp)
    zero = jnp.zeros((), jnp.int32)

    def reset(key: Key) -> tuple[TabularState, jax.Array]:
        del key
        return TabularState(zero, zero, zero), observe(zero)

    def step(state: TabularState, action: jax.Array, key: Key) -> tuple[TabularState, TimeStep]:
        executed = sticky_action(action, state.previous_action, state.time, sticky, key)
        after, time = transitions[state.state, executed], state.time + 1
        terminated = after == TERMINAL
        truncated = ~terminated & (time >= mdp.horizon)
        time_step = TimeStep(observe(after), rewards[state.state, executed], terminated, truncated)
        return TabularState(after, executed, time), time_step

    return Environment(reset, step, mdp.num_actions, mdp.horizon)
