"""L2M: a pre-trained decision transformer stays as it is, and a task learns a modulator that its states select.

Schmied et al. 2023, "Learning to Modulate pre-trained Models in RL", arXiv 2306.14884, with what it is held against:
fine-tuning of the whole model or of a part (`trainable`), one modulator for all tasks (a pool of 1), prompts from a
pool (L2P), and fine-tuning with a penalty (EWC, Kirkpatrick et al. 2017, arXiv 1612.00796; or L2). Settings follow the
authors' code (ml-jku/L2M).

Pre-training fits the model and, from its states alone, `old_keys` keys: what selects one of these when it acts is not
modulated (`n_pretrain_keys` of the authors' code).
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.sequences import Sequences
from rl_jax.networks import modulation
from rl_jax.networks.multi_domain_transformer import UNUSED, MultiDomainTransformer, from_bins, to_bins
from rl_jax.networks.trained import global_norm


class TaskBatch(NamedTuple):
    """What an update reads.

    Attributes:
      sequences: [B, K, ...].
      task: int32 scalar, its number in the sequence of tasks; counts are penalised from number 1 on.
      begins: bool scalar, whether this is its first update.
      previous: batches [F, B, K, ...] of the task before it, for EWC; None where nothing asks for them.
    """

    sequences: Sequences
    task: jax.Array
    begins: jax.Array
    previous: Sequences | None = None


class Modulated(NamedTuple):
    """As `Agent`, with what says how it chooses.

    Attributes:
      init: (key, sequences) -> TrainState.
      update: (state, TaskBatch, key) -> (state, metrics).
      act: (params, sequences, key, temperature) -> actions [B, A], UNUSED where the last step's are.
      chosen: (params, sequences) -> [B] int32, the member that acts first, or pool_size and above for an old key.
      trained: params -> the numbers that one window trains, of a pool those of its members, and those of the model.
    """

    init: Callable[..., TrainState]
    update: Callable[..., tuple[TrainState, Metrics]]
    act: Callable[..., jax.Array]
    chosen: Callable[..., jax.Array]
    trained: Callable[[PyTree], tuple[float, int]]


def l2m(config: ConfigDict, action_dim: int, pretrains: bool) -> Modulated:
    """Makes the agent; `config` has the fields of `default_config`.

    Raises:
      ValueError: there is no such kind of modulator or penalty.
    """
    kind, size = config.modulator, config.pool_size
    if kind and kind not in modulation.KINDS:
        raise ValueError(unknown("kind in config.agent.modulator", kind, modulation.KINDS))
    if config.penalty not in ("", "ewc", "l2"):
        raise ValueError(unknown("penalty in config.agent.penalty", config.penalty, ("ewc", "l2")))
    model = MultiDomainTransformer(
        action_dim, config.num_bins, config.embedding_dim, config.num_layers, config.num_heads, config.max_timesteps,
        config.dropout,
    )
    kind, trainable, group = ("", ".*", "old") if pretrains else (kind, config.trainable, "pool")
    blocks = tuple(f"Block_{i}" for i in range(config.num_layers))
    shared = size == config.top_k  # all members always: there is nothing to select

    def rate(step: jax.Array) -> jax.Array:
        """Linear over the warm-up, and half a cosine down to 0 where there is a decay."""
        full = config.learning_rate * jnp.minimum((step + 1) / max(config.warmup_steps, 1), 1.0)
        if not config.decay_steps:
            return full
        return full * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step / config.decay_steps, 1.0)))

    tx, clip = optax.adamw(rate, weight_decay=config.weight_decay), optax.clip_by_global_norm(config.clip_norm)

    def part(params: PyTree) -> PyTree:
        """The arrays of the model that are trained, by path."""
        flat = flatten_dict(params, sep="/")
        return {path: x for path, x in flat.items() if trainable and re.search(trainable, path)}

    def merged(params: PyTree, trained: PyTree) -> PyTree:
        return unflatten_dict(flatten_dict(params, sep="/") | trained, sep="/")

    def logits(
        params: PyTree, pool: PyTree, chosen: jax.Array, gate: jax.Array, sequences: Sequences, key: Key | None = None
    ) -> jax.Array:
        """[B, K, A, bins], each row with its chosen members [B, k] where `gate` [B] is 1."""
        inputs, prompt = vars(sequences), None
        rngs = None if key is None else {"dropout": key}
        if kind == "prompt":
            prompt = pool["modulators"][chosen].reshape(len(chosen), -1, config.embedding_dim)
            prompt = prompt, jnp.broadcast_to(gate[:, None], prompt.shape[:2])
        if kind in ("", "prompt"):
            return model.apply(params, **inputs, prompt=prompt, deterministic=key is None, rngs=rngs)
        own = jax.tree.map(lambda x: x[chosen[:, 0]], pool["modulators"])
        with nn.intercept_methods(modulation.modulating(kind, own, gate, config.lora_scale)):
            return model.apply(params, **inputs, deterministic=key is None, rngs=rngs)

    def similarity(params: PyTree, keys: jax.Array, sequences: Sequences) -> jax.Array:
        query = model.apply(params, sequences.observations, sequences.mask, method=model.query)
        return modulation.cosines(jax.lax.stop_gradient(query), keys)

    # Losses

    def cross_entropy(predicted: jax.Array, sequences: Sequences) -> jax.Array:
        """Of the bins, mean over the numbers that steps and tasks have."""
        bins = to_bins(sequences.actions, config.num_bins)
        there = (bins < config.num_bins) * sequences.mask[..., None]
        losses = optax.softmax_cross_entropy_with_integer_labels(predicted, jnp.minimum(bins, config.num_bins - 1))
        return jnp.sum(there * losses) / jnp.maximum(jnp.sum(there), 1.0)

    def penalty(trained: PyTree, extra: PyTree) -> jax.Array:
        """weight * sum of importance * (theta - theta*)^2; the authors' code has no factor 1/2."""
        terms = jax.tree.map(lambda f, x, x0: jnp.sum(f * jnp.square(x - x0)), extra["importance"], trained,
                             extra["anchor"])
        return config.penalty_weight * sum(jax.tree.leaves(terms))

    def loss(
        trained: PyTree, members: PyTree, state: TrainState, sequences: Sequences, chosen: jax.Array, key: Key | None
    ) -> tuple[jax.Array, Metrics]:
        params = merged(state.params["model"], trained)
        gate = jnp.ones(len(sequences.mask))
        fit = cross_entropy(logits(params, members, chosen, gate, sequences, key), sequences)
        total, metrics = fit, {"loss/cross_entropy": fit}
        if members:
            pulled = modulation.pull(similarity(params, members["keys"], sequences), chosen)
            total, metrics = total - config.pull * pulled, metrics | {"loss/pull": pulled}
        if config.penalty and not pretrains:
            total += penalty(trained, state.extra)
        return total, metrics

    # Update

    def init(key: Key, sequences: Sequences) -> TrainState:
        model_key, old_key, pool_key = jax.random.split(key, 3)
        inputs, width = vars(sequences), config.embedding_dim
        old = {"keys": jax.random.uniform(old_key, (config.old_keys, width), minval=-1.0, maxval=1.0)}
        params = {"model": model.init(model_key, **inputs), "old": old}
        if kind:
            params["pool"] = modulation.init_pool(pool_key, kind, size, blocks, width, config.rank, config.length)
        opt_state, extra, own = {"model": tx.init(part(params["model"]))}, {}, part(params["model"])
        if members := params.get(group):
            number = len(members["keys"])
            opt_state[group] = jax.vmap(tx.init)(members)
            extra = {"counts": jnp.zeros(number), "inverse": jnp.ones(number), "updates": jnp.zeros(())}
        if config.penalty and not pretrains:
            extra |= {"anchor": jax.tree.map(jnp.copy, own), "importance": jax.tree.map(jnp.zeros_like, own)}
        return TrainState.create(params, opt_state, extra=extra)

    def consolidate(state: TrainState, previous: Sequences | None) -> PyTree:
        """The anchor where the model is now, and the importance of its arrays for what was learned last on top."""
        own = part(state.params["model"])
        if config.penalty == "l2":
            return {"anchor": own, "importance": jax.tree.map(jnp.ones_like, own)}
        none = jnp.zeros((len(previous.mask[0]), 1), jnp.int32)

        def squared(sequences: Sequences) -> PyTree:
            def fit(trained: PyTree) -> jax.Array:
                params = merged(state.params["model"], trained)
                return cross_entropy(logits(params, {}, none, jnp.ones(len(none)), sequences), sequences)

            return jax.tree.map(jnp.square, jax.grad(fit)(own))

        found = jax.tree.map(lambda x: jnp.mean(x, 0), jax.lax.map(squared, previous))
        return {"anchor": own, "importance": jax.tree.map(jnp.add, state.extra["importance"], found)}

    def update(state: TrainState, batch: TaskBatch, key: Key) -> tuple[TrainState, Metrics]:
        sequences, extra = batch.sequences, state.extra
        if config.penalty and not pretrains:
            kept = {name: extra[name] for name in ("anchor", "importance")}
            extra = extra | jax.lax.cond(batch.begins, lambda: consolidate(state, batch.previous), lambda: kept)
            state = state.replace(extra=extra)
        trained, members = part(state.params["model"]), state.params.get(group, {})
        chosen = jnp.zeros((len(sequences.mask), 1), jnp.int32)
        if members:
            inverse = jnp.where(batch.begins, modulation.inverse_counts(extra["counts"]), extra["inverse"])
            near = similarity(state.params["model"], members["keys"], sequences)
            penalised = config.count_penalty & (batch.task > 0)
            chosen = modulation.select(near, config.top_k if kind else 1, jnp.where(penalised, inverse, 1.0))
            counts = modulation.count(extra["counts"], extra["updates"], chosen)
            extra = extra | {"counts": counts, "inverse": inverse, "updates": extra["updates"] + 1.0}
        dropout = key if config.dropout else None
        gradient, metrics = jax.grad(loss, (0, 1), has_aux=True)(trained, members, state, sequences, chosen, dropout)
        metrics["grad_norm"] = global_norm(gradient)
        gradient, _ = clip.update(gradient, clip.init(gradient))
        opt_state = dict(state.opt_state)
        updates, opt_state["model"] = tx.update(gradient[0], opt_state["model"], trained)
        params = state.params | {"model": merged(state.params["model"], optax.apply_updates(trained, updates))}
        if members:
            selected = jnp.any(chosen.reshape(-1, 1) == jnp.arange(len(members["keys"])), 0)
            params[group], opt_state[group] = modulation.step_of_selected(
                tx, gradient[1], opt_state[group], members, selected
            )
            metrics["selected"] = jnp.sum(selected).astype(jnp.float32)
        return state.replace(params=params, opt_state=opt_state, extra=extra), metrics

    # Act

    def choose(params: PyTree, sequences: Sequences) -> jax.Array:
        """[B, k]: without counts, and among the old keys too."""
        if not kind or shared:
            return jnp.broadcast_to(jnp.arange(max(size, 1)), (len(sequences.mask), max(size, 1)))
        keys = params["pool"]["keys"]
        if config.keeps_old:
            keys = jnp.concatenate([keys, params["old"]["keys"]])
        return modulation.select(similarity(params["model"], keys, sequences), config.top_k)

    def act(params: PyTree, context: Sequences, key: Key, temperature: jax.Array | float) -> jax.Array:
        del key, temperature  # the most likely bin of each number
        chosen = choose(params, context)
        gate = (chosen[:, 0] < max(size, 1)).astype(jnp.float32)
        chosen = jnp.minimum(chosen, max(size, 1) - 1)

        def number(place: jax.Array, actions: jax.Array) -> jax.Array:
            predicted = logits(params["model"], params.get("pool"), chosen, gate, context.replace(actions=actions))
            value = from_bins(jnp.argmax(predicted[:, -1, place], -1), config.num_bins)
            old = actions[:, -1, place]
            return actions.at[:, -1, place].set(jnp.where(old >= UNUSED, old, value))

        return jax.lax.fori_loop(0, action_dim, number, context.actions)[:, -1]

    def trained(params: PyTree) -> tuple[float, int]:
        own = sum(x.size for x in part(params["model"]).values())
        if kind:
            own += sum(x.size for x in jax.tree.leaves(params["pool"])) * config.top_k / size
        return own, sum(x.size for x in jax.tree.leaves(params["model"]))

    return Modulated(init, update, act, lambda params, sequences: choose(params, sequences)[:, 0], trained)


def default_config() -> ConfigDict:
    """Returns the settings of the authors' 40M model and of L2M with LoRA."""
    return ConfigDict(
        {
            "name": "l2m",
            "embedding_dim": 768,
            "num_layers": 6,
            "num_heads": 12,
            "num_bins": 64,
            "max_timesteps": 1000,
            "dropout": 0.1,
            "learning_rate": 1e-4,
            "warmup_steps": 0,
            "decay_steps": 0,  # updates until the rate has gone down to 0 by half a cosine; 0: it stays
            "weight_decay": 0.01,
            "clip_norm": 0.25,
            "trainable": "",  # a regex of the model's arrays that are trained; "" for none
            "modulator": "lora",  # or "ia3", "adapter", "prefix", "prompt", and "" for none
            "pool_size": 30,  # 1: all tasks share it
            "top_k": 1,
            "rank": 8,
            "lora_scale": 2.0,  # alpha / rank
            "length": 5,  # of a prefix or a prompt
            "pull": 0.5,
            "count_penalty": True,
            "old_keys": 100,  # of pre-training
            "keeps_old": True,  # what selects an old key is not modulated
            "penalty": "",  # on the trained part of the model: "ewc" or "l2"
            "penalty_weight": 400.0,
        }
    )
