"""A pool of small modulators of a frozen transformer, selected by keys: the equations of L2M and of its rivals.

Schmied et al. 2023, "Learning to Modulate pre-trained Models in RL", arXiv 2306.14884; where paper and the authors'
code (ml-jku/L2M) differ, the code. A pool of M members has keys k [M, D] and, by the name of a transformer's block,
modulators whose arrays begin with M. Sources of these: LoRA, Hu et al. 2021 (arXiv 2106.09685); IA3, Liu et al. 2022
(arXiv 2205.05638); adapters, Houlsby et al. 2019 (arXiv 1902.00751); prefixes, Li and Liang 2021 (arXiv 2101.00190);
prompts from a pool, L2P, Wang et al. 2022 (arXiv 2112.08654).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import xlogy

from rl_jax.core.program import Key, PyTree
from rl_jax.networks.transformer import SelfAttention

KINDS = ("lora", "ia3", "adapter", "prefix", "prompt")
RARE = 1e-6  # is added to a selection's share, so that it can be inverted


# Selection


def cosines(query: jax.Array, keys: jax.Array) -> jax.Array:
    """cos(q, k) [B, M] of queries [B, D] and keys [M, D]."""
    def unit(x: jax.Array) -> jax.Array:
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    return unit(query) @ unit(keys).T


def inverse_counts(counts: jax.Array) -> jax.Array:
    """1 / (share of selections), normalised to a sum of 1: [M] of [M]."""
    inverse = 1.0 / (counts + RARE)
    return inverse / jnp.sum(inverse)


def select(similarity: jax.Array, top_k: int, inverse: jax.Array | None = None) -> jax.Array:
    """The members [B, top_k] int32 of highest score: cos, or in training (cos + 1) / 2 times the inverse counts [M].

    The cosine is moved to [0, 1] before it is multiplied: a negative one would be favoured by what penalises.
    """
    scores = similarity if inverse is None else (similarity + 1.0) / 2.0 * inverse
    return jax.lax.top_k(scores, top_k)[1]


def pull(similarity: jax.Array, chosen: jax.Array) -> jax.Array:
    """The mean over the batch of the sum of cos(q, k) over the chosen keys; a loss subtracts it."""
    return jnp.mean(jnp.sum(jnp.take_along_axis(similarity, chosen, 1), 1))


def count(counts: jax.Array, updates: jax.Array, chosen: jax.Array) -> jax.Array:
    """The running mean [M], after `updates` batches, of the share of each member among the chosen ones [B, k]."""
    share = jnp.mean(jax.nn.one_hot(chosen.reshape(-1), counts.shape[0]), 0)
    return counts + (share - counts) / (updates + 1.0)


def step_of_selected(
    tx: optax.GradientTransformation, gradient: PyTree, opt_state: PyTree, members: PyTree, selected: jax.Array
) -> tuple[PyTree, PyTree]:
    """(members, optimiser states) after a step of those that `selected` [M] bool has.

    Each member has an optimiser of its own, `jax.vmap(tx.init)(members)`. One that is not selected keeps its bits, and
    so does its state: weight decay and momentum would move it although its gradient is 0.
    """
    updates, stepped = jax.vmap(tx.update)(gradient, opt_state, members)

    def keep(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(selected.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(keep, (optax.apply_updates(members, updates), stepped), (members, opt_state))


def purity(counts: np.ndarray) -> float:
    """I(task; member) / H(task) of how often each of T equally frequent tasks selects each member, [T, M]: 1 where the
    member gives the task away, 0 where it says nothing."""
    joint = counts / counts.sum(1, keepdims=True) / len(counts)
    independent = joint.sum(0) / len(counts)
    return float(np.sum(xlogy(joint, joint) - xlogy(joint, independent)) / math.log(len(counts)))


# Modulators


def init_pool(
    key: Key, kind: str, size: int, blocks: tuple[str, ...], width: int, rank: int, length: int
) -> PyTree:
    """{"keys": [M, D], "modulators": by block, or the tokens of a prompt}.

    Keys, prefixes and prompts are uniform in [-1, 1]; what else is fresh changes nothing. LoRA: A uniform as Kaiming's
    for a linear layer, B zero, of q, v and of the perceptron's hidden layer; IA3: ones; adapters: normal with deviation
    0.02, and zero on the way up.

    Args:
      rank: of LoRA, or the width of an adapter.
      length: P, the tokens of a prompt, or the keys and values of a prefix in each block.
    """
    key_key, own_key = jax.random.split(key)
    keys = jax.random.uniform(key_key, (size, width), minval=-1.0, maxval=1.0)
    if kind == "prompt":
        return {"keys": keys, "modulators": jax.random.uniform(own_key, (size, length, width), minval=-1.0, maxval=1.0)}

    def low_rank(key: Key, inputs: int) -> PyTree:
        bound = 1.0 / math.sqrt(inputs)
        a = jax.random.uniform(key, (size, inputs, rank), minval=-bound, maxval=bound)
        return {"a": a, "b": jnp.zeros((size, rank, inputs))}

    def adapter(key: Key) -> PyTree:
        return {"a": 0.02 * jax.random.normal(key, (size, width, rank)), "b": jnp.zeros((size, rank, width))}

    def block(key: Key) -> PyTree:
        if kind == "prefix":
            k, v = jax.random.uniform(key, (2, size, length, width), minval=-1.0, maxval=1.0)
            return {"k": k, "v": v}
        one, two, three = jax.random.split(key, 3)
        if kind == "lora":
            return {"q": low_rank(one, width), "v": low_rank(two, width), "hidden": low_rank(three, 4 * width)}
        if kind == "ia3":
            return {"k": jnp.ones((size, width)), "v": jnp.ones((size, width)), "hidden": jnp.ones((size, 4 * width))}
        return {"attention": adapter(one), "perceptron": adapter(two)}

    drawn = zip(blocks, jax.random.split(own_key, len(blocks)), strict=True)
    return {"keys": keys, "modulators": {name: block(key) for name, key in drawn}}


def modulating(kind: str, own: PyTree, gate: jax.Array, scale: float) -> Callable[..., Any]:
    """What `flax.linen.intercept_methods` takes, so that a `Transformer` is modulated for each row of the batch.

        LoRA     W x + scale * B A x           of q, v and of the hidden layer, W x being its output there
        IA3      l * x                         of k, v and of what follows the hidden layer's activation
        adapter  x + B swish(A x)              behind attention and perceptron
        prefix   [k', k], [v', v]              keys and values before those of the tokens

    Args:
      own: each row's modulator, arrays [B, ...] by block.
      gate: [B], 0 for a row that is not modulated and 1 for others.
    """
    gate, reached = gate[:, None, None], SelfAttention if kind == "prefix" else nn.Dense

    def product(x: jax.Array, pair: PyTree) -> jax.Array:
        return gate * scale * (x @ pair["a"]) @ pair["b"]

    def scaled(x: jax.Array, by: jax.Array) -> jax.Array:
        return x * (1.0 + gate * (by[:, None] - 1.0))

    def adapted(x: jax.Array, pair: PyTree) -> jax.Array:
        return x + gate * nn.swish(x @ pair["a"]) @ pair["b"]

    def intercept(call: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module, found = context.module, [part for part in context.module.path if part in own]
        if not (isinstance(module, reached) and found and context.method_name == "__call__"):
            return call(*args, **kwargs)
        part, x, name = own[found[0]], args[0], module.name
        if kind == "prefix":
            return call(*args, **kwargs, prefix=(part["k"], part["v"], gate[:, 0, 0] > 0.0))
        if name == "qkv" and kind != "adapter":
            q, k, v = jnp.split(call(x), 3, axis=-1)
            if kind == "lora":
                q, v = q + product(x, part["q"]), v + product(x, part["v"])
            else:
                k, v = scaled(k, part["k"]), scaled(v, part["v"])
            return jnp.concatenate([q, k, v], -1)
        if name == "Dense_0" and kind == "lora":
            hidden = call(x)
            return hidden + product(hidden, part["hidden"])
        if name == "Dense_1" and kind == "ia3":
            return call(scaled(x, part["hidden"]))
        if kind == "adapter" and name in ("out", "Dense_1"):
            return adapted(call(x), part["attention" if name == "out" else "perceptron"])
        return call(*args, **kwargs)

    return intercept
