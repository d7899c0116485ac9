"""PR-LSVI: preference-based reinforcement learning by randomised least-squares value iteration.

Wu and Sun 2023, "Making RL with Preference-based Feedback Efficient via Randomization", arXiv 2310.14554, algorithm 1;
the thresholds are those of Zanette et al. 2020, arXiv 1911.00567. In every round a reward is drawn about the most
likely one, and the value iteration of the ridge model of the transitions is perturbed as much as is unknown.
`rl_jax/control/dueling.py` has the rounds: what is rolled out, asked and paid.

Shapes: H steps, S states, A actions, d features; a reward has d parameters, or H d where each step has its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from ml_collections import ConfigDict

from rl_jax.core.program import Key
from rl_jax.losses.preference_posterior import Comparisons, disagreement, gaussian_draw


class RewardBelief(NamedTuple):
    """What is known of the reward.

    Attributes:
      theta: [d], the most likely one.
      precision: Sigma_r = ridge I + sum of x x^T over the answered pairs, [d, d].
      hessian: of the loss at theta, [d, d]: each x x^T weighs p (1 - p).
      comparisons: the answered pairs.
    """

    theta: jax.Array
    precision: jax.Array
    hessian: jax.Array
    comparisons: Comparisons


class DuelingAgent(NamedTuple):
    """How a policy is chosen, and how unsure a pair is.

    Attributes:
      plan: (belief, counts [H, S, A, S], features [S, A, d], key) -> greedy actions [H, S].
      unsure: (x [d], belief) -> E |x . (theta - theta')| of two rewards that the agent may believe in.
    """

    plan: Callable[[RewardBelief, jax.Array, jax.Array, Key], jax.Array]
    unsure: Callable[[jax.Array, RewardBelief], jax.Array]


class Ridge(NamedTuple):
    """Ridge regression of any value of the next state on the features, at every step.

    Attributes:
      transitions: [H, S, A, S]; transitions @ V is the prediction phi(s, a) . w_hat.
      width: |phi(s, a)|, [H, S, A], in the inverse of Sigma_h = ridge I + sum phi phi^T.
      noise: phi(s, a) . xi with xi of N(0, Sigma_h^-1), [H, S, A].
    """

    transitions: jax.Array
    width: jax.Array
    noise: jax.Array


def ridge_table(counts: jax.Array, ridge: jax.Array, key: Key) -> Ridge:
    """With one feature a pair of state and action Sigma_h is diagonal, ridge + visits."""
    precision = ridge + jnp.sum(counts, -1)
    width = jax.lax.rsqrt(precision)
    return Ridge(counts / precision[..., None], width, width * jax.random.normal(key, width.shape))


def ridge_linear(counts: jax.Array, features: jax.Array, ridge: jax.Array, key: Key) -> Ridge:
    """With features [S, A, d]; counts [H, S, A, S] are all that it takes of the past."""
    horizon, dimension = len(counts), features.shape[-1]
    seen = jnp.einsum("hsa,sad,sae->hde", jnp.sum(counts, -1), features, features)
    lower = jnp.linalg.cholesky(ridge * jnp.eye(dimension) + seen)
    weights = jax.vmap(lambda lower, sums: cho_solve((lower, True), sums))(
        lower, jnp.einsum("sad,hsax->hdx", features, counts)
    )
    z = jax.random.normal(key, (horizon, dimension, 1))
    xi = solve_triangular(lower, z, trans=1, lower=True)[..., 0]
    columns = jnp.broadcast_to(features.reshape(-1, dimension).T, (horizon, dimension, features[..., 0].size))
    width = jnp.linalg.norm(solve_triangular(lower, columns, lower=True), axis=1)
    return Ridge(
        jnp.einsum("sad,hdx->hsax", features, weights), width.reshape(horizon, *features.shape[:2]),
        jnp.einsum("sad,hd->hsa", features, xi),
    )


def rewards_of(theta: jax.Array, features: jax.Array, horizon: int) -> jax.Array:
    """r_h(s, a) = phi(s, a) . theta_h, [H, S, A]; a theta [d] is the same at every step."""
    by_step = jnp.einsum("sad,kd->ksa", features, theta.reshape(-1, features.shape[-1]))
    return jnp.broadcast_to(by_step, (horizon, *features.shape[:2]))


def threshold(value: jax.Array, width: jax.Array, default: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The value where the width is at most `low`, the default from `high` on, a line between; high = 0 switches off."""
    default_share = jnp.clip((width - low) / jnp.maximum(high - low, 1e-6), 0.0, 1.0)
    return jnp.where(high > 0, (1.0 - default_share) * value + default_share * default, value)


def pr_lsvi(config: ConfigDict, reward_scale: jax.Array, tabular: bool) -> DuelingAgent:
    """PR-LSVI; `config` as `default_config`.

    Args:
      reward_scale: the largest reward of a step.
      tabular: whether features are one of each pair of state and action.
    """

    def plan(belief: RewardBelief, counts: jax.Array, features: jax.Array, key: Key) -> jax.Array:
        reward_key, noise_key = jax.random.split(key)
        theta = gaussian_draw(reward_key, belief.theta, belief.precision, config.sigma_reward)
        ridge = config.ridge
        model = ridge_table(counts, ridge, noise_key) if tabular else ridge_linear(counts, features, ridge, noise_key)
        rewards = rewards_of(theta, features, len(counts)) + config.sigma_transitions * model.noise
        lasts = jnp.any(features != 0, -1)  # a state without features is the end

        def backward(value: jax.Array, at: tuple[jax.Array, Ridge, jax.Array]) -> tuple[jax.Array, jax.Array]:
            reward, model, left = at
            most = left * reward_scale
            q = threshold(
                reward + model.transitions @ value, model.width, most, config.alpha_low, config.alpha_high
            )
            # A reward is known up to a constant, so that values lie on both sides of 0.
            q = jnp.where(lasts, jnp.clip(q, -most, most), 0.0)
            return jnp.max(q, -1), jnp.argmax(q, -1)

        left = jnp.arange(len(counts), 0, -1)
        _, actions = jax.lax.scan(backward, jnp.zeros(counts.shape[1]), (rewards, model, left), reverse=True)
        return actions

    def unsure(x: jax.Array, belief: RewardBelief) -> jax.Array:
        return disagreement(x, belief.precision, config.sigma_reward)

    return DuelingAgent(plan, unsure)


def default_config() -> ConfigDict:
    """The card's constants; those of the theory are larger."""
    return ConfigDict(
        {
            "name": "pr_lsvi",
            "sigma_reward": 1.0,  # of the draw of the reward, and in the rule that asks
            "sigma_transitions": 0.5,  # of the draw of the regression
            "ridge": 1.0,  # lambda of both
            "alpha_low": 0.0,  # widths up to which a value is the drawn one,
            "alpha_high": 0.0,  # and from which on it is the most that can be earned; 0: it never is
        }
    )
