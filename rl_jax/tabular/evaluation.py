"""Learned policies judged exactly in a tabular MDP: what they are expected to earn, without the noise of episodes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.mesh import gather
from rl_jax.core.program import PyTree, TrainState
from rl_jax.tabular.mdp import TabularMDP
from rl_jax.tabular.planning import policy_returns

# act(state of one run, resident, MDP states [S], time) -> actions [S]
Act = Callable[[TrainState, PyTree, jax.Array, jax.Array], jax.Array]


def exact_returns(
    mdp: TabularMDP, act: Act, *, sticky: float, timed: bool
) -> Callable[[TrainState, PyTree], np.ndarray]:
    """A function from the states of R runs, and the program's resident, to what their policies are expected to earn in
    an episode, [R] float64.

    Args:
      timed: whether the policy depends on the time of an episode; otherwise it is asked at time 0 alone.
    """
    returns = policy_returns(mdp, sticky)

    @jax.jit
    def policies(runs: TrainState, step: jax.Array, resident: PyTree) -> jax.Array:
        """[R, T or 1, S, A], float32."""
        states, times = jnp.arange(mdp.num_states), jnp.arange(mdp.horizon if timed else 1)

        def of_run(run: TrainState) -> jax.Array:
            return jax.lax.map(lambda time: act(run.replace(step=step), resident, states, time), times)

        return jax.nn.one_hot(jax.vmap(of_run)(runs), mdp.num_actions)

    # All runs share their step, which has no leading axis.
    return lambda state, resident: returns(gather(policies(state.replace(step=None), state.step, resident)))
