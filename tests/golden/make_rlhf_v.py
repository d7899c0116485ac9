"""Writes authors_rlhf_v.npz: what the code of RLHF-V's authors makes of given pairs: weights, scores, losses.

Needs torch and nothing of this project: python tests/golden/make_rlhf_v.py CHECKOUT (PROVENANCE.md).
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np

VOCABULARY, PAD, END = 24, 0, 1
SIDES = ("win", "rej")  # as their batches call chosen and rejected rows
SETTINGS = {"paper": (5.0, 0.5, True), "released": (1.1, 0.1, False)}  # gamma, beta, whether scores are averaged
LENGTHS = (3, 4, 5, 3, 4, 3)  # of the prompts
# Answers before they are corrected, as places in a random order of tokens, and what stands in the place of which of
# them afterwards: {(first, after the last): tokens}. The last pair is corrected next to both of its ends.
CORRECTIONS = (
    (12, {(5, 6): 1}),
    (14, {(3, 5): 2, (8, 9): 1}),
    (13, {(3, 4): 1, (6, 7): 1}),  # two tokens between them, too few for a match
    (11, {(4, 5): 3}),
    (12, {(4, 4): 2, (8, 9): 1}),  # what is inserted has nothing on the other side
    (10, {(1, 2): 1, (8, 9): 1}),
)


def authors_modules(checkout: Path) -> SimpleNamespace:
    """Their trainer, collator and reader of logits, without the libraries that these do not compute with."""
    sys.path.insert(0, str(checkout))
    sys.modules["muffin"] = ModuleType("muffin")
    sys.modules["muffin"].__path__ = [str(checkout / "muffin")]
    sys.modules["muffin"].conversation = None
    for name in ("LlavaLlamaForCausalLM", "Beit3LlavaLlamaForCausalLM"):
        setattr(sys.modules["muffin"], name, None)
    for name in (
        "timm", "wandb", "pandas", "tqdm", "PIL", "PIL.Image", "utils.utils", "muffin.model", "muffin.model.muffin",
        "muffin.model.utils", "muffin.data.datasets", "muffin.data.data_processors", "transformers.pytorch_utils",
        "transformers.trainer_pt_utils", "transformers.utils", "transformers.utils.import_utils",
        "transformers.models", "transformers.models.auto", "transformers.models.auto.modeling_auto",
    ):
        sys.modules[name] = MagicMock()
    sys.modules["transformers"] = MagicMock(Trainer=object, TrainingArguments=object)
    from muffin.eval import muffin_inference_logp
    from muffin.train import train_muffin, trainers

    return SimpleNamespace(logps=muffin_inference_logp, collators=train_muffin, trainers=trainers)


def written(rng: np.random.Generator) -> list[tuple[list[int], list[int], int]]:
    """Chosen and rejected rows with their prompts, and how long these are; no token is twice in a row."""
    pairs = []
    for prompt, (size, changes) in zip(LENGTHS, CORRECTIONS, strict=True):
        order = (2 + rng.permutation(VOCABULARY - 2)).tolist()
        asked, answer, others = order[:prompt], order[prompt : prompt + size - 1] + [END], order[prompt + size - 1 :]
        corrected = list(answer)
        for (start, end), count in sorted(changes.items(), reverse=True):
            corrected[start:end] = [others.pop() for _ in range(count)]
        pairs.append((asked + corrected, asked + answer, prompt))
    return pairs


def main(checkout: str) -> None:
    import torch

    authors, rng = authors_modules(Path(checkout)), np.random.default_rng(60)
    pairs = written(rng)
    shape = (2, len(pairs), max(len(row) for pair in pairs for row in pair[:2]))  # chosen ones, then rejected ones
    logits, reference = (rng.normal(size=(*shape, VOCABULARY)).astype(np.float32) for _ in range(2))
    arrays = {"logits": logits, "reference_logits": reference, "prompts": np.array(LENGTHS)}
    arrays |= {"tokens": np.zeros(shape, np.int32), "lengths": np.zeros(shape[:2], np.int32)}
    arrays |= {name: np.zeros(shape[:2], np.float32) for name in ("plain/summed", "plain/averaged")}
    sides = ([], [])
    for number, (*both, prompt) in enumerate(pairs):
        for side, row in enumerate(both):
            tokens, place = torch.tensor(row), (side, number)
            labels = torch.where(torch.arange(len(row)) < prompt, -100, tokens)
            before = torch.from_numpy(reference[place][: len(row)])
            found = authors.logps.get_batch_logps(before[None], labels[None], return_all=True)
            arrays["tokens"][place][: len(row)], arrays["lengths"][place] = row, len(row)
            arrays["plain/summed"][place], arrays["plain/averaged"][place] = found[1:]
            names = (f"ref_{SIDES[side]}_{what}" for what in ("per_token_logp", "logp", "avg_logp"))
            said = {"input_ids": tokens, "labels": labels, "image": torch.zeros(1)}
            sides[side].append(said | dict(zip(names, (x[0] for x in found), strict=True)))
    for setting, (gamma, beta, average) in SETTINGS.items():
        tokenizer = SimpleNamespace(pad_token_id=PAD)
        collate = authors.collators.DataCollatorForDPODataset(tokenizer, beta=beta, mod_token_weight=gamma)
        batch = collate(list(zip(*sides[::-1], strict=True)))  # the rejected row of a pair comes first there
        scores, before, leaves = [], [], []
        weights, gradients = (np.zeros(shape, np.float32) for _ in range(2))
        for side, name in enumerate(SIDES):
            labels, weight = batch[f"{name}_labels"], batch[f"{name}_token_weight"]
            said = torch.from_numpy(logits[side, :, : labels.shape[1]])
            leaves.append(authors.logps.get_batch_logps(said, labels, return_per_token_logp=True).requires_grad_())
            for found, log_probs in ((scores, leaves[-1]), (before, batch[f"ref_{name}_per_token_logp"])):
                found.append(authors.trainers.compute_weighted_logp(log_probs, labels, weight, average))
            weights[side, :, 1 : labels.shape[1]] = weight * (labels[:, 1:] != -100)
        losses = authors.trainers.dpo_loss(*scores, *before, beta=beta)[0]
        for side, gradient in enumerate(torch.autograd.grad(losses.sum(), leaves)):
            gradients[side, :, 1 : 1 + gradient.shape[1]] = gradient.numpy()
        arrays |= {
            f"{setting}/weights": weights, f"{setting}/scores": torch.stack(scores).detach().numpy(),
            f"{setting}/reference": torch.stack(before).numpy(), f"{setting}/losses": losses.detach().numpy(),
            f"{setting}/gradient": gradients,
        }
    np.savez_compressed(Path(__file__).parent / "authors_rlhf_v.npz", **arrays)
    print(f"{len(arrays)} arrays", {setting: arrays[f"{setting}/losses"] for setting in SETTINGS})


if __name__ == "__main__":
    main(*sys.argv[1:])
