"""JAX-CORL (github.com/nissymori/JAX-CORL) as its own training loop runs it.

`update_n_times` unrolls 8 updates in one jitted call; the decision transformer makes one a call and cuts its sequences
in a call of their own.

A rate is compared at equal sizes: `Variant.ours` brings our configuration to its widths, depths, batch and numbers of
sampled actions. Where our agent cannot take its size it takes ours (AWAC's policy, deeper than its critic; LayerNorm in
IQL's V). What neither can change stays: LayerNorm in the critics of its AWAC and TD3+BC.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.measuring import Variant, queued
from experiments.benchmark.peers.checkout import load
from rl_jax.data.episodes import Episodes


class Algorithm(NamedTuple):
    """One of its files.

    Attributes:
      file: without ending.
      name: of the class in it.
      sizes: their fields by ours.
      theirs: fields of its own that are set otherwise.
    """

    file: str
    name: str
    sizes: Mapping[str, str] = {"agent.hidden_dims": "hidden_dims"}
    theirs: Mapping[str, Any] = {}


DEEP = (256, 256, 256)
ALGORITHMS = {
    "awac": Algorithm(
        "awac", "AWAC", {"agent.hidden_dims": "critic_hidden_dims"},
        {"actor_hidden_dims": DEEP, "critic_hidden_dims": DEEP},
    ),
    "cql": Algorithm("cql", "CQL", {"agent.hidden_dims": "hidden_dims", "agent.num_samples": "cql_n_actions"}),
    "iql": Algorithm("iql", "IQL", theirs={"layer_norm": False}),
    "td3_bc": Algorithm("td3bc", "TD3BC"),
    "xql": Algorithm(
        "xql", "XQL", {"agent.hidden_dims": "hidden_dims", "agent.random_actions": "sample_random_times"}
    ),
}


def jax_corl(name: str, episodes: Episodes, folder: Path) -> Variant | None:
    """Its update of an agent with its own defaults; None for an agent that it does not have.

    Args:
      folder: algos/ of a checkout.

    Raises:
      ValueError: the agent's file is not there.
    """
    if name == "dt":
        return decision_transformer(episodes, folder)
    if name not in ALGORITHMS:
        return None
    algorithm = ALGORITHMS[name]
    module = load(folder / f"{algorithm.file}.py")
    transitions = episodes.to_transitions()
    config = getattr(module, f"{algorithm.name}Config")()
    for field, value in algorithm.theirs.items():
        setattr(config, field, value)
    if name == "cql":
        config.action_dim = transitions.actions.shape[1]
        config.target_entropy = -float(config.action_dim)
    # Networks read the module's own.
    module.config = config
    dones = 1 - transitions.masks
    fields = {"dones": dones, "dones_float": dones} | vars(transitions)
    data = module.Transition(**{field: jnp.asarray(fields[field]) for field in module.Transition._fields})
    create = getattr(module, f"create_{algorithm.file}_train_state")
    state = create(jax.random.PRNGKey(0), data.observations[0], data.actions[0], config)
    update = jax.jit(getattr(module, algorithm.name)().update_n_times, static_argnums=(3,))
    sizes = {"batch_size": "batch_size", **algorithm.sizes}
    ours = {field: getattr(config, theirs) for field, theirs in sizes.items()}
    step = lambda state, key: update(state, data, key, config)[0]  # noqa: E731
    return queued(step, state, fused=config.n_jitted_updates)._replace(ours=ours)


def decision_transformer(episodes: Episodes, folder: Path) -> Variant:
    """The decision transformer: episodes padded to the longest, one jitted call for a batch and one for its update."""
    module = load(folder / "dt.py")
    config, lengths = module.DTConfig(), episodes.lengths
    rows = [np.arange(start, start + length) for start, length in zip(episodes.starts, lengths, strict=True)]

    def padded(column: np.ndarray) -> jax.Array:
        out = np.zeros((len(rows), lengths.max(), *column.shape[1:]), column.dtype)
        for episode, steps in enumerate(rows):
            out[episode, : len(steps)] = column[steps]
        return jnp.asarray(out)

    count = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    returns = (episodes.returns_to_go() / config.rtg_scale).astype(np.float32)
    columns = (count, episodes.observations, episodes.actions, returns[:, None], np.ones(len(count), np.float32))
    data, lengths = module.Trajectory(*map(padded, columns)), jnp.asarray(lengths)
    sizes = episodes.observations.shape[1], episodes.actions.shape[1]
    update = jax.jit(module.DT().update)

    def step(state: Any, key: jax.Array) -> Any:
        data_key, update_key = jax.random.split(key)
        batch = module.sample_traj_batch(data_key, data, config.batch_size, config.context_len, len(rows), lengths)
        return update(state, batch, update_key)[0]

    ours = {
        "agent.embedding_dim": config.embed_dim, "agent.num_layers": config.n_blocks, "agent.num_heads": config.n_heads,
        "dataset.context_length": config.context_len, "batch_size": config.batch_size,
    }
    return queued(step, module.create_dt_train_state(jax.random.PRNGKey(0), *sizes, config))._replace(ours=ours)
