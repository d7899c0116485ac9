"""Writes authors_l2m.npz: what the pool of L2M's authors selects, counts and pulls, of given queries and keys.

Needs torch and nothing of this project: python tests/golden/make_l2m.py CHECKOUT (PROVENANCE.md).
"""

import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np

POOL, WIDTH, ROWS, STEPS, BATCHES = 6, 8, 5, 4, 3


def main(checkout: str) -> None:
    import torch

    for name in ("src", "src.algos", "src.algos.prompt", "src.algos.models"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(Path(checkout, *name.split(".")))]
    sys.modules["src.algos.models.adapter"] = MagicMock()
    from src.algos.prompt.l2m import L2MLoRA

    rng = np.random.default_rng(70)
    pool = L2MLoRA(n_layer=1, pool_size=POOL, embed_dim=WIDTH, rank=2, count_penalty=True, embed_key="mean")
    pool.prompt_key.data = torch.from_numpy(rng.uniform(-1, 1, (POOL, WIDTH)).astype(np.float32))
    found = {"keys": pool.prompt_key.detach().numpy().copy()}
    columns = {name: [] for name in ("queries", "task", "inverse", "chosen", "pull", "gradient", "counts")}
    for task in range(3):
        pool.set_task_id(task)
        centre = rng.normal(size=WIDTH)
        for _ in range(BATCHES):
            states = torch.from_numpy((centre + 0.7 * rng.normal(size=(ROWS, STEPS, WIDTH))).astype(np.float32))
            mask = torch.from_numpy((np.arange(STEPS) >= rng.integers(0, STEPS, (ROWS, 1))).astype(np.int64))
            inverse = pool.inv_counts_so_far.numpy().copy()
            info = pool(states, attention_mask=mask)["infos"]
            (gradient,) = torch.autograd.grad(info["reduce_sim"], pool.prompt_key)
            for name, x in {
                "queries": info["x_embed_mean"], "task": torch.tensor(task), "inverse": torch.from_numpy(inverse),
                "chosen": info["prompt_idx"], "pull": info["reduce_sim"], "gradient": gradient, "counts": pool.counts,
            }.items():
                columns[name].append(x.detach().numpy().copy())
    found |= {name: np.stack(rows) for name, rows in columns.items()}
    np.savez_compressed(Path(__file__).parent / "authors_l2m.npz", **found)
    print(found["chosen"][..., 0], found["counts"][-1], found["pull"])


if __name__ == "__main__":
    main(*sys.argv[1:])
