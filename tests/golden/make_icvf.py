"""Writes authors_icvf.npz: what the code of ICVF's authors makes of given networks and batches: losses and updates.

Needs jax, flax and optax and nothing of this project: python tests/golden/make_icvf.py CHECKOUT (PROVENANCE.md).
"""

import functools
import sys
from pathlib import Path
from unittest.mock import MagicMock

import flax.linen as nn
import jax
import numpy as np
import optax
from flax.core import FrozenDict
from flax.traverse_util import flatten_dict, unflatten_dict

ROWS, OBSERVATION, WIDTH, UPDATES, RATE = 12, 5, 16, 3, 1e-2
NAMES = {"T": "t", "matrix_a": "a", "matrix_b": "b"}  # theirs: ours


def main(checkout: str) -> None:
    jax.tree_map = jax.tree.map  # its name when they wrote
    sys.modules |= {name: MagicMock() for name in ("distrax", "icecream")}
    sys.path.insert(0, checkout)
    from src import icvf_learner, icvf_networks

    icvf_networks.LayerNormMLP = functools.partial(icvf_networks.LayerNormMLP, activations=nn.relu)
    rng = np.random.default_rng(60)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    network = icvf_networks.create_icvf("multilinear", hidden_dims=(WIDTH, WIDTH), use_layer_norm=True)

    def drawn(path: tuple[str, ...], x: jax.Array) -> np.ndarray:
        return 1.0 + 0.2 * normal(*x.shape) if path[-1] == "scale" else normal(*x.shape) * (
            x.shape[-2] ** -0.5 if path[-1] == "kernel" else 0.3)

    def flat(params: dict) -> dict[str, np.ndarray]:
        return {"/".join(NAMES.get(part, part) for part in path): np.asarray(x)
                for path, x in flatten_dict(params).items()}

    observations = normal(1, OBSERVATION)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *[observations] * 3)["params"]
    given = unflatten_dict({path: drawn(path, x) for path, x in flatten_dict(shapes).items()})
    slow = jax.tree.map(lambda x: x + 0.05 * normal(*x.shape), given)
    agent = icvf_learner.ICVFAgent(
        rng=jax.random.key(0), target_value=icvf_learner.TrainState.create(network, slow),
        value=icvf_learner.TrainState.create(network, given, tx=optax.adam(RATE, eps=3.125e-4)),
        config=FrozenDict({"discount": 0.9, "target_update_rate": 0.05, "expectile": 0.7, "no_intent": False,
                           "min_q": True, "periodic_target_update": False}),
    )
    arrays = {f"params/{name}": x for name, x in flat(given).items()}
    arrays |= {f"target_params/{name}": x for name, x in flat(slow).items()}
    frames, reached, losses, accepted = [], [], [], []
    for _ in range(UPDATES):
        shown, there = normal(ROWS, 4, OBSERVATION), (rng.random((ROWS, 2)) < 0.25).astype(np.float32)
        batch = dict(zip(("observations", "next_observations", "goals", "desired_goals"), np.moveaxis(shown, 1, 0)))
        batch |= {"rewards": there[:, 0] - 1, "masks": 1 - there[:, 0], "desired_rewards": there[:, 1] - 1,
                  "desired_masks": 1 - there[:, 1]}
        agent, info = agent.update(batch)
        frames.append(shown), reached.append(there)
        losses.append(info["value_loss"]), accepted.append(info["accept prob"])
    arrays |= {"frames": np.stack(frames), "reached": np.stack(reached), "losses": np.array(losses),
               "accepted": np.array(accepted)}
    arrays |= {f"after/{name}": x for name, x in flat(agent.value.params).items()}
    arrays |= {f"target_after/{name}": x for name, x in flat(agent.target_value.params).items()}
    np.savez_compressed(Path(__file__).parent / "authors_icvf.npz", **arrays)
    print(f"{len(arrays)} arrays", losses, accepted)


if __name__ == "__main__":
    main(*sys.argv[1:])
