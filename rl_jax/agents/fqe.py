"""FQE: fitted Q-evaluation. Q of one fixed policy, learnt from the steps of another.

Le, Voloshin and Yue 2019, "Batch Policy Learning under Constraints", arXiv 1903.08738, algorithm 3, as a network that
follows a target copy of itself. It bootstraps wherever the environment did not end, so through time-outs; the settings
are those of d3rlpy, which SCOPE-RL uses.

The policy is no part of the agent: every step of the data carries what the policy does in the state that follows. Where
actions are numbered the value of that state is an exact sum over them, elsewhere it is a mean over draws.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.value_learning import squared_error, td_target, values_of_actions
from rl_jax.networks.distributions import Categorical
from rl_jax.networks.trained import Networks, Trained, every
from rl_jax.networks.values import Critic, DiscreteCritic


@flax.struct.dataclass
class PolicyTransitions:
    """N steps (a whole set or a batch) beside what the policy that is evaluated does after each of them."""

    transitions: Transitions  # actions [N, A] float32, or [N] int32 where they are numbered
    next_policy: Any  # a distribution of `networks.distributions` at next_observations, every leaf of it [N, ...]


class Evaluator(NamedTuple):
    """What learns the Q of a fixed policy; `init` and `update` are those of an `Agent`, which also acts.

    Attributes:
      init: (key, batch) -> TrainState; the batch gives shapes only.
      update: (state, batch, key) -> (state, metrics).
      q: (params, observations [B, O], actions [B, A] or [B]) -> [B].
      value: (params, observations [B, O], policy there, key) -> V [B]; the key is not used where actions are numbered.
    """

    init: Callable[[Key, PolicyTransitions], TrainState]
    update: Callable[[TrainState, PolicyTransitions, Key], tuple[TrainState, Metrics]]
    q: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    value: Callable[[PyTree, jax.Array, Any, Key], jax.Array]


def fqe(config: ConfigDict, num_actions: int | None = None) -> Evaluator:
    """Makes fitted Q-evaluation; `config` has the fields of `default_config`.

    Args:
      num_actions: of numbered actions; None where actions are vectors.
    """
    is_discrete = num_actions is not None
    critic = DiscreteCritic(config.hidden_dims, num_actions) if is_discrete else Critic(config.hidden_dims, 1)
    networks = Networks({"critic": Trained(critic.init, optax.adam(config.learning_rate), tau=1.0)})

    # Values

    def q(params: PyTree, observations: jax.Array, actions: jax.Array) -> jax.Array:
        if is_discrete:
            return values_of_actions(critic.apply(params["critic"], observations), actions)
        return critic.apply(params["critic"], observations, actions)[0]

    def value(params: PyTree, observations: jax.Array, policy: Any, key: Key) -> jax.Array:
        if is_discrete:
            return expected_value(critic.apply(params["critic"], observations), policy)
        keys = jax.random.split(key, config.num_samples)
        actions = jax.vmap(policy.sample)(keys)
        observations = jnp.broadcast_to(observations, (len(keys), *observations.shape))
        return jnp.mean(critic.apply(params["critic"], observations, actions)[0], 0)

    # Losses

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        predictions = q({"critic": params}, batch.observations, batch.actions)
        loss = jnp.mean(squared_error(predictions, target))
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(predictions)}

    # Update

    def init(key: Key, batch: PolicyTransitions) -> TrainState:
        given = batch.transitions
        shown = (given.observations,) if is_discrete else (given.observations, given.actions)
        return networks.init(key, {"critic": shown})

    def update(state: TrainState, batch: PolicyTransitions, key: Key) -> tuple[TrainState, Metrics]:
        given = batch.transitions
        next_v = value(state.target_params, given.next_observations, batch.next_policy, key)
        target = td_target(given.rewards, given.masks, next_v, config.discount)
        state, info = networks.step(state, "critic", critic_loss, target, given)
        state, _ = every(
            config.target_every, lambda state: (networks.follow(state), {}), state, first=config.target_every - 1
        )
        return state, info

    return Evaluator(init, update, q, value)


def expected_value(q: jax.Array, policy: Categorical) -> jax.Array:
    """V(s) = sum_a pi(a|s) Q(s, a), [...], of the values of all actions q [..., A] and the policy's logits [..., A]."""
    return jnp.sum(jax.nn.softmax(policy.logits) * q, -1)


def default_config() -> ConfigDict:
    """Returns d3rlpy's settings; SCOPE-RL's batches are of 128 steps."""
    return ConfigDict(
        {
            "name": "fqe",
            "hidden_dims": (256, 256),
            "learning_rate": 1e-4,
            "discount": 0.99,
            "target_every": 100,  # updates between two copies of the critic
            "num_samples": 1,  # actions of the policy that the value of a state is the mean over; numbered ones: all
        }
    )
