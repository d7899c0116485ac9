"""Language models in a GGUF file, llama.cpp's format: quantised weights, the tokenizer and the chat template in one.

The library `gguf` dequantises the weights. llama.cpp rotates the pairs (2 i, 2 i + 1) of a Llama's heads, and permutes
the rows of q and k for that; here this is undone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rl_jax.core.extras import require
from rl_jax.core.mesh import Rule
from rl_jax.language.chat import ChatTemplate
from rl_jax.language.decoder import SHARDING_RULES, DecoderConfig
from rl_jax.language.pretrained import Pretrained, Tensors, assembled, checked_config, halves
from rl_jax.language.text import Tokenizer

FAMILIES = ("llama", "qwen2", "qwen3")
# Hugging Face's name of a tensor; those of a layer stand behind `blk.<number>.`.
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
CONTROL, USER_DEFINED = 3, 4  # kinds of tokens that are no byte pairs
FOLDER = "give the model's folder with safetensors and tokenizer.json"


def load_gguf(
    path: str | Path, *, dtype: Any = jnp.float32, mesh: Mesh | None = None, rules: Sequence[Rule] = SHARDING_RULES
) -> Pretrained:
    """A language model from a GGUF file; arguments and errors are those of checkpoints.load."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: give a .gguf file")
    library = require("gguf", "language")
    try:
        reader = library.GGUFReader(file)
    except Exception as error:  # noqa: BLE001: whatever the library meets in damaged bytes
        raise ValueError(f"{file} is not a whole GGUF file ({error}): copy it again") from None

    def field(name: str, default: Any = None) -> Any:
        found = reader.get_field(name)
        return default if found is None else found.contents()

    config = _config(file, field, {tensor.name: tensor for tensor in reader.tensors})
    tokenizer = _tokenizer(file, field)
    source = field("tokenizer.chat_template")
    template = None if source is None else ChatTemplate(source, tokenizer.names(), f"the chat template of {file}")
    tensors = _tensors(file, library, reader.tensors, config, permuted=field("general.architecture") == "llama")
    return assembled(tensors, config, tokenizer, template, dtype, mesh, rules)


def _config(file: Path, field: Callable[..., Any], tensors: dict[str, Any]) -> DecoderConfig:
    family = field("general.architecture")
    if family not in FAMILIES:
        raise ValueError(f"{file}: its architecture is {family!r}, and of {', '.join(FAMILIES)} are decoders here")
    if field(f"{family}.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in tensors:
        raise ValueError(f"{file} scales its rotary positions in llama.cpp's own way: {FOLDER}")
    width, heads = field(f"{family}.embedding_length"), field(f"{family}.attention.head_count")
    both = isinstance(width, int) and isinstance(heads, int) and heads > 0
    embedding = tensors.get("token_embd.weight")
    return checked_config(
        str(file),
        vocab_size=None if embedding is None else int(embedding.shape[-1]),
        width=width,
        num_layers=field(f"{family}.block_count"),
        num_heads=heads,
        num_kv_heads=field(f"{family}.attention.head_count_kv", heads),
        head_dim=field(f"{family}.attention.key_length", width // heads if both else None),
        hidden_width=field(f"{family}.feed_forward_length"),
        rope_theta=field(f"{family}.rope.freq_base", 10000.0),
        rope_scaling=None,
        norm_eps=field(f"{family}.attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in tensors,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        context_length=field(f"{family}.context_length"),
    )


def _tensors(file: Path, library: Any, found: Sequence[Any], config: DecoderConfig, permuted: bool) -> Tensors:
    by_name = {_published(tensor.name): tensor for tensor in found}
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads} if permuted else {}

    def read(name: str, index: tuple[slice, ...]) -> np.ndarray:
        tensor = by_name[name]
        try:
            x = library.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ValueError(f"{file}: {name} is of the type {kind}, which is not read here: {FOLDER}") from None
        number = heads.get(name.split(".")[-2])
        return (x if number is None else halves(x, number))[index]

    shapes = {name: tuple(int(size) for size in reversed(tensor.shape)) for name, tensor in by_name.items()}
    return Tensors(str(file), shapes, read)


def _published(name: str) -> str:
    """Hugging Face's name of a tensor; its own where it has none."""
    *front, part, leaf = ["", *name.split(".")]
    if front[:2] == ["", "blk"] and len(front) == 3 and part in LAYER_NAMES:
        return f"model.layers.{front[2]}.{LAYER_NAMES[part]}.{leaf}"
    return f"{NAMES[part]}.{leaf}" if part in NAMES else name


def _tokenizer(file: Path, field: Callable[..., Any]) -> Tokenizer:
    """SmolLM2's tokenizer: byte pairs over bytes, each digit by itself."""
    kind = field("tokenizer.ggml.model"), field("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"{file} has a tokenizer of the kind {kind}, and ('gpt2', 'smollm') is read here: {FOLDER}")
    pieces, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges, eos = field("tokenizer.ggml.merges"), field("tokenizer.ggml.eos_token_id")
    library = require("tokenizers", "language")
    pre, vocab = library.pre_tokenizers, {piece: token for token, piece in enumerate(pieces)}
    try:
        pairs = [tuple(merge.split(" ")) for merge in merges]
        backend = library.Tokenizer(library.models.BPE(vocab=vocab, merges=pairs))
        for token, of in zip(pieces, kinds, strict=True):
            if of in (CONTROL, USER_DEFINED):
                backend.add_tokens([library.AddedToken(token, normalized=False, special=of == CONTROL)])
    except Exception as error:  # noqa: BLE001: tokenizers raises Exception itself
        raise ValueError(f"{file}: its vocabulary and merges make no tokenizer ({error}): copy it again") from None
    if eos is None:
        raise ValueError(f"{file} names no token that ends an answer (tokenizer.ggml.eos_token_id): {FOLDER}")
    backend.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    backend.decoder = library.decoders.ByteLevel()
    pad = field("tokenizer.ggml.padding_token_id", eos)
    return Tokenizer(backend, eos, pad, field("tokenizer.ggml.bos_token_id"), source=str(file))
