"""RLPD: off-policy learning from prior data and own steps, by SAC with a normalised ensemble of critics.

Ball, Smith, Kostrikov and Levine 2023, "Efficient Online Reinforcement Learning with Offline Data", arXiv 2302.02948.
Against SAC (rl_jax/agents/sac.py): LayerNorm in the critics; the target is the minimum over a few critics, drawn anew
for every update (Chen et al. 2021, arXiv 2101.05982); the policy climbs the mean of all critics; the target has no
entropy unless asked; several updates of the critics come before one of the policy and of the temperature. The order and
the temperature's loss, in alpha and not in its logarithm, are the authors' code's. Their symmetric sampling is the
batch's affair: rl_jax/data/transitions.py, `mix_with_prior`.

The batch of one call holds `utd` minibatches, row i being of minibatch i modulo `utd`, so that each has its share of
prior data; the policy sees the last.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.maximum_entropy import temperature_loss
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.initializers import xavier
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Critic


def rlpd(config: ConfigDict, action_dim: int) -> Agent:
    """Makes RLPD; `config` has the fields of `default_config`.

    Raises:
      ValueError: the minimum is over more critics than there are; at an update, a batch that is no `utd` minibatches.
    """
    if config.num_min_critics > config.num_critics:
        raise ValueError(
            f"num_min_critics is {config.num_min_critics}: the target's minimum is over some of the num_critics="
            f"{config.num_critics} critics, set it to at most that"
        )
    actor = SquashedGaussianPolicy(config.hidden_dims, action_dim, config.log_std_min, initializer=xavier)
    critic, drawn = (
        Critic(config.hidden_dims, size, config.layer_norm, initializer=xavier)
        for size in (config.num_critics, config.num_min_critics)
    )
    adam = optax.adam(config.learning_rate)
    networks = Networks({
        "actor": Trained(actor.init, adam),
        "critic": Trained(critic.init, adam, config.tau),
        "temperature": Trained(lambda key: {"log_alpha": jnp.log(jnp.float32(config.initial_temperature))}, adam),
    })

    # Losses

    def target_of(state: TrainState, batch: Transitions, action_key: Key, subset_key: Key) -> jax.Array:
        """r + gamma min_{i in a random subset} Q_i'(s', a'), with a' of the policy; algorithm 1, line 13."""
        policy = actor.apply(state.params["actor"], batch.next_observations)
        next_actions, next_log_probs = policy.sample_and_log_prob(action_key)
        members = jax.random.choice(subset_key, config.num_critics, (config.num_min_critics,), replace=False)
        some = jax.tree.map(lambda x: x[members], state.target_params["critic"])
        next_v = drawn.apply(some, batch.next_observations, next_actions).min(0)
        if config.backup_entropy:
            next_v -= jnp.exp(state.params["temperature"]["log_alpha"]) * next_log_probs
        return td_target(batch.rewards, batch.masks, next_v, config.discount)

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = jnp.mean(squared_error(q, target))
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q), "critic/std": jnp.mean(q.std(0))}

    def actor_loss(
        params: PyTree, critic_params: PyTree, alpha: jax.Array, batch: Transitions, key: Key
    ) -> tuple[jax.Array, Metrics]:
        actions, log_probs = actor.apply(params, batch.observations).sample_and_log_prob(key)
        q = critic.apply(critic_params, batch.observations, actions).mean(0)  # not the minimum
        loss = jnp.mean(alpha * log_probs - q)
        return loss, {"actor/loss": loss, "actor/entropy": -jnp.mean(log_probs)}

    def alpha_loss(params: PyTree, entropy: jax.Array) -> tuple[jax.Array, Metrics]:
        alpha = jnp.exp(params["log_alpha"])
        loss = jnp.mean(temperature_loss(alpha, -entropy[None], -config.target_entropy * action_dim))
        return loss, {"temperature/loss": loss, "temperature/alpha": alpha}

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        if len(batch) % config.utd:
            raise ValueError(f"a batch of {len(batch)} steps is no utd={config.utd} minibatches of equal size")
        minibatches = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, config.utd, *x.shape[1:]), 1, 0), batch)
        actor_key, critic_key = jax.random.split(key)

        def critic_update(state: TrainState, given: tuple[Transitions, Key]) -> tuple[TrainState, Metrics]:
            minibatch, key = given
            target = target_of(state, minibatch, *jax.random.split(key))
            state, info = networks.step(state, "critic", critic_loss, target, minibatch)
            return networks.follow(state), info

        state, infos = jax.lax.scan(critic_update, state, (minibatches, jax.random.split(critic_key, config.utd)))
        last = jax.tree.map(lambda x: x[-1], minibatches)
        alpha = jnp.exp(state.params["temperature"]["log_alpha"])
        state, actor_info = networks.step(
            state, "actor", actor_loss, state.params["critic"], alpha, last, actor_key
        )
        state, alpha_info = networks.step(state, "temperature", alpha_loss, actor_info["actor/entropy"])
        return state, jax.tree.map(jnp.mean, infos) | actor_info | alpha_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns RLPD's settings for vector observations as RLIF's authors use them: its code's are two hidden layers."""
    return ConfigDict(
        {
            "name": "rlpd",
            "hidden_dims": (256, 256, 256),
            "learning_rate": 3e-4,  # of all three
            "discount": 0.99,
            "tau": 0.005,  # target critics
            "num_critics": 10,
            "num_min_critics": 2,  # of the target's minimum, drawn anew for every update
            "layer_norm": True,
            "utd": 1,  # updates of the critics for one of the policy: minibatches of a batch
            "backup_entropy": False,
            "target_entropy": 0.5,  # minus so many nats an action dimension
            "initial_temperature": 1.0,
            "log_std_min": -20.0,
        }
    )
