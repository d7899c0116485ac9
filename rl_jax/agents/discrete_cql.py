"""CQL of numbered actions: double Q-learning on recorded steps, with the values of what the data lack pushed down.

Kumar, Zhou, Tucker and Levine 2020, "Conservative Q-Learning for Offline Reinforcement Learning", arXiv 2006.04779,
CQL(H), where the sum over all actions is exact; the double Q-learning is that of d3rlpy's DiscreteCQL. Actions are
one-hot, [B, A], as the policy's are; the policy is softmax(Q / temperature).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, acting
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.conservative import conservative_gap
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.distributions import Categorical
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import DiscreteCritic


def discrete_cql(config: ConfigDict, num_actions: int) -> Agent:
    """Makes CQL of numbered actions; `config` has the fields of `default_config`."""
    critic = DiscreteCritic(config.hidden_dims, num_actions)
    networks = Networks({"critic": Trained(critic.init, optax.adam(config.learning_rate), config.tau)})

    # Losses

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations)
        data_q = jnp.sum(q * batch.actions, -1)
        td = jnp.mean(squared_error(data_q, target))
        gap = jnp.mean(conservative_gap(q.T, jnp.zeros_like(q.T), data_q))  # equation 4
        info = {"critic/loss": td, "critic/gap": gap, "critic/mean": jnp.mean(data_q)}
        return td + config.conservatism * gap, info

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, {"critic": (batch.observations,)})

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        del key
        chosen = Categorical(critic.apply(state.params["critic"], batch.next_observations)).mode()
        next_q = critic.apply(state.target_params["critic"], batch.next_observations)
        next_v = jnp.sum(next_q * jax.nn.one_hot(chosen, num_actions), -1)
        target = td_target(batch.rewards, batch.masks, next_v, config.discount)
        state, info = networks.step(state, "critic", critic_loss, target, batch)
        return networks.follow(state), info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Categorical:
        return Categorical(critic.apply(params["critic"], observations) / config.temperature)

    return Agent(init, update, acting(policy, num_actions), policy)


def default_config() -> ConfigDict:
    """Returns d3rlpy's settings but for the rate, 6.25e-5 there, and the target, a copy every 8,000 updates there."""
    return ConfigDict(
        {
            "name": "discrete_cql",
            "hidden_dims": (256, 256),
            "learning_rate": 1e-3,
            "discount": 0.99,
            "tau": 0.005,  # target critic
            "conservatism": 1.0,  # alpha
            "temperature": 1.0,  # of the policy
        }
    )
