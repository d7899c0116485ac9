"""stories260k: a pretrained decoder of 260,032 parameters that tells stories to children, small enough for every test.

Its data and their origin: stories260k/SOURCE.md. Eldan and Li 2023, TinyStories, arXiv 2305.07759 (the stories).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rl_jax.core.extras import require
from rl_jax.core.files import read_json
from rl_jax.core.mesh import Rule
from rl_jax.language.decoder import SHARDING_RULES, DecoderConfig
from rl_jax.language.pretrained import Pretrained, Tensors, assembled, halves
from rl_jax.language.text import SPACE, Tokenizer

FOLDER = Path(__file__).with_name("stories260k")
SPECIAL = ("<unk>", "<s>", "</s>")
FIRST_PIECE = len(SPECIAL) + 256  # before it: special tokens and bytes
# Hugging Face's name of an array; those of a layer stand behind `model.layers.<number>.`.
NAMES = {
    "wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj", "wo": "self_attn.o_proj",
    "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj", "ra": "input_layernorm",
    "rf": "post_attention_layernorm",
}


def load_stories260k(
    *, dtype: Any = jnp.float32, mesh: Mesh | None = None, rules: Sequence[Rule] = SHARDING_RULES
) -> Pretrained:
    """The story model; arguments are those of checkpoints.load. It does not chat: there is no template."""
    with np.load(FOLDER / "stories260k_int8.npz", allow_pickle=False) as file:
        arrays = dict(file)
    width, hidden, layers, heads, kv_heads, vocabulary, context = (int(size) for size in arrays["config"])
    config = DecoderConfig(
        vocabulary, width, layers, heads, kv_heads, width // heads, hidden, tied=True, context_length=context
    )

    def weights(name: str) -> np.ndarray:
        return arrays[f"{name}_q"].astype(np.float32) * arrays[f"{name}_scale"][..., None]

    tensors = {"model.embed_tokens.weight": weights("emb"), "model.norm.weight": arrays["rn"]}
    for short, name in NAMES.items():
        for layer, x in enumerate(arrays[short] if short in arrays else weights(short)):
            x = halves(x, {"wq": heads, "wk": kv_heads}[short]) if short in ("wq", "wk") else x
            tensors[f"model.layers.{layer}.{name}.weight"] = x
    shapes = {name: x.shape for name, x in tensors.items()}
    read = Tensors(str(FOLDER), shapes, lambda name, index: tensors[name][index])
    return assembled(read, config, load_tokenizer(), None, dtype, mesh, rules)


def load_tokenizer() -> Tokenizer:
    """The tokenizer of 512 pieces with scores: of two neighbours that make a piece, those of the best score join first.

    A piece is the join of any two that spell it, so each of its splits is a merge; pieces stand in the order of their
    scores.
    """
    library = require("tokenizers", "language")
    pieces = [piece.replace(" ", SPACE) for piece, _ in read_json(FOLDER / "vocab.json")]
    pieces[: len(SPECIAL)] = SPECIAL
    ids = {piece: token for token, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces[FIRST_PIECE:] for cut in range(1, len(piece)) if ids.keys() >= {piece[:cut], piece[cut:]}
    ]
    backend = library.Tokenizer(library.models.BPE(vocab=ids, merges=merges, unk_token=SPECIAL[0], byte_fallback=True))
    backend.add_special_tokens([library.AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    backend.normalizer = library.normalizers.Replace(" ", SPACE)
    parts = library.decoders
    backend.decoder = parts.Sequence(
        [parts.Replace(SPACE, " "), parts.ByteFallback(), parts.Fuse(), parts.Strip(" ", 1, 0)]
    )
    end = SPECIAL.index("</s>")
    return Tokenizer(backend, end, end, SPECIAL.index("<s>"), prefix_space=True, source="stories260k")
