"""How the actor gets from the layout of training to that of generation: four ways, by formula and by measurement.

The mesh is the house's: `model` is the tensor group of generation, `data` the micro data-parallel group, and `seed`
holds replicas. All that is measured is read from compiled programs and from the places of arrays; nothing is timed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rl_jax.core.compiled import Traffic, traffic
from rl_jax.core.mesh import bytes_per_device, make_mesh, resident_shardings
from rl_jax.core.program import PyTree
from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel
from rl_jax.language.roles import place, relayout, relayout_program, split_rules
from rl_jax.language.scoring import token_log_probs

GENERATION = ("model",)


class Engine(NamedTuple):
    """A way from one layout to the other.

    Attributes:
      training: axes of the mesh over which training splits a dimension, the major one first.
      gathered: what of them is left when the devices have gathered; generation then takes its part of it.
    """

    training: tuple[str, ...]
    gathered: tuple[str, ...]


ENGINES = {
    "hybridflow": Engine(("model", "data"), GENERATION),
    "minor": Engine(("data", "model"), GENERATION),
    "contiguous": Engine(("data", "model"), ()),
    "deepspeed_chat": Engine(("seed", "data", "model"), ()),
}


def formulae(name: str, mesh: Mesh) -> dict[str, float]:
    """Data moved a device, peak of parameters and redundant memory, as shares of the model's size M.

    Source: HybridFlow, table 2, with p = p_g = 1, t = model x data, t_g = model and d = seed. It has none for "minor".
    """
    t, t_g, d = mesh.shape["model"] * mesh.shape["data"], mesh.shape["model"], mesh.shape["seed"]
    return {
        "deepspeed_chat": {"moved": (t * d - 1) / (t * d), "peak": 1.0, "redundant": 1 / (t * d)},
        "contiguous": {"moved": (t - 1) / t, "peak": 1.0, "redundant": 1 / t},
        "hybridflow": {"moved": (t - t_g) / (t_g * t), "peak": 1 / t_g, "redundant": 0.0},
    }.get(name, {})


def measured(name: str, decoder: DecoderConfig, params: PyTree) -> dict[str, float]:
    """All that is measured of one way, on 8 devices: numbers by the names of outcomes.

    The formulae's columns are of 2 replicas of 4 devices (`moved`, `peak`, `redundant`, and the same with `_formula`),
    the others of one model over 8 devices, which 2 devices share in generation.
    """
    engine, total = ENGINES[name], sum(x.nbytes for x in jax.tree.leaves(params))
    devices = jax.devices()[:8]
    mesh = make_mesh(seed=2, data=2, model=2, devices=devices)
    trained = place(params, mesh, split_rules(engine.training))
    gathered = relayout(trained, mesh, split_rules(engine.gathered))
    table = {
        "moved": gathering(trained, mesh, engine).received / total,
        "peak": bytes_per_device(gathered) / total,
        "redundant": redundant_bytes(trained, mesh) / total,
    }
    table |= {f"{column}_formula": value for column, value in formulae(name, mesh).items()}

    mesh = make_mesh(data=4, model=2, devices=devices)
    trained = place(params, mesh, split_rules(engine.training))
    generating = relayout(relayout(trained, mesh, split_rules(engine.gathered)), mesh, split_rules(GENERATION))
    back = relayout(generating, mesh, split_rules(engine.training))
    moving = [x for x in jax.tree.leaves(trained) if not x.sharding.is_fully_replicated]
    whole, one = gathering(trained, mesh, engine), gathering({"embed": trained["embed"]}, mesh, engine)
    shard = bytes_per_device(trained["embed"])
    scored = [log_probs(decoder, jax.device_put(params, devices[0]))]
    scored += [log_probs(decoder, tree, mesh) for tree in (trained, generating)]
    same = [
        bool(np.array_equal(x, y))
        for tree in (generating, back) for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True)
    ]
    return table | {
        "training_bytes": bytes_per_device(trained) / total,
        "generation_bytes": bytes_per_device(generating) / total,
        "equal": float(all(same)),
        "log_prob_gap": max(float(np.max(np.abs(x - scored[0]))) for x in scored[1:]),
        "gathers": whole.counts.get("all-gather", 0) / len(moving),
        "permutations": whole.counts.get("collective-permute", 0) / len(moving),
        "other_collectives": float(sum(whole.counts.values())) / len(moving)
        - (whole.counts.get("all-gather", 0) + whole.counts.get("collective-permute", 0)) / len(moving),
        "temporary": one.temporary / shard,
        "kept": float(kept_slices(trained["embed"]["embedding"], mesh)),
    }


def gathering(tree: PyTree, mesh: Mesh, engine: Engine) -> Traffic:
    """What the program moves and takes that gathers a tree in the layout of training."""
    leaves = jax.tree.leaves(tree)
    goals = jax.tree.leaves(resident_shardings(tree, split_rules(engine.gathered), mesh))
    moving = [(x, goal) for x, goal in zip(leaves, goals, strict=True) if not x.sharding.is_equivalent_to(goal, x.ndim)]
    arrays, targets = [x for x, _ in moving], tuple(goal for _, goal in moving)
    return traffic(relayout_program(tuple(x.sharding for x in arrays), targets).lower(arrays).compile())


def redundant_bytes(trained: PyTree, mesh: Mesh) -> int:
    """Bytes of training that the fullest device has to keep beside its part of generation, as they are not inside it.
    """
    goals = jax.tree.leaves(resident_shardings(trained, split_rules(GENERATION), mesh))
    outside = dict.fromkeys(mesh.devices.flat, 0)
    for x, goal in zip(jax.tree.leaves(trained), goals, strict=True):
        for device, own in _slices(x, x.sharding).items():
            shared = np.prod([_overlap(a, b) for a, b in zip(own, _slices(x, goal)[device], strict=True)], initial=1)
            outside[device] += (np.prod([b - a for a, b in own], initial=1) - shared) * x.dtype.itemsize
    return int(max(outside.values()))


def kept_slices(x: jax.Array, mesh: Mesh) -> int:
    """On how many devices an embedding's slice of training lies inside of the slice of generation."""
    tree = {"embed": {"embedding": x}}
    goal = _slices(x, resident_shardings(tree, split_rules(GENERATION), mesh)["embed"]["embedding"])
    return sum(
        all(c <= a and b <= d for (a, b), (c, d) in zip(own, goal[device], strict=True))
        for device, own in _slices(x, x.sharding).items()
    )


def _slices(x: jax.Array, sharding: jax.sharding.Sharding) -> Mapping[jax.Device, list[tuple[int, int]]]:
    """First and last place of each dimension by device."""
    return {
        device: [part.indices(size)[:2] for part, size in zip(index, x.shape, strict=True)]
        for device, index in sharding.devices_indices_map(x.shape).items()
    }


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def log_probs(decoder: DecoderConfig, params: PyTree, mesh: Mesh | None = None) -> np.ndarray:
    """Of 8 rows of random tokens, where the parameters lie."""
    tokens = np.random.default_rng(0).integers(0, decoder.vocab_size, (8, 32)).astype(np.int32)

    def score(params: PyTree, tokens: jax.Array) -> jax.Array:
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = Decoder(decoder, packed=False).apply({"params": params}, tokens, places, jnp.ones_like(tokens))
        return token_log_probs(hidden, head_kernel(params, decoder), tokens)[0]

    if mesh is None:
        return np.asarray(jax.jit(score)(params, tokens))
    with jax.set_mesh(mesh):
        return np.asarray(jax.jit(score)(params, tokens))
