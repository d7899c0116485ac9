"""A tiny tokenizer over bytes with a chat template, and folders of tiny decoders as transformers would have them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rl_jax.data.byte_letters import BYTE_LETTERS
from tests.golden.weights import weight

SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>"]
MERGES = [("a", "b"), ("Ġ", "ab"), ("l", "l"), ("Ã", "©")]  # the last makes é
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "language.npz")


def backend() -> Tokenizer:
    """256 bytes, four pairs, and three special tokens: 263 in all."""
    vocab = {piece: token for token, piece in enumerate([*BYTE_LETTERS, *(a + b for a, b in MERGES)])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return made


def write_folder(folder: Path, name: str, **changes) -> Path:
    """The folder of one of the golden decoders, whose vocabulary of 64 is that of the first letters."""
    folder.mkdir(parents=True)
    config = json.loads(str(GOLDEN[f"{name}/config"])) | changes
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors(name), folder / "model.safetensors")
    vocab = {letter: token for token, letter in enumerate(BYTE_LETTERS[33:96])} | {"</s>": 63}
    letters = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    letters.decoder = decoders.ByteLevel()
    letters.add_special_tokens([AddedToken("</s>", special=True)])
    letters.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": {"content": "</s>"}, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def tensors(name: str) -> dict[str, np.ndarray]:
    """The tensors of a golden decoder by transformers' names."""
    found = {}
    for line in GOLDEN[f"{name}/names"]:
        path, shape = str(line).split(" ", 1)
        found[path] = weight(path, tuple(int(size) for size in shape.strip("(),").split(",")))
    if json.loads(str(GOLDEN[f"{name}/config"]))["tie_word_embeddings"]:
        found.pop("lm_head.weight", None)
    return found
