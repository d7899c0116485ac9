"""Minimax learning of ratios of visitations and of values, for off-policy evaluation: DICE, MWL and MQL in one form.

    max_w min_{Q, lambda}  (1 - g) E[Q(s_0, pi)] + lambda + E_D[w (a_r r + g Q(s', pi) - Q(s, a) - lambda)]
                           + a_Q E_D[Q^2] - a_w E_D[(w - 1)^2]

    DualDICE a_Q | GenDICE a_Q, lambda | AlgaeDICE a_w, a_r | BestDICE a_w, a_r, lambda | MWL none | MQL a_r

Sources: Yang et al. 2020, "Off-Policy Evaluation via the Regularized Lagrangian", arXiv 2007.03438, which has the
form; Nachum et al. 2019, arXiv 1906.04733 (DualDICE); Zhang et al. 2020, arXiv 2002.09072 (GenDICE); Nachum et al.
2019, arXiv 1912.02074 (AlgaeDICE); Uehara et al. 2020, arXiv 1910.12809 (MWL, MQL). The presets are those of SCOPE-RL.
In `kernel_mwl` and `kernel_mql` the function that tests is the worst of the unit ball of a Gaussian kernel's space,
which has a closed form: what is minimised is the squared norm of the broken flow, or of the Bellman error, as the
product of those of the two halves of a batch.

E_D weighs a step at time t by gamma^t, so that w is the ratio of discounted visitations of pi and of the behaviour
policy, rho(s, a), and sum_t gamma^t w r an estimate of J: SAM-IS. A terminal takes what enters it. Where the policies
end episodes at different times the ratio does not average to 1, which lambda asks for: GenDICE and BestDICE then are
biased. Without lambda the scale of w is told by the starts alone, 1 - g of the mass, and errors of the flow count in
proportion to w: before its pattern is fitted w shrinks, the more the nearer g is to 1 and the narrower the kernel.
Where rho(s) is learnt in its place, w is its product with the policies' ratio at the step's action: SM-IS (Liu et al.
2018, arXiv 1810.12429). Without a penalty MWL, MQL and GenDICE's w are games that gradients may circle in; the kernels'
are none.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rl_jax.agents.fqe import PolicyTransitions, expected_value
from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.losses.value_learning import values_of_actions
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Critic, DiscreteCritic, Value

METHODS = {
    "dual_dice": {"alpha_q": 1.0}, "gen_dice": {"alpha_q": 1.0, "normalised": True},
    "algae_dice": {"alpha_w": 1.0, "alpha_r": 1.0},
    "best_dice": {"alpha_w": 1.0, "alpha_r": 1.0, "normalised": True}, "mwl": {}, "mql": {"alpha_r": 1.0},
    "kernel_mwl": {"kernel": "weights"}, "kernel_mql": {"kernel": "values"},
}
MARGINALS = ("state_action", "state")
ONE = float(np.log(np.e - 1.0))  # softplus(ONE) = 1


@flax.struct.dataclass
class Marginal:
    """Steps and starts of episodes, a whole set or a batch of each."""

    steps: PolicyTransitions  # [N, ...]
    discounts: jax.Array | np.ndarray  # [N], gamma^t steps an episode: of mean E sum_t gamma^t
    starts: jax.Array | np.ndarray  # [n, O]
    start_policy: Any  # what the policy does there, every leaf [n, ...]
    ratios: jax.Array | np.ndarray | None = None  # [N], pi / pi_b at the steps' actions, where rho(s) is learnt


class MarginalLearner(NamedTuple):
    """What learns w and Q of a fixed policy; `init` and `update` are those of an `Agent`.

    Attributes:
      init: (key, batch) -> TrainState; the batch gives shapes only.
      update: (state, batch, key) -> (state, metrics).
      weights: (params, observations [B, O], actions [B, A] or [B]) -> w [B], positive; of states alone rho(s).
      q: the same -> Q [B].
    """

    init: Callable[[Key, Marginal], TrainState]
    update: Callable[[TrainState, Marginal, Key], tuple[TrainState, Metrics]]
    weights: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    q: Callable[[PyTree, jax.Array, jax.Array], jax.Array]


def dice(config: ConfigDict, num_actions: int | None = None) -> MarginalLearner:
    """Makes the learner; `config` has the fields of `default_config`.

    Args:
      num_actions: of numbered actions; None where actions are vectors.

    Raises:
      ValueError: there is no such method, or no such marginal.
    """
    if config.method not in METHODS:
        raise ValueError(unknown("method", config.method, METHODS))
    if config.marginal not in MARGINALS:
        raise ValueError(unknown("marginal", config.marginal, MARGINALS))
    how = {"alpha_q": 0.0, "alpha_w": 0.0, "alpha_r": 0.0, "normalised": False, "kernel": ""} | METHODS[config.method]
    is_discrete, discount = num_actions is not None, config.discount
    net = DiscreteCritic(config.hidden_dims, num_actions) if is_discrete else Critic(config.hidden_dims, 1)
    adam, of_states = optax.adam(config.learning_rate), config.marginal == "state"
    weigher = Value(config.hidden_dims) if of_states else net
    networks = Networks({
        "ratio": Trained(weigher.init, adam), "critic": Trained(net.init, adam),
        "multiplier": Trained(lambda key: {"value": jnp.zeros(())}, adam),
    })

    # Functions of a state and an action

    def at(params: PyTree, observations: jax.Array, actions: jax.Array) -> jax.Array:
        if is_discrete:
            return values_of_actions(net.apply(params, observations), actions)
        return net.apply(params, observations, actions)[0]

    def marginal(params: PyTree, observations: jax.Array, actions: jax.Array) -> jax.Array:
        logits = weigher.apply(params, observations) if of_states else at(params, observations, actions)
        return jax.nn.softplus(logits + ONE)

    def ratio(params: PyTree, batch: Marginal) -> jax.Array:
        w = marginal(params, batch.steps.transitions.observations, batch.steps.transitions.actions)
        return w * batch.ratios if of_states else w

    def expected(params: PyTree, observations: jax.Array, policy: Any, key: Key) -> jax.Array:
        if is_discrete:
            return expected_value(net.apply(params, observations), policy)
        return net.apply(params, observations, policy.sample(key))[0]

    # Losses

    def lagrangian(params: PyTree, batch: Marginal, key: Key) -> tuple[jax.Array, Metrics]:
        given, weighing = batch.steps.transitions, (1.0 - discount) * batch.discounts
        start_key, next_key = jax.random.split(key)
        q = at(params["critic"], given.observations, given.actions)
        next_q = expected(params["critic"], given.next_observations, batch.steps.next_policy, next_key)
        w = ratio(params["ratio"], batch)
        multiplier = params["multiplier"]["value"] * how["normalised"]
        flow = how["alpha_r"] * given.rewards + discount * given.masks * next_q - q - multiplier
        terms = w * flow + how["alpha_q"] * q**2 - how["alpha_w"] * (w - 1.0) ** 2
        start = expected(params["critic"], batch.starts, batch.start_policy, start_key)
        value = (1.0 - discount) * jnp.mean(start) + multiplier + jnp.mean(weighing * terms)
        return value, {"ratio/mean": jnp.mean(w), "ratio/max": jnp.max(w), "critic/mean": jnp.mean(q)}

    def kernel_loss(params: PyTree, batch: Marginal, key: Key) -> tuple[jax.Array, Metrics]:
        """<mu_1, mu_2> of the two halves of a batch: an unbiased estimate of the squared norm."""
        given, weighing = batch.steps.transitions, (1.0 - discount) * batch.discounts
        start_key, next_key = jax.random.split(key)
        taken = jax.nn.one_hot(given.actions, num_actions) if is_discrete else given.actions
        if how["kernel"] == "values":
            q = at(params["critic"], given.observations, given.actions)
            next_q = expected(params["critic"], given.next_observations, batch.steps.next_policy, next_key)
            error = weighing * (given.rewards + discount * given.masks * next_q - q)
            points = [_points(given.observations, taken, error, is_discrete)]
            info = {"critic/mean": jnp.mean(q)}
        else:
            w = ratio(params["ratio"], batch)
            after, start = (
                jax.nn.softmax(policy.logits) if is_discrete else policy.sample(own)
                for policy, own in ((batch.steps.next_policy, next_key), (batch.start_policy, start_key))
            )
            ones = jnp.full(len(batch.starts), 1.0 - discount)
            points = [
                _points(given.observations, taken, -weighing * w, is_discrete),
                _points(given.next_observations, after, discount * weighing * w * given.masks, is_discrete),
                _points(batch.starts, start, ones, is_discrete),
            ]
            info = {"ratio/mean": jnp.mean(w), "ratio/max": jnp.max(w)}

        def half(part: jax.Array, first: bool) -> jax.Array:
            middle = len(part) // 2
            return part[:middle] if first else part[middle:]

        (x, u), (y, v) = (
            [jnp.concatenate([half(part, first) for part in parts]) for parts in zip(*points)]
            for first in (True, False)
        )
        distance = jnp.sum(x**2, -1)[:, None] + jnp.sum(y**2, -1) - 2.0 * x @ y.T
        kernel = jnp.exp(-jnp.maximum(distance, 0.0) / (2.0 * config.bandwidth**2))
        loss = jnp.sum(kernel * (u @ v.T))
        return loss, info | {"kernel/loss": loss}

    # Update

    def init(key: Key, batch: Marginal) -> TrainState:
        given = batch.steps.transitions
        shown = (given.observations,) if is_discrete else (given.observations, given.actions)
        weighed = (given.observations,) if of_states else shown
        return networks.init(key, {"ratio": weighed, "critic": shown, "multiplier": ()})

    def update(state: TrainState, batch: Marginal, key: Key) -> tuple[TrainState, Metrics]:
        loss = kernel_loss if how["kernel"] else lagrangian
        gradient, info = jax.grad(loss, has_aux=True)(state.params, batch, key)
        if not how["kernel"]:  # w ascends
            gradient["ratio"] = jax.tree.map(jnp.negative, gradient["ratio"])
        for name in networks.trained:
            state, norms = networks.apply_gradient(state, name, gradient[name])
            info |= norms
        return state, info

    def weights(params: PyTree, observations: jax.Array, actions: jax.Array) -> jax.Array:
        return marginal(params["ratio"], observations, actions)

    def q(params: PyTree, observations: jax.Array, actions: jax.Array) -> jax.Array:
        return at(params["critic"], observations, actions)

    return MarginalLearner(init, update, weights, q)


def _points(
    observations: jax.Array, actions: jax.Array, mass: jax.Array, is_discrete: bool
) -> tuple[jax.Array, jax.Array]:
    """A measure's places [B, D] and masses [B, K], which sum over half the rows to a mean.

    The kernel of numbered actions is 1 for the same and 0 for others, so that masses stand by action; the place of a
    vector is the observation with it.
    """
    mass = mass[:, None] / (len(mass) // 2)
    if is_discrete:
        return observations, mass * actions
    return jnp.concatenate([observations, actions], -1), mass


def default_config() -> ConfigDict:
    """Returns SCOPE-RL's settings but for the rate, 1e-4 there."""
    return ConfigDict(
        {
            "name": "dice",
            "method": "kernel_mwl",  # of METHODS
            "marginal": "state_action",  # or "state": w(s, a) = rho(s) pi(a|s) / pi_b(a|s), of which rho is learnt
            "hidden_dims": (256, 256),
            "learning_rate": 1e-3,
            "discount": 0.99,
            "bandwidth": 1.0,  # of the kernel, in units of the observations
        }
    )
