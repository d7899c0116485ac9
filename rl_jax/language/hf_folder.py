"""Folders of language models as transformers writes them: Llama 2 and 3, Qwen 2 and 2.5, Qwen 3.

A folder holds config.json, the weights (one safetensors file, or several with an index), tokenizer.json and
tokenizer_config.json. Nothing is unpickled, and no code of a checkpoint runs but the chat template in its sandbox.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from rl_jax.core.extras import require
from rl_jax.core.files import naming, read_object, read_text
from rl_jax.core.mesh import Rule, gather
from rl_jax.core.runtime import is_main_process, sync_processes
from rl_jax.language.chat import ChatTemplate
from rl_jax.language.decoder import SHARDING_RULES, DecoderConfig
from rl_jax.language.pretrained import Pretrained, Tensors, assembled, checked_config, names_of
from rl_jax.language.text import Tokenizer, load_tokenizer, save_tokenizer
from rl_jax.networks.weight_files import find_weight_files, open_safetensors

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
# Settings for which our decoder supports one value alone, which is also that of a file that does not say.
FIXED = {
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False,
    "partial_rotary_factor": 1.0, "quantization_config": None,
}
OTHER_WEIGHTS = "Other formats run code when they are read: save it as safetensors with the library that wrote it"
KINDS = ("F64", "F32", "F16", "BF16")  # of tensors that are weights as they stand


def load_folder(
    path: str | Path, *, dtype: Any = jnp.float32, mesh: Mesh | None = None, rules: Sequence[Rule] = SHARDING_RULES
) -> Pretrained:
    """A language model from a folder; arguments and errors are those of checkpoints.load."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder: give that of a model as transformers saves it, or a .gguf file, or smollm2 or "
            "stories260k"
        )
    config = read_config(_present(folder / "config.json"))
    settings = read_object(_present(folder / "tokenizer_config.json"))
    tokenizer = load_tokenizer(folder, settings)
    template = _template(folder, settings, tokenizer)
    with _safetensors(folder) as tensors:
        return assembled(tensors, config, tokenizer, template, dtype, mesh, rules)


