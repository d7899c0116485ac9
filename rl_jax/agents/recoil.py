"""ReCOIL: imitation that matches mixtures of visitations, so that only the mixture has to be covered. No discriminator.

Sikchi, Zheng, Zhang and Niekum 2023, "Dual RL: Unification and New Methods for Reinforcement and Imitation Learning",
arXiv 2302.08560. A batch is `Demonstrations`; rewards are not read. V is the soft maximum of Q on the offline half, as
in XQL, and the policy clones that half, weighted. The authors' code, which is the default, does not train Q with the
objective that the paper states but with fixed targets; `form` offers both.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.agents.weighted_cloning import implicit_networks, weighted_cloning
from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Demonstrations, Transitions
from rl_jax.losses.divergence import PEARSON_CHI2
from rl_jax.losses.dual import mixture_dual_loss
from rl_jax.losses.policy_learning import advantage_weights
from rl_jax.losses.value_learning import gumbel_loss, squared_error, td_target
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Critic, Value

FORMS = ("fixed_targets", "objective")
REWARD = 2.0  # +-REWARD a step: what the fixed targets add up to, 2 / (1 - discount), is 200 at the authors' discount


def recoil(config: ConfigDict, action_dim: int) -> Agent:
    """Makes ReCOIL; `config` has the fields of `default_config`.

    Raises:
      ValueError: `config.form` is not one of FORMS.
    """
    if config.form not in FORMS:
        raise ValueError(unknown("form", config.form, FORMS))
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    critic = Critic(config.hidden_dims, ensemble_size=2)
    value = Value(config.hidden_dims)
    networks = implicit_networks(config, actor, critic, value)

    # Losses

    def value_loss(params: PyTree, target_q: Demonstrations, batch: Demonstrations) -> tuple[jax.Array, Metrics]:
        """Of the offline half alone; the expert's half counts for the scale of the exponential."""
        v = of_both(lambda part: value.apply(params, part.observations), batch)
        errors = jax.tree.map(jnp.subtract, target_q, v)
        loss = jnp.mean(gumbel_loss(errors.offline, config.gumbel_beta, config.max_clip, beside=errors.expert))
        return loss, {"value/loss": loss, "value/mean": jnp.mean(v.offline)}

    actor_loss = weighted_cloning(actor)

    def fixed_targets(q_expert: jax.Array, q_offline: jax.Array, next_v: PyTree, batch: Demonstrations) -> jax.Array:
        """The authors' code: experts are worth all that there is, a step of the offline data costs REWARD."""
        bound = REWARD / (1.0 - config.discount)
        offline = batch.offline
        after = offline.masks * next_v.offline - (1.0 - offline.masks) * bound
        target = td_target(jnp.full_like(after, -REWARD), jnp.ones_like(after), after, config.discount)
        best = jnp.full_like(q_expert[0], bound)
        both = jnp.mean(squared_error(q_expert, best), -1) + jnp.mean(squared_error(q_offline, target), -1)
        return jnp.sum(both) / 2

    def objective(q_expert: jax.Array, q_offline: jax.Array, next_v: PyTree, batch: Demonstrations) -> jax.Array:
        """The paper's dual-Q with chi2; its term of the initial states is V's and has no gradient for Q."""

        def of_one(q_expert: jax.Array, q_offline: jax.Array) -> jax.Array:
            residuals = [
                td_target(jnp.zeros_like(part.masks), part.masks, v, config.discount) - q
                for part, v, q in [(batch.expert, next_v.expert, q_expert), (batch.offline, next_v.offline, q_offline)]
            ]
            loss, _ = mixture_dual_loss(
                jnp.zeros_like(q_expert), *residuals, PEARSON_CHI2.conjugate, config.discount, config.mixture
            )
            return loss

        return jnp.sum(jax.vmap(of_one)(q_expert, q_offline))

    def critic_loss(params: PyTree, next_v: PyTree, batch: Demonstrations) -> tuple[jax.Array, Metrics]:
        q_expert = critic.apply(params, batch.expert.observations, batch.expert.actions)
        q_offline = critic.apply(params, batch.offline.observations, batch.offline.actions)
        loss = (objective if config.form == "objective" else fixed_targets)(q_expert, q_offline, next_v, batch)
        return loss, {
            "critic/loss": loss, "critic/mean_expert": jnp.mean(q_expert), "critic/mean_offline": jnp.mean(q_offline),
        }

    # Update

    def init(key: Key, batch: Demonstrations) -> TrainState:
        return networks.init(key, inputs(batch.offline))

    def update(state: TrainState, batch: Demonstrations, key: Key) -> tuple[TrainState, Metrics]:
        del key
        offline, target_params = batch.offline, state.target_params["critic"]
        target_q = of_both(lambda part: critic.apply(target_params, part.observations, part.actions).min(0), batch)
        state, value_info = networks.step(state, "value", value_loss, target_q, batch)
        v = value.apply(state.params["value"], offline.observations)
        weights = advantage_weights(target_q.offline - v, config.temperature, config.max_weight)
        state, actor_info = networks.step(state, "actor", actor_loss, weights, offline)
        next_v = of_both(lambda part: value.apply(state.params["value"], part.next_observations), batch)
        state, critic_info = networks.step(state, "critic", critic_loss, next_v, batch)
        return networks.follow(state), value_info | actor_info | critic_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def of_both(function: Callable[[Transitions], jax.Array], batch: Demonstrations) -> Demonstrations:
    """The function's values of the expert's half and of the offline half."""
    return Demonstrations(function(batch.expert), function(batch.offline))


def default_config() -> ConfigDict:
    """Returns the authors' settings for the MuJoCo locomotion tasks."""
    return ConfigDict(
        {
            "name": "recoil",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,
            "decay_steps": 1_000_000,  # of the policy's cosine schedule; the authors' is the whole run
            "discount": 0.99,
            "tau": 0.005,  # target critic
            "form": "fixed_targets",  # of the authors' code, or the paper's "objective"
            "mixture": 0.5,  # beta of the objective: the expert's share; the fixed targets do not use it
            "gumbel_beta": 5.0,  # temperature of V; the authors double it, 2.5 to 20, until Q stops diverging
            "max_clip": 7.0,  # largest (Q - V) / gumbel_beta that V still follows
            "temperature": 3.0,  # of the policy's weights
            "max_weight": 100.0,  # cap of exp(temperature A), in the authors' code
        }
    )
