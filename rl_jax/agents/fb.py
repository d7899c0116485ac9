"""FB: forward-backward representations. Policies for all rewards from data without any, by one vector z each.

Touati and Ollivier 2021, arXiv 2103.07945; Touati, Rapin and Ollivier 2023, arXiv 2209.14935. The order and the
settings follow the authors' code: F and B take one step on one loss, then the policy on F' z, then the targets. Rewards
are not read. `act` takes (observations, latents), latents of length sqrt(D); rl_jax/losses/forward_backward.py says
which one is best for a reward, a goal or an expert's states.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.forward_backward import (
    mixed_latents,
    on_sphere,
    orthonormality_loss,
    pessimistic,
    successor_loss,
    successor_target,
    value_loss,
    value_target,
)
from rl_jax.networks.forward_backward import BackwardMap, ForwardMap, LatentPolicy
from rl_jax.networks.trained import Networks, Trained


def fb(config: ConfigDict, action_dim: int) -> Agent:
    """Makes FB; `config` has the fields of `default_config`."""
    forward = ForwardMap(config.hidden_dim, config.frequencies)
    actor = LatentPolicy(config.hidden_dim, action_dim, config.frequencies)
    networks = Networks({
        "forward": Trained(forward.init, optax.adam(config.learning_rate), config.tau),
        "backward": Trained(backward_map(config).init, optax.adam(config.backward_learning_rate), config.tau),
        "actor": Trained(actor.init, optax.adam(config.actor_learning_rate)),
    })

    # Losses

    def representation_loss(
        params: PyTree, target_params: PyTree, batch: Transitions, latents: jax.Array, next_actions: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Of F and B together. B reads s', so that M counts what follows (s, a)."""
        discounts = config.discount * batch.masks
        f = forward.apply(params["forward"], batch.observations, batch.actions, latents)
        b = embed(config, params, batch.next_observations)
        next_f = forward.apply(target_params["forward"], batch.next_observations, next_actions, latents)
        next_b = embed(config, target_params, batch.next_observations)
        target = successor_target(next_f, next_b, discounts, config.pessimism)
        loss, info = successor_loss(f, b, target)
        orthonormality, orthonormality_info = orthonormality_loss(b)
        loss += config.orthonormality * orthonormality
        if config.value_weight:
            goal = value_target(next_f, b, latents, discounts, config.pessimism)
            value, value_info = value_loss(f, latents, goal)
            loss, info = loss + config.value_weight * value, info | value_info
        return loss, info | orthonormality_info | {"fb/loss": loss}

    def actor_loss(
        params: PyTree, forward_params: PyTree, batch: Transitions, latents: jax.Array, key: Key
    ) -> tuple[jax.Array, Metrics]:
        actions = noisy(actor.apply(params, batch.observations, latents).mode(), key)
        f = forward.apply(forward_params, batch.observations, actions, latents)
        value = jnp.mean(pessimistic(jnp.sum(f * latents, -1), config.actor_pessimism))
        return -value, {"actor/value": value}

    def noisy(actions: jax.Array, key: Key) -> jax.Array:
        """Actions with normal noise that is clipped, in the box."""
        noise = config.policy_noise * jax.random.normal(key, actions.shape)
        return jnp.clip(actions + jnp.clip(noise, -config.noise_clip, config.noise_clip), -1.0, 1.0)

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        latents = jnp.zeros((len(batch), config.latent_dim))
        return networks.init(key, {
            "forward": (batch.observations, batch.actions, latents), "backward": (batch.observations,),
            "actor": (batch.observations, latents),
        })

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        latent_key, next_key, actor_key = jax.random.split(key, 3)
        goals = embed(config, state.params, batch.next_observations)
        latents = mixed_latents(latent_key, goals, config.goal_share)
        next_actions = actor.apply(state.params["actor"], batch.next_observations, latents).mode()
        both = {name: state.params[name] for name in ("forward", "backward")}
        gradients, info = jax.grad(representation_loss, has_aux=True)(
            both, state.target_params, batch, latents, noisy(next_actions, next_key)
        )
        for name in both:
            state, norms = networks.apply_gradient(state, name, gradients[name])
            info |= norms
        state, actor_info = networks.step(
            state, "actor", actor_loss, state.params["forward"], batch, latents, actor_key
        )
        return networks.follow(state), info | actor_info

    # Act

    def policy(params: PyTree, inputs: tuple[jax.Array, jax.Array]) -> Distribution:
        return actor.apply(params["actor"], *inputs)

    return Agent(init, update, acting(policy), policy)


def backward_map(config: ConfigDict) -> BackwardMap:
    return BackwardMap(config.backward_hidden_dim, config.latent_dim, config.frequencies)


def embed(config: ConfigDict, params: PyTree, observations: jax.Array) -> jax.Array:
    """B(s) at length sqrt(D), [..., D], of observations [..., O]; `params` are those of all networks."""
    return on_sphere(backward_map(config).apply(params["backward"], observations))


def default_config() -> ConfigDict:
    """Returns the authors' settings for DeepMind Control."""
    return ConfigDict(
        {
            "name": "fb",
            "latent_dim": 50,  # D; 100 in walker and the point mass
            "hidden_dim": 1024,  # of F and of the policy, whose streams end in half of it
            "backward_hidden_dim": 256,
            "frequencies": 0,  # of waves beside the observations, ours: rl_jax/networks/forward_backward.py
            "learning_rate": 1e-4,  # of F
            "backward_learning_rate": 1e-4,  # 1e-6 in the point mass, and so the next
            "actor_learning_rate": 1e-4,
            "discount": 0.98,  # 0.99 in the point mass
            "tau": 0.01,  # target networks
            "goal_share": 0.5,  # of the latents in training that are B of a state; the others are uniform
            "orthonormality": 1.0,  # weight of E[B B'] = I
            "value_weight": 0.0,  # of the Bellman error of F' z; 0.01 where it is used
            "pessimism": 0.0,  # of the target's two networks: 0 their mean, 0.5 the smaller
            "actor_pessimism": 0.5,  # of what the policy climbs
            "policy_noise": 0.2,
            "noise_clip": 0.3,
        }
    )
