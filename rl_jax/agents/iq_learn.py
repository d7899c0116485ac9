"""IQ-Learn: the expert's soft Q-function, of which a reward can be read off. No discriminator.

Garg, Chakraborty, Cundy, Song and Ermon 2021, "IQ-Learn: Inverse soft-Q Learning for Imitation", arXiv 2106.12142. A
batch is `Demonstrations`; rewards are not read. It is dual-Q imitation with chi2: Q(s, a) - gamma V(s') is the reward
that the expert seems to follow. The losses are those of the authors' code, which has E[V(s) - gamma V(s')] in place of
(1 - gamma) E_{d_0}[V]: over the expert's states for the offline form, with chi2 on the expert alone; over the expert's
states and the policy's replay for MuJoCo online, with chi2 on both. Here `expert_only` is the offline form, and without
it the offline data stand where the replay is. As there the critic moves first, then the policy, then the target, and
the temperature is fixed.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Demonstrations, Transitions
from rl_jax.losses.divergence import PEARSON_CHI2
from rl_jax.losses.dual import dual_loss
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Critic


def iq_learn(config: ConfigDict, action_dim: int) -> Agent:
    """Makes IQ-Learn; `config` has the fields of `default_config`."""
    actor = SquashedGaussianPolicy(config.hidden_dims, action_dim, log_std_min=-5.0)
    critic = Critic(config.hidden_dims, config.num_critics)
    networks = Networks({
        "actor": Trained(actor.init, optax.adam(config.actor_learning_rate)),
        "critic": Trained(critic.init, optax.adam(config.learning_rate), config.tau),
    })

    def soft_value(critic_params: PyTree, actor_params: PyTree, observations: jax.Array, key: Key) -> jax.Array:
        """min_i Q_i(s, a) - temperature log pi(a|s), with a of the policy."""
        actions, log_probs = actor.apply(actor_params, observations).sample_and_log_prob(key)
        return critic.apply(critic_params, observations, actions).min(0) - config.temperature * log_probs

    # Losses

    def critic_loss(
        params: PyTree, actor_params: PyTree, next_v: jax.Array, batch: Transitions, key: Key
    ) -> tuple[jax.Array, Metrics]:
        v = soft_value(params, actor_params, batch.observations, key)
        after = config.discount * batch.masks * next_v
        q = critic.apply(params, batch.observations, batch.actions)
        num_expert = q.shape[-1] if config.expert_only else q.shape[-1] // 2
        residuals = after - q  # minus the rewards, the expert's first

        def of_one(residuals: jax.Array) -> tuple[jax.Array, Metrics]:
            # 1 - gamma stands in V(s) - gamma V(s') already.
            loss, info = dual_loss(v - after, residuals[:num_expert], PEARSON_CHI2.conjugate, 0.0, config.alpha)
            if not config.expert_only:
                loss += jnp.mean(jnp.square(residuals[num_expert:])) / (4.0 * config.alpha)
            return loss, info

        loss, info = jax.tree.map(jnp.mean, jax.vmap(of_one)(residuals))
        info |= {"critic/loss": loss, "critic/mean": jnp.mean(q)}
        info["critic/reward_expert"] = -jnp.mean(residuals[:, :num_expert])
        if not config.expert_only:
            info["critic/reward_offline"] = -jnp.mean(residuals[:, num_expert:])
        return loss, info

    def actor_loss(
        params: PyTree, critic_params: PyTree, batch: Transitions, key: Key
    ) -> tuple[jax.Array, Metrics]:
        loss = -jnp.mean(soft_value(critic_params, params, batch.observations, key))
        return loss, {"actor/loss": loss}

    # Update

    def init(key: Key, batch: Demonstrations) -> TrainState:
        return networks.init(key, inputs(batch.offline))

    def update(state: TrainState, batch: Demonstrations, key: Key) -> tuple[TrainState, Metrics]:
        critic_key, next_key, actor_key = jax.random.split(key, 3)
        parts = [batch.expert] if config.expert_only else [batch.expert, batch.offline]
        union = jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)
        actor_params = state.params["actor"]
        next_v = soft_value(state.target_params["critic"], actor_params, union.next_observations, next_key)
        state, critic_info = networks.step(state, "critic", critic_loss, actor_params, next_v, union, critic_key)
        state, actor_info = networks.step(state, "actor", actor_loss, state.params["critic"], union, actor_key)
        return networks.follow(state), critic_info | actor_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for the MuJoCo locomotion tasks."""
    return ConfigDict(
        {
            "name": "iq_learn",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,  # of the critic
            "actor_learning_rate": 3e-5,
            "discount": 0.99,
            "tau": 0.005,  # target critic
            "num_critics": 1,  # their minimum is V's
            "temperature": 0.01,  # of the entropy
            "expert_only": True,  # the offline form; otherwise the offline data serve as the policy's replay
            "alpha": 1.0,  # weight of the divergence on each half; the authors' 0.5 stands by a mean over both
        }
    )