def read_config(file: Path) -> DecoderConfig:
    """The configuration of config.json; raises ValueError for what our decoder is not."""
    given = read_object(file)
    family = given.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"{file}: model_type is {family!r}, and of {', '.join(FAMILIES)} are decoders here")
    for name, only in FIXED.items():
        if given.get(name, only) != only:
            raise ValueError(f"{file}: {name} is {given[name]!r}, and the decoder is here built with {only!r} alone")
    kinds = given.get("layer_types") or []
    if other := [kind for kind in kinds if kind != "full_attention"]:
        raise ValueError(f"{file}: layer_types has {other[0]!r}, and the decoder has full attention alone")
    # transformers 5 keeps the base with the scaling; before, they stood apart.
    scaling = given.get("rope_parameters") or given.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise ValueError(f"{file}: the rotary scaling is {scaling!r}, not an object: take the model's own config.json")
    width, heads = given.get("hidden_size"), given.get("num_attention_heads")
    both = isinstance(width, int) and isinstance(heads, int) and heads > 0
    return checked_config(
        str(file),
        vocab_size=given.get("vocab_size"),
        width=width,
        num_layers=given.get("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=given.get("num_key_value_heads") or heads,
        head_dim=given.get("head_dim") or (width // heads if both else None),
        hidden_width=given.get("intermediate_size"),
        rope_theta=scaling.get("rope_theta") or given.get("rope_theta", 10000.0),
        rope_scaling={name: x for name, x in scaling.items() if name != "rope_theta"},
        norm_eps=given.get("rms_norm_eps", 1e-6),
        tied=given.get("tie_word_embeddings", False),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        context_length=given.get("max_position_embeddings", 2048),
    )


def save_folder(path: str | Path, model: Pretrained, dtype: Any = jnp.float32, shard_bytes: int = 2**32) -> None:
    """Writes a folder that `load_folder` and transformers open; it appears whole, in one rename.

    Every process must call it, and the main one writes.

    Args:
      dtype: of the weights in the files, float32 or bfloat16.
      shard_bytes: most of one file; a larger model is written in several with an index.

    Raises:
      FileExistsError: there is something at `path`.
      ValueError: no family of transformers is built like this decoder.
    """
    path = Path(path).expanduser()
    settings = _settings(model, dtype)
    if path.exists():
        raise FileExistsError(f"{path} is there already: name a folder that is not")
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            if is_main_process():
                folder.mkdir(parents=True)
                _write_json(folder / "config.json", settings)
                named = save_tokenizer(model.tokenizer, folder)
                if model.template is not None:
                    named["chat_template"] = model.template.source
                _write_json(folder / "tokenizer_config.json", named)
            _save_weights(folder, model, dtype, shard_bytes)
            if is_main_process():
                folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_processes("save_folder")


def _settings(model: Pretrained, dtype: Any) -> dict[str, Any]:
    """What config.json says."""
    config, tokenizer = model.config, model.tokenizer
    if config.qkv_bias and config.qk_norm:
        raise ValueError("transformers has no family with both qkv_bias and qk_norm: such a decoder cannot be written")
    family = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias else "llama"
    return {
        "architectures": [FAMILIES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.hidden_width,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,
        "rope_scaling": dict(config.rope_scaling) if config.rope_scaling else None,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.context_length,
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
        "torch_dtype": np.dtype(dtype).name,
    }


def _save_weights(folder: Path, model: Pretrained, dtype: Any, shard_bytes: int) -> None:
    """Writes the tensors in the order of our tree, a file whenever the next one would make it too large."""
    write = require("safetensors.numpy", "language").save_file
    files, shard, size = [], {}, 0
    for name, tensor in _tensors(model, dtype):
        if shard and size + tensor.nbytes > shard_bytes:
            files.append(_part(folder, len(files), shard, write))
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    files.append(_part(folder, len(files), shard, write))
    if not is_main_process():
        return
    if len(files) == 1:
        (folder / _part_name(0)).rename(folder / "model.safetensors")
        return
    weights = {name: _part_name(number) for number, names in enumerate(files) for name in names}
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weights})


def _tensors(model: Pretrained, dtype: Any) -> Iterator[tuple[str, np.ndarray]]:
    for keys, leaf in flatten_dict(model.params).items():
        names = names_of(keys, model.config)
        for layer, name in enumerate(names):
            x = np.asarray(gather(leaf[layer] if keys[0] == "layers" else leaf), dtype)
            yield name, np.ascontiguousarray(x.T if keys[-1] == "kernel" else x)


def _part(folder: Path, number: int, shard: Mapping[str, np.ndarray], write: Any) -> list[str]:
    if is_main_process():
        write(shard, folder / _part_name(number), metadata={"format": "pt"})  # transformers asks for this entry
    return list(shard)


def _part_name(number: int) -> str:
    return f"model-{number + 1:05d}.safetensors"


@contextlib.contextmanager
def _safetensors(folder: Path) -> Iterator[Tensors]:
    """The tensors of all files of a folder."""
    with contextlib.ExitStack() as stack:
        where = {}
        for file in find_weight_files(folder, "model", remedy=OTHER_WEIGHTS):
            opened = stack.enter_context(open_safetensors(file, "language"))
            for name in opened.keys():
                if name in where:
                    raise ValueError(f"{file}: {name} is in another file of the folder too: copy one model's folder")
                where[name] = opened.get_slice(name)
                if (kind := where[name].get_dtype()) not in KINDS:
                    raise ValueError(f"{file}: {name} is of the type {kind}, and only {', '.join(KINDS)} are read here")
        shapes = {name: tuple(part.get_shape()) for name, part in where.items()}
        yield Tensors(str(folder), shapes, lambda name, index: where[name][index])


def _template(folder: Path, settings: Mapping[str, Any], tokenizer: Tokenizer) -> ChatTemplate | None:
    """The chat template: a file of its own, or a setting of the tokenizer's, there one or several with names."""
    file = folder / "chat_template.jinja"
    source = read_text(file) if file.is_file() else settings.get("chat_template")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if source is None:
        return None
    if not isinstance(source, str):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: chat_template is no text: copy the file again")
    return ChatTemplate(source, tokenizer.names(), f"the chat template of {folder}")


def _present(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: give the folder of a model as transformers saves it")
    return file


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
