"""Writes diffusers.npz, clip_tokens.json and tensors.pth: what diffusers, transformers and torch make of tiny networks,
prompts and tensors.

Needs the extra `parity` and nothing of this project: python -m tests.golden.make_diffusers (PROVENANCE.md).
"""

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from tests.golden.weights import numbers, weight

HERE = Path(__file__).parent
UNETS = {
    # Stable Diffusion 1: projections by convolution.
    "conv": {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 6, "norm_num_groups": 4,
    },
    # Stable Diffusion 2's linear projections, heads level by level, and LCM's guidance.
    "linear": {
        "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 2, "attention_head_dim": [2, 4], "cross_attention_dim": 6, "norm_num_groups": 4,
        "transformer_layers_per_block": 2, "use_linear_projection": True, "time_cond_proj_dim": 10,
        "flip_sin_to_cos": False, "freq_shift": 1,
    },
}
VAE = {
    "sample_size": 16, "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8, 16],
    "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.18215,
}
TRANSFORMER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = {
    "quick_gelu": {**TRANSFORMER, "hidden_act": "quick_gelu", "vocab_size": 20, "max_position_embeddings": 8},
    "gelu": {**TRANSFORMER, "hidden_act": "gelu", "vocab_size": 20, "max_position_embeddings": 8},
}
VISION = {**TRANSFORMER, "hidden_act": "quick_gelu", "image_size": 8, "patch_size": 4, "projection_dim": 5}
TOKENS = [[1, 5, 7, 2, 2, 2, 2, 2], [1, 19, 3, 4, 5, 6, 0, 2]]
# Tokens at which a whole CLIP model reads a prompt's embedding; 2 is that of the highest number, as in older files.
ENDS = (5, 2)
PROMPTS = [
    "a photo of a cat", "A  Dog riding a bike!!", "it's the cat's toy, we'll see", "don't they've I'm you'd we're",
    "1234 cats, 2.5 dogs", "", "   ", "naïve café", "cafe\u0301 NAI\u0308VE", "猫と犬 🐱🐶", "ΟΔΟΣ Привет", "½ Ⅷ ² x²",
    "snake_case, a-b/c (d) [e]", "a\tcat\nand\u00a0dog", "!'s ''t 'S o'clock", "<|endoftext|> a cat", "αβγδ...!?",
    "İstanbul", "the washing of dishes", "photo photo photophoto",
]


def fill(model):
    """The model in evaluation mode with the given weights."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            name = name.removeprefix("text_model.").removeprefix("vision_model.")
            parameter.copy_(torch.as_tensor(weight(name, tuple(parameter.shape))))
    return model.eval()


def networks() -> dict[str, np.ndarray]:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPTextConfig,
        CLIPTextModel,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    found = {}

    def images(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(numbers(name, *shape)).permute(0, 3, 1, 2)

    def keep(name: str, x: torch.Tensor) -> None:
        found[name] = np.ascontiguousarray((x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy())

    with torch.no_grad():
        for name, settings in UNETS.items():
            model = fill(UNet2DConditionModel(**settings))
            given = {
                "sample": images("images", 2, 8, 8, settings["in_channels"]),
                "timestep": torch.tensor([999, 19]),
                "encoder_hidden_states": torch.from_numpy(numbers("context", 2, 5, 6)),
            }
            if "time_cond_proj_dim" in settings:
                given["timestep_cond"] = torch.from_numpy(numbers("guidance", 2, settings["time_cond_proj_dim"]))
            keep(f"unet/{name}", model(**given).sample)
            mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
            keep(f"unet/{name}/masked", model(**given, encoder_attention_mask=mask).sample)
        types = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
        model = fill(AutoencoderKL(**VAE, **types))
        encoded = model.encode(images("images", 2, 16, 16, 3)).latent_dist
        keep("vae/mean", encoded.mean)
        keep("vae/deviation", encoded.std)
        keep("vae/decoded", model.decode(images("latents", 2, 8, 8, 4)).sample)
        tokens = torch.tensor(TOKENS)
        for name, settings in TEXTS.items():
            config = CLIPTextConfig(**settings, bos_token_id=1, eos_token_id=2)
            keep(f"text/{name}", fill(CLIPTextModel(config))(tokens).last_hidden_state)
        model = fill(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)))
        keep("vision", model(images("images", 2, 8, 8, 3)).image_embeds)
        for end in ENDS:
            text = {**TEXTS["quick_gelu"], "bos_token_id": 1, "eos_token_id": end}
            config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=VISION["projection_dim"])
            model = fill(CLIPModel(config))
            pixels = images("images", 2, 8, 8, 3)
            keep(f"clip/{end}/images", model.get_image_features(pixels).pooler_output)
            keep(f"clip/{end}/texts", model.get_text_features(tokens).pooler_output)
            found_by_model = model(input_ids=tokens, pixel_values=pixels, return_loss=True)
            keep(f"clip/{end}/loss", found_by_model.loss)
            # exp(logit_scale) times the cosines of each image with its own text.
            keep(f"clip/{end}/logits", found_by_model.logits_per_image.diagonal())
    return found


def guidance() -> dict[str, np.ndarray]:
    """LCM's embedding of the guidance, by its own pipeline's function."""
    import torch
    from diffusers import LatentConsistencyModelPipeline as Pipeline

    w = torch.tensor([0.0, 0.5, 7.0])
    return {"guidance": Pipeline.get_guidance_scale_embedding(None, w, embedding_dim=10).numpy()}


def save_tensors(file: Path) -> None:
    """Of the widths and layouts that files hold: contiguous, transposed, a part of another."""
    import torch

    whole = torch.from_numpy(numbers("tensors", 3, 4))
    tensors = {"whole": whole, "transposed": whole.t(), "part": whole[1:, ::2]}
    torch.save({**tensors, "half": whole.half(), "one": whole[2, 3].double()}, file)


def merges(text: str, count: int) -> list[tuple[str, str]]:
    """Byte-pair merges of a small corpus, the most frequent pair first."""
    corpus = [[*word[:-1], f"{word[-1]}</w>"] for word in text.lower().split()]
    learnt = []
    for _ in range(count):
        pairs = Counter(pair for word in corpus for pair in zip(word[:-1], word[1:], strict=True))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learnt.append(best)
        for word in corpus:
            while (at := next((i for i in range(len(word) - 1) if (word[i], word[i + 1]) == best), None)) is not None:
                word[at : at + 2] = ["".join(best)]
    return learnt


def tokens() -> dict:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    corpus = "a photo of the cat and the dog washing dishes riding a bike photo of 's 't cats dogs they we the"
    learnt = merges(corpus, 60)
    letters = sorted(ByteLevel.alphabet())
    vocab = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in learnt)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*vocab, "<|startoftext|>", "<|endoftext|>"]))}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in learnt), ""]
        (Path(folder) / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    return {"vocab": vocab, "merges": learnt, "prompts": PROMPTS, "ids": ids}


if __name__ == "__main__":
    np.savez_compressed(HERE / "diffusers.npz", **networks(), **guidance())
    save_tensors(HERE / "tensors.pth")
    (HERE / "clip_tokens.json").write_text(json.dumps(tokens(), ensure_ascii=False) + "\n", encoding="utf-8")
