"""CORL's ReBRAC (github.com/tinkoff-ai/CORL, in JAX): its loop over an epoch of updates is one jitted call.

`Variant.ours` brings our configuration to its widths, depths and batch; it takes our number of updates in an epoch.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmark.measuring import Variant, queued
from experiments.benchmark.peers.checkout import load
from rl_jax.data.episodes import Episodes


def corl_rebrac(episodes: Episodes, folder: Path, fused: int) -> Variant:
    """ReBRAC with CORL's own defaults.

    Args:
      folder: algorithms/ of a checkout.
      fused: updates in an epoch.

    Raises:
      ValueError: the agent's file is not there.
    """
    module = load(folder / "offline" / "rebrac.py")
    config, transitions = module.Config(), episodes.to_transitions(("next_actions",))
    data = {
        "states": transitions.observations, "actions": transitions.actions, "rewards": transitions.rewards,
        "next_states": transitions.next_observations, "next_actions": transitions.next_actions,
        "dones": 1 - transitions.masks,
    }
    data = {name: jnp.asarray(column) for name, column in data.items()}
    example = data["states"][:1], data["actions"][:1]
    actor_network = module.DetActor(
        example[1].shape[1], config.hidden_dim, config.actor_ln, config.actor_n_hiddens
    )
    critic_network = module.EnsembleCritic(config.hidden_dim, 2, config.critic_ln, config.critic_n_hiddens)
    states = []
    for kind, network, inputs, rate in [
        (module.ActorTrainState, actor_network, example[:1], config.actor_learning_rate),
        (module.CriticTrainState, critic_network, example, config.critic_learning_rate),
    ]:
        params = network.init(jax.random.PRNGKey(0), *inputs)
        targets = jax.tree.map(jnp.copy, params)
        tx = module.optax.adam(learning_rate=rate)
        states.append(kind.create(apply_fn=network.apply, params=params, target_params=targets, tx=tx))
    both = {
        "gamma": config.gamma, "actor_bc_coef": config.actor_bc_coef, "critic_bc_coef": config.critic_bc_coef,
        "tau": config.tau, "policy_noise": config.policy_noise, "noise_clip": config.noise_clip,
    }
    full = functools.partial(module.update_td3, **both, normalize_q=config.normalize_q)
    critic_alone = functools.partial(module.update_td3_no_targets, **both)
    names = ("critic_loss", "q_min", "actor_loss", "bc_mse_policy", "bc_mse_random", "action_mse")

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> Any:
        def step(i: jax.Array, carry: Any) -> Any:
            key, actor, critic, metrics = carry
            key, batch_key = jax.random.split(key)
            rows = jax.random.randint(batch_key, (config.batch_size,), 0, len(data["states"]))
            batch = {name: column[rows] for name, column in data.items()}
            arguments = {"key": key, "actor": actor, "critic": critic, "batch": batch, "metrics": metrics}
            due = i % config.policy_freq == 0
            return jax.lax.cond(due, lambda: full(**arguments), lambda: critic_alone(**arguments))

        carry = (key, *state, module.Metrics.create(names))
        return jax.lax.fori_loop(0, fused, step, carry)[1:3]

    ours = {"agent.hidden_dims": (config.hidden_dim,) * config.critic_n_hiddens, "batch_size": config.batch_size}
    return queued(epoch, tuple(states), fused=fused)._replace(ours=ours)
