"""What all trainers of language models share: what is trained of a decoder, its optimiser, gradients piece by piece."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel
from rl_jax.language.rows import Rows
from rl_jax.language.scoring import token_log_probs
from rl_jax.networks.lora import apply_lora, init_lora

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def default_config() -> ConfigDict:
    """The settings of any trainer; `optimiser` and `Trainable` read them."""
    return ConfigDict(
        {
            "learning_rate": 1e-4,
            "warmup_steps": 0,  # over which the learning rate rises linearly
            "decay": False,  # whether it then falls to 0 along a cosine, at config.num_steps
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "lora_rank": 0,  # of adapters, which are then all that is trained; 0 trains every parameter
            "lora_alpha": 16.0,
            "lora_layers": r"layers/(attention|mlp)/\w+/kernel",  # which kernels get adapters: a regex of their paths
            "micro_batches": 1,  # into which a batch is cut to save memory; no number changes a gradient
            "chunk": 64,  # tokens of each row whose logits are in memory at once
            "remat": False,  # whether layers are computed again in the backward pass, to save memory
            "dtype": "float32",  # of the layers' products, or bfloat16; parameters are float32
        }
    )


def optimiser(settings: ConfigDict, num_steps: int, learning_rate: float | None = None) -> optax.GradientTransformation:
    """AdamW with a clip of the gradient's norm and the schedule that the settings say.

    Args:
      learning_rate: in the place of the settings' own.
    """
    rate = settings.learning_rate if learning_rate is None else learning_rate
    after = optax.constant_schedule(rate)
    if settings.decay:
        after = optax.cosine_decay_schedule(rate, max(1, num_steps - settings.warmup_steps))
    # The first update is not lost: the rate starts at a part of its full height.
    rising = optax.linear_schedule(rate / (settings.warmup_steps + 1), rate, settings.warmup_steps)
    schedule = optax.join_schedules([rising, after], [settings.warmup_steps]) if settings.warmup_steps else after
    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm), optax.adamw(schedule, weight_decay=settings.weight_decay)
    )


class Trainable(NamedTuple):
    """A pretrained decoder, of which all parameters are trained or adapters alone.

    The pretrained parameters stay where they are, in the program's resident: they are what adapters are added to, and
    the reference of losses that have one.

    Attributes:
      config: of the decoder.
      settings: as `default_config`.
      packed: whether rows hold several documents.
    """

    config: DecoderConfig
    settings: ConfigDict
    packed: bool = False

    def init(self, key: Key, pretrained: PyTree) -> PyTree:
        """What is trained, at its start: the policy is the pretrained one."""
        if self.settings.lora_rank:
            return init_lora(key, pretrained, self.settings.lora_rank, self.settings.lora_layers)
        return jax.tree.map(jnp.copy, pretrained)

    def params(self, trained: PyTree, pretrained: PyTree) -> PyTree:
        """The decoder's parameters."""
        return apply_lora(pretrained, trained, self.settings.lora_alpha) if self.settings.lora_rank else trained

    def hidden(self, params: PyTree, rows: Rows) -> jax.Array:
        """Hidden states [B, T, D]; errors as `hidden_of`."""
        return self.hidden_of(params, rows.tokens, rows.positions, rows.segments)

    def hidden_of(self, params: PyTree, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
        """Those of tokens [B, T] that are no rows.

        Raises:
          ValueError: the dtype of the settings is unknown.
        """
        if self.settings.dtype not in DTYPES:
            raise ValueError(unknown("config.agent.dtype", self.settings.dtype, DTYPES))
        decoder = Decoder(self.config, DTYPES[self.settings.dtype], self.settings.remat, self.packed)
        return decoder.apply({"params": params}, tokens, positions, segments)

    def log_probs(self, params: PyTree, rows: Rows) -> jax.Array:
        """Of the rows' tokens, [B, T]."""
        kernel = head_kernel(params, self.config)
        return token_log_probs(self.hidden(params, rows), kernel, rows.tokens, self.settings.chunk)[0]


def summed_gradient(
    loss: Callable[[PyTree, PyTree], tuple[jax.Array, Metrics]], params: PyTree, batch: PyTree, micro_batches: int
) -> tuple[PyTree, Metrics]:
    """The gradient of a loss that is a sum over a batch, and its metrics, sums too, one micro-batch after another.

    Args:
      loss: (params, part of the batch) -> (scalar, metrics).
      batch: leaves [B, ...].

    Raises:
      ValueError: B does not divide into the micro-batches.
    """
    def of_part(part: PyTree) -> tuple[PyTree, Metrics]:
        return jax.grad(loss, has_aux=True)(params, shard_batch(part))

    parts = micro_batched(batch, micro_batches)
    if micro_batches == 1:
        return of_part(jax.tree.map(lambda x: x[0], parts))

    def one(total: Any, part: PyTree) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of_part(part)), None

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], parts)))
    return jax.lax.scan(one, zeros, parts)[0]


def over_parts(fn: Callable[[PyTree], PyTree], batch: PyTree, count: int) -> PyTree:
    """`fn` of a batch part by part, in the shape in which `summed_gradient` of as many parts computes; leaves [B, ...].

    What of each row is computed so is, to the last bit, what the loss computes.
    """
    parts = micro_batched(batch, count)
    if count == 1:
        return fn(shard_batch(batch))
    found = jax.lax.map(lambda part: fn(shard_batch(part)), parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), found)


def in_parts(fn: Callable[[PyTree], PyTree], batch: PyTree, at_once: int) -> PyTree:
    """`fn` of host arrays, leaves [B, ...], `at_once` rows at a time, as host arrays [B, ...].

    The last part is filled with the first rows again, whose results are left out: `fn` sees one shape.
    """
    size, found = len(jax.tree.leaves(batch)[0]), []
    for start in range(0, size, at_once):
        chosen = np.arange(start, start + at_once) % size
        part = fn(jax.tree.map(lambda x, chosen=chosen: np.asarray(x)[chosen], batch))
        found.append(jax.device_get(part))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *found)


def micro_batched(batch: PyTree, count: int) -> PyTree:
    """Leaves [B, ...] as [count, B / count, ...]; each part has rows of all devices that the batch lies on.

    Raises:
      ValueError: B does not divide.
    """
    size = len(jax.tree.leaves(batch)[0])
    if size % count:
        raise ValueError(f"config.batch_size={size} does not divide into agent.micro_batches={count}: change one")
    return jax.tree.map(lambda x: x.reshape(size // count, count, *x.shape[1:]).swapaxes(0, 1), batch)
