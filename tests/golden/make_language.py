"""Writes language.npz: what transformers makes of tiny decoders of each family.

Needs the extra `parity` and nothing of this project: python -m tests.golden.make_language (PROVENANCE.md).
"""

import json
from pathlib import Path

import numpy as np

from tests.golden.weights import weight

HERE = Path(__file__).parent
SHAPE = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
# A name of transformers' `<family>Config` and `<family>ForCausalLM`, and its settings.
MODELS = {
    "llama": ("Llama", {**SHAPE, "tie_word_embeddings": True}),
    "llama3": ("Llama", {**SHAPE, "tie_word_embeddings": False, "rope_parameters": LLAMA3}),
    "linear": (
        "Llama", {**SHAPE, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "qwen2": ("Qwen2", {**SHAPE, "tie_word_embeddings": True}),
    "qwen2_yarn": ("Qwen2", {**SHAPE, "tie_word_embeddings": False, "rope_parameters": YARN}),
    # Heads wider than the width divided by their number.
    "qwen3": ("Qwen3", {**SHAPE, "head_dim": 8, "tie_word_embeddings": True}),
}
TOKENS = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (2, 12))
CONTINUATION = 16  # greedy tokens


def model_of(name: str):
    """The decoder, in float32, with weights made from its parameters' names."""
    import torch
    import transformers

    family, settings = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**settings, bos_token_id=1, eos_token_id=None, pad_token_id=None)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            parameter.copy_(torch.as_tensor(weight(path, tuple(parameter.shape))))
    return model


def decoders() -> dict[str, np.ndarray]:
    """By `<model>/`: the configuration's file as text, logits of TOKENS, greedy tokens after them."""
    import torch

    found = {}
    for name in MODELS:
        model = model_of(name)
        found[f"{name}/config"] = np.array(json.dumps(model.config.to_dict(), default=str))
        # Padding on the right does not reach what stands before it, so one row is enough of either.
        with torch.no_grad():
            found[f"{name}/logits"] = model(torch.as_tensor(TOKENS)).logits.numpy()
            after = model.generate(torch.as_tensor(TOKENS), do_sample=False, max_new_tokens=CONTINUATION)
        found[f"{name}/greedy"] = after[:, TOKENS.shape[1] :].numpy().astype(np.int32)
        found[f"{name}/names"] = np.array([f"{path} {tuple(x.shape)}" for path, x in model.state_dict().items()])
    return found


if __name__ == "__main__":
    np.savez_compressed(HERE / "language.npz", tokens=TOKENS.astype(np.int32), **decoders())
