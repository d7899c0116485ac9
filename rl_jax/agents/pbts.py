"""PbTS: preference-based Thompson sampling.

Wu and Sun 2023, arXiv 2310.14554, algorithm 2. In every round a model is drawn of the posterior, and the policy is
optimal for it. Here the transitions of a pair of state and action have a Dirichlet prior, which counts make exact, and
the reward a Gaussian prior of precision `ridge` and Laplace's approximation N(theta_hat, Hessian^-1) of its posterior.
Pairing and the rule that asks are PR-LSVI's, with the posterior in the place of the Gaussian of PR-LSVI.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.agents.pr_lsvi import DuelingAgent, RewardBelief, rewards_of
from rl_jax.core.program import Key
from rl_jax.losses.preference_posterior import disagreement, gaussian_draw


def drawn_transitions(key: Key, counts: jax.Array, concentration: jax.Array) -> jax.Array:
    """P [S, A, S] of the Dirichlet posterior, of counts [H, S, A, S] that all steps share."""
    weights = jax.random.gamma(key, concentration + jnp.sum(counts, 0))
    return weights / jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1e-30)


def best_actions(transitions: jax.Array, rewards: jax.Array) -> jax.Array:
    """The optimal actions [H, S] of transitions [S, A, S] and rewards [H, S, A], by value iteration backwards."""

    def backward(value: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = reward + transitions @ value
        return jnp.max(q, -1), jnp.argmax(q, -1)

    return jax.lax.scan(backward, jnp.zeros(len(transitions)), rewards, reverse=True)[1]


def pbts(config: ConfigDict) -> DuelingAgent:
    """PbTS; `config` as `default_config`."""

    def plan(belief: RewardBelief, counts: jax.Array, features: jax.Array, key: Key) -> jax.Array:
        reward_key, transition_key = jax.random.split(key)
        theta = gaussian_draw(reward_key, belief.theta, belief.hessian, 1.0)
        transitions = drawn_transitions(transition_key, counts, config.concentration)
        # A state without features is the end, where nothing is earned: it leads to itself.
        ends = ~jnp.any(features != 0, -1, keepdims=True)
        transitions = jnp.where(ends, jnp.eye(len(transitions))[:, None], transitions)
        return best_actions(transitions, rewards_of(theta, features, len(counts)))

    def unsure(x: jax.Array, belief: RewardBelief) -> jax.Array:
        return disagreement(x, belief.hessian, 1.0)

    return DuelingAgent(plan, unsure)


def default_config() -> ConfigDict:
    """A uniform prior of the transitions, a standard normal one of the reward."""
    return ConfigDict(
        {
            "name": "pbts",
            "ridge": 1.0,  # the precision of the reward's prior
            "concentration": 1.0,  # of the Dirichlet prior of every row
        }
    )
