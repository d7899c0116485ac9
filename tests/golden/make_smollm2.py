"""Writes smollm2.npz: what transformers makes of SmolLM2's GGUF file, dequantised by transformers itself.

Needs the extra `parity` and the packages gguf and accelerate, and nothing of this project:
python -m tests.golden.make_smollm2 FILE.gguf (PROVENANCE.md).
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
# The chat template's text of "What is 7 + 5?", encoded.
PROMPT = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198, 1,
    4093, 198, 1780, 314, 216, 39, 1232, 216, 37, 47, 2, 198, 1, 520, 9531, 198,
]
EVERY = 61  # of the 49,152 logits of a token, one in so many is stored; of the last token all are
CONTINUATION = 32  # greedy tokens


def main(file: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    # In float64: two libraries in float32 differ from it, and from each other, by up to 9e-5.
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float64).eval()
    tokens = torch.as_tensor([PROMPT])
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy().astype(np.float32)
        after = model.generate(tokens, do_sample=False, max_new_tokens=CONTINUATION, eos_token_id=2)
    np.savez_compressed(
        HERE / "smollm2.npz", tokens=np.asarray(PROMPT, np.int32), logits=logits[:, ::EVERY], last=logits[-1],
        greedy=after[0, len(PROMPT) :].numpy().astype(np.int32),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
