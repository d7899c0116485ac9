"""Pretrained decoders: what a checkpoint gives, and its tensors laid into our tree one at a time.

Whatever a checkpoint is, its reader names tensors as Hugging Face's Llama, Qwen 2 and Qwen 3 do; here they get their
places. Parameters are made where they belong: each shard of a leaf is read from the files by itself, tensor by tensor,
so that no process holds more than that on the host.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding

from rl_jax.core.mesh import Rule, partition_spec
from rl_jax.core.program import PyTree
from rl_jax.language.chat import ChatTemplate
from rl_jax.language.decoder import SHARDING_RULES, Decoder, DecoderConfig
from rl_jax.language.text import Tokenizer
from rl_jax.networks.weight_files import listed

# Hugging Face's name of a part of our tree; those of a layer stand behind `model.layers.<number>.`.
PARTS = {
    "embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head",
    "layers/input_norm": "input_layernorm", "layers/post_norm": "post_attention_layernorm",
    **{f"layers/attention/{name}": f"self_attn.{name}_proj" for name in "qkvo"},
    **{f"layers/attention/{name}": f"self_attn.{name}" for name in ("q_norm", "k_norm")},
    **{f"layers/mlp/{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
MOST = {"num_layers": 1_000, "context_length": 100_000_000}  # larger numbers are damage
MOST_OTHERS = 10_000_000


class Pretrained(NamedTuple):
    """A language model that someone trained.

    Attributes:
      params: of `Decoder(config)`, laid on the devices.
      template: None where the checkpoint has none, as of a model that does not chat.
    """

    config: DecoderConfig
    params: PyTree
    tokenizer: Tokenizer
    template: ChatTemplate | None


class Tensors(NamedTuple):
    """The tensors of a checkpoint, under Hugging Face's names and in its layout, [out, in].

    Attributes:
      source: the file or folder, for messages.
      shapes: of all tensors by name.
      read: of a name and a slice for each axis; returns a host array.
    """

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str, tuple[slice, ...]], np.ndarray]


def assembled(
    tensors: Tensors, config: DecoderConfig, tokenizer: Tokenizer, template: ChatTemplate | None, dtype: Any,
    mesh: Mesh | None, rules: Sequence[Rule],
) -> Pretrained:
    """The model of a checkpoint's parts, with its parameters laid (`lay`).

    Raises:
      ValueError: the tensors do not fit the configuration, or the tokenizer has tokens that the model has not.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{tokenizer.source} has {tokenizer.vocab_size} tokens, and the model of {tensors.source} has "
            f"{config.vocab_size}: take both from the same model"
        )
    return Pretrained(config, lay(tensors, config, dtype, mesh, rules), tokenizer, template)


def checked_config(source: str, **fields: Any) -> DecoderConfig:
    """The configuration of a checkpoint's numbers.

    Raises:
      ValueError: one of them is missing (None), not a number of its kind, or too large to be meant.
    """
    for field in dataclasses.fields(DecoderConfig):
        x = fields[field.name]
        if field.type is int:
            most = MOST.get(field.name, MOST_OTHERS)
            fits = isinstance(x, int) and not isinstance(x, bool) and 1 <= x <= most
        elif field.type is float:
            fits = isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < float("inf")
        else:
            fits = field.type is not bool or isinstance(x, bool)
        if not fits:
            raise ValueError(f"{source}: {field.name} is {x!r}: take the configuration that the weights are of")
    try:
        return DecoderConfig(**fields)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None


def halves(x: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of q or k from files whose rotary pairs are (2 i, 2 i + 1), in our layout, where they are (i, i + d / 2).

    Args:
      x: [num_heads * d, ...].
    """
    return x.reshape(num_heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def names_of(keys: Sequence[str], config: DecoderConfig) -> list[str]:
    """Hugging Face's names of the tensors that make a leaf of our tree: one, or one for each layer."""
    part, leaf = PARTS["/".join(keys[:-1])], "bias" if keys[-1] == "bias" else "weight"
    if keys[0] == "layers":
        return [f"model.layers.{layer}.{part}.{leaf}" for layer in range(config.num_layers)]
    return [f"{part}.{leaf}"]


def parameter_shapes(config: DecoderConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shapes of a decoder's parameters by their keys."""
    row = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    found = jax.eval_shape(Decoder(config).init, jax.random.key(0), row, row, row)["params"]
    return {keys: leaf.shape for keys, leaf in flatten_dict(found).items()}


def lay(
    tensors: Tensors, config: DecoderConfig, dtype: Any = jnp.float32, mesh: Mesh | None = None,
    rules: Sequence[Rule] = SHARDING_RULES,
) -> PyTree:
    """The parameters of `Decoder(config)` on the devices, read tensor by tensor.

    Args:
      dtype: of the parameters.
      mesh: where they lie, by `rules`; None for the first device.

    Raises:
      ValueError: tensors are missing, of another shape, or unknown; or one holds NaN or infinity.
    """
    shapes = parameter_shapes(config)
    _check(tensors, config, shapes)

    def laid(keys: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array:
        if mesh is None:
            sharding = SingleDeviceSharding(jax.local_devices()[0])
        else:
            sharding = NamedSharding(mesh, partition_spec("/".join(("params", *keys)), shape, rules, mesh))
        names = names_of(keys, config)
        return jax.make_array_from_callback(shape, sharding, lambda index: _shard(tensors, keys, names, index, dtype))

    return unflatten_dict({keys: laid(keys, shape) for keys, shape in shapes.items()})


def _shard(
    tensors: Tensors, keys: tuple[str, ...], names: list[str], index: tuple[slice, ...], dtype: Any
) -> np.ndarray:
    """The part `index` of a leaf."""
    stacked = keys[0] == "layers"
    parts = names[index[0]] if stacked else names
    inner = index[1:] if stacked else index
    shard = None
    for place, name in enumerate(parts):
        part = tensors.read(name, inner[::-1] if keys[-1] == "kernel" else inner)
        if not np.all(np.isfinite(part)):
            said = f"{tensors.source}: tensor {name} holds NaN or infinity"
            raise ValueError(f"{said}, so every answer would: copy the checkpoint again, or take an earlier one")
        part = part.T if keys[-1] == "kernel" else part
        if not stacked:
            return np.asarray(part, dtype)
        shard = np.empty((len(parts), *part.shape), dtype) if shard is None else shard
        shard[place] = part
    return shard


def _check(tensors: Tensors, config: DecoderConfig, shapes: Mapping[tuple[str, ...], tuple[int, ...]]) -> None:
    wanted = {}
    for keys, shape in shapes.items():
        inner = shape[1:] if keys[0] == "layers" else shape
        wanted |= dict.fromkeys(names_of(keys, config), inner[::-1] if keys[-1] == "kernel" else inner)
    unknown = [name for name in tensors.shapes if name not in wanted and not _ignored(name, config)]
    shared = [name for name in wanted if name in tensors.shapes]
    mismatched = [
        f"{name} (is {tensors.shapes[name]}, {wanted[name]} by the configuration)" for name in shared
        if tensors.shapes[name] != wanted[name]
    ]
    missing = [name for name in wanted if name not in tensors.shapes]
    wrong = {"missing": missing, "unknown": unknown, "of another shape": mismatched}
    if any(wrong.values()):
        said = "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in wrong.items() if names)
        raise ValueError(
            f"{tensors.source}: the tensors do not fit the configuration. {said}. Take both from the same model, and a "
            "whole copy of it"
        )


def _ignored(name: str, config: DecoderConfig) -> bool:
    """Whether a tensor says nothing new: a tied head that is stored twice, older files' frequencies."""
    return config.tied and name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq")
