"""The benchmark's decoder by transformers in PyTorch; a process of its own, in a Python that has these.

    python transformers_process.py SETTINGS

SETTINGS is JSON: the fields of `DecoderConfig`, and what suites/language.py adds. For "sample" on standard input all
prompts are continued by `generate`, for "train" Adam makes one step on all rows; see other_python.py.
"""

import json
import sys
from typing import Any


def main(settings: dict[str, Any]) -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    torch.set_default_device(settings["device"])
    config = transformers.LlamaConfig(
        vocab_size=settings["vocab_size"], hidden_size=settings["width"], num_hidden_layers=settings["num_layers"],
        num_attention_heads=settings["num_heads"], num_key_value_heads=settings["num_kv_heads"],
        head_dim=settings["head_dim"], intermediate_size=settings["hidden_width"], rms_norm_eps=settings["norm_eps"],
        tie_word_embeddings=settings["tied"], max_position_embeddings=settings["context_length"], bos_token_id=None,
        eos_token_id=None, pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    prompts, rows = torch.tensor(settings["prompts"]), torch.tensor(settings["rows"])
    new = settings["max_new_tokens"]

    def sample() -> int:
        with torch.no_grad():
            found = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=new,
            )
        return found[:, prompts.shape[1] :].numel()

    def train() -> int:
        optimizer.zero_grad()
        model(rows, labels=rows).loss.backward()
        optimizer.step()
        return rows.numel()

    print(json.dumps({"parameters": sum(x.numel() for x in model.parameters())}), flush=True)
    for line in sys.stdin:
        done = {"sample": sample, "train": train}[line.strip()]()
        if settings["device"] == "cuda":
            torch.cuda.synchronize()
        print(done, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
