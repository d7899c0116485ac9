"""Writes authors_cpl.npz: what the code of CPL's authors makes of given pairs: losses, gradients and updates.

Needs torch and nothing of this project: python tests/golden/make_cpl.py CHECKOUT (PROVENANCE.md).
"""

import functools
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np

PAIRS, STEPS, OBSERVATION, ACTION, WIDTH, UPDATES, CLONING, WARMUP, RATE = 4, 5, 3, 2, 16, 7, 3, 3, 1e-2
ARMS = {  # as in the authors' configurations for states, with a larger alpha: segments are short
    "cpl": ("CPL", {"alpha": 0.5, "contrastive_bias": 0.5, "bc_coeff": 0.0, "bc_data": "all"}),
    "cpl_bc": ("CPL", {"alpha": 0.5, "contrastive_bias": 1.0, "bc_coeff": 1.0, "bc_data": "all"}),
    "cpl_kl": ("CPL_KL", {"alpha": 1.0, "contrastive_bias": 0.75, "bc_coeff": 0.0, "bc_data": "all"}),
    "sft": ("BehaviorCloning", {"bc_data": "pos", "bc_all_steps": CLONING, "grad_norm_clip": None}),
}


def authors_modules(checkout: Path) -> SimpleNamespace:
    """Their algorithms, without the libraries that these do not compute with."""

    class Base:
        def setup_schedulers(self):
            self.schedulers = {name: make(self.optim[name]) for name, make in self.schedulers_class.items()}

    for name in ("research", "research.algs", "research.utils", "research.networks"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(checkout / name.replace(".", "/"))]
    sys.modules["gym"] = MagicMock(spaces=SimpleNamespace(Box=SimpleNamespace))
    sys.modules["research.utils"].utils = SimpleNamespace(create_optim_groups=lambda params, kwargs: list(params))
    sys.modules["research.algs.off_policy_algorithm"] = ModuleType("off_policy_algorithm")
    sys.modules["research.algs.off_policy_algorithm"].OffPolicyAlgorithm = Base
    sys.modules["research.networks.base"] = MagicMock()
    from research.algs import bc, cpl, cpl_kl
    from research.utils.schedules import linear_warmup

    algorithms = {"CPL": cpl.CPL, "CPL_KL": cpl_kl.CPL_KL, "BehaviorCloning": bc.BehaviorCloning}
    return SimpleNamespace(cpl=cpl, algorithms=algorithms, linear_warmup=linear_warmup)


class Policy:
    """A network with their names: an identity for encoder and a perceptron with tanh for actor."""

    def __init__(self, weights: list[np.ndarray]):
        import torch
        from torch import nn

        sizes = (OBSERVATION, WIDTH, WIDTH, ACTION)
        layers = [nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:])]
        for layer, (kernel, bias) in zip(layers, zip(weights[::2], weights[1::2])):
            layer.weight.data, layer.bias.data = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias.copy())
        self.layers, self.encoder = layers, nn.Identity()
        self.actor = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.Tanh())
        self.eval = lambda: None

    def arrays(self) -> dict[str, np.ndarray]:
        found = {}
        for number, layer in enumerate(self.layers):
            found[f"actor/{number}/kernel"] = layer.weight.detach().numpy().T.copy()
            found[f"actor/{number}/bias"] = layer.bias.detach().numpy().copy()
        return found


def trajectory(authors: SimpleNamespace, arm: str, weights: list[np.ndarray], batches: list[dict]) -> dict:
    """Their train_step with Adam and their warm-up, as their trainer calls both."""
    import torch

    name, settings = ARMS[arm]
    own = object.__new__(authors.algorithms[name])
    vars(own).update(
        settings, bc_steps=CLONING, network=Policy(weights), reference_network=Policy(weights), optim={}, schedulers={},
        optim_kwargs={"lr": RATE}, optim_class=functools.partial(torch.optim.Adam, lr=RATE),
        processor=SimpleNamespace(action_space=SimpleNamespace()), schedulers_class={},
    )
    if name != "BehaviorCloning":
        own.schedulers_class["actor"] = functools.partial(
            torch.optim.lr_scheduler.LambdaLR, lr_lambda=authors.linear_warmup(WARMUP)
        )
    own.setup_optimizers()
    if name != "BehaviorCloning":
        own.setup_schedulers()
    losses = []
    for step, batch in enumerate(batches):
        found = own.train_step({key: torch.from_numpy(x) for key, x in batch.items()}, step, UPDATES)
        losses.append(found.get("loss", found.get("bc_loss" if step < CLONING else "cpl_loss")))
        for scheduler in own.schedulers.values():
            scheduler.step()
    after = {f"{arm}/after/{key}": x for key, x in own.network.arrays().items()}
    return after | {f"{arm}/losses": np.array(losses)}


def main(checkout: str) -> None:
    import torch

    authors, rng = authors_modules(Path(checkout)), np.random.default_rng(50)
    sys.path.insert(0, checkout)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    arrays = {}
    labels = np.array([0.0, 1.0, 0.5, 1.0], np.float32)
    first, second = torch.from_numpy(normal(PAIRS) - 2).requires_grad_(), torch.from_numpy(normal(PAIRS) - 2)
    scores = torch.from_numpy(normal(6) - 2).requires_grad_()
    order = torch.from_numpy(normal(6))
    arrays |= {"labels": labels, "first": first.detach().numpy(), "second": second.numpy(),
               "scores": scores.detach().numpy(), "order": order.numpy()}
    for bias in (1.0, 0.5):
        loss, _ = authors.cpl.biased_bce_with_logits(first, second, torch.from_numpy(labels), bias)
        arrays[f"pairs/{bias}"] = loss.detach().numpy()
        arrays[f"pairs/{bias}/gradient"] = torch.autograd.grad(loss, first)[0].numpy()
        loss, _ = authors.cpl.biased_bce_with_scores(scores, order, bias)
        arrays[f"scores/{bias}"] = loss.detach().numpy()
        arrays[f"scores/{bias}/gradient"] = torch.autograd.grad(loss, scores)[0].numpy()
    sizes = (OBSERVATION, WIDTH, WIDTH, ACTION)
    weights = [x for pair in zip(sizes[:-1], sizes[1:]) for x in (0.4 * normal(*pair), 0.1 * normal(pair[1]))]
    arrays |= {f"params/{key}": x for key, x in Policy(weights).arrays().items()}
    batches = [
        {"obs_1": normal(PAIRS, STEPS, OBSERVATION), "obs_2": normal(PAIRS, STEPS, OBSERVATION),
         "action_1": np.tanh(normal(PAIRS, STEPS, ACTION)), "action_2": np.tanh(normal(PAIRS, STEPS, ACTION)),
         "label": rng.permutation(labels)} for _ in range(UPDATES)
    ]
    arrays |= {f"batch/{key}": np.stack([batch[key] for batch in batches]) for key in batches[0]}
    for arm in ARMS:
        arrays |= trajectory(authors, arm, weights, batches)
    np.savez_compressed(Path(__file__).parent / "authors_cpl.npz", **arrays)
    print(f"{len(arrays)} arrays", {arm: arrays[f"{arm}/losses"] for arm in ARMS})


if __name__ == "__main__":
    main(*sys.argv[1:])
