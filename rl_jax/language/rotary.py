"""Rotary positions and their scalings to longer contexts.

Su et al. 2021, arXiv 2104.09864. Pairs are (i, i + d / 2), Hugging Face's layout: whoever reads files that turn
(2 i, 2 i + 1) permutes the kernels of q and k.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# By kind of scaling: what its dictionary must hold beside the kind.
SCALINGS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
Scaling = tuple[tuple[str, Any], ...]


def checked_scaling(given: Mapping[str, Any] | Scaling | None) -> Scaling | None:
    """Hugging Face's dictionary as sorted pairs, which can be hashed; None where it asks for plain rotations.

    The kind stands under "rope_type"; older files say "type".

    Raises:
      ValueError: the kind is not one of SCALINGS, or a field of it is missing.
    """
    found = dict(given or {})
    kind = found.setdefault("rope_type", found.pop("type", "default"))
    if kind == "default":
        return None
    if kind not in SCALINGS:
        raise ValueError(f"rope_scaling of the type {kind!r}: known are {', '.join(SCALINGS)}")
    missing = [name for name in SCALINGS[kind] if found.get(name) is None]
    if missing:
        raise ValueError(f"rope_scaling of the type {kind!r} lacks {', '.join(missing)}")
    return tuple(sorted(found.items()))


def frequencies(width: int, theta: float, scaling: Scaling | None) -> tuple[np.ndarray, float]:
    """Radians that a position turns each pair of a head by, [width / 2] float32, and a factor of cosine and sine.

    Plain: theta^(-2 i / width). "linear" divides by its factor. "llama3" divides the slow pairs, leaves the fast and
    blends between (Grattafiori et al. 2024, arXiv 2407.21783); "yarn" does so by another ramp, with a temperature (Peng
    et al. 2023, arXiv 2309.00071).
    """
    plain = theta ** -(np.arange(0, width, 2) / width)
    if scaling is None:
        return plain.astype(np.float32), 1.0
    given = dict(scaling)
    kept, factor = 0.0, 1.0
    if given["rope_type"] == "llama3":
        turns = given["original_max_position_embeddings"] * plain / (2 * math.pi)
        low, high = given["low_freq_factor"], given["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
    if given["rope_type"] == "yarn":
        # A file may hold null where it means the default, hence `or`.
        ends = [_pair_of(width, theta, given, given.get(name) or turns) for name, turns in YARN_TURNS.items()]
        if given.get("truncate", True):
            ends = [math.floor(ends[0]), math.ceil(ends[1])]
        first, last = max(ends[0], 0), min(ends[1], width - 1)
        kept = 1 - np.clip((np.arange(width // 2) - first) / max(last - first, 1e-3), 0, 1)
        factor = given.get("attention_factor") or 0.1 * math.log(given["factor"]) + 1
    return (kept * plain + (1 - kept) * plain / given["factor"]).astype(np.float32), factor


YARN_TURNS = {"beta_fast": 32, "beta_slow": 1}  # in the first context: of the pairs where the blend begins and ends


def _pair_of(width: int, theta: float, given: Mapping[str, Any], turns: float) -> float:
    """The pair, a real number, that makes so many turns in the context that the model was first trained on."""
    context = given["original_max_position_embeddings"]
    return width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))


Rotation = tuple[jax.Array, jax.Array]


def rotations(width: int, theta: float, scaling: Scaling | None, positions: jax.Array) -> Rotation:
    """Cosine and sine, [..., 1, width / 2] float32, of the angles of positions [...]; the 1 stands for the heads."""
    turned, factor = frequencies(width, theta, scaling)
    angles = positions[..., None, None].astype(jnp.float32) * turned
    return factor * jnp.cos(angles), factor * jnp.sin(angles)


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Turns the pairs of x [..., heads, d]; in float32, and the result has x's dtype."""
    cosine, sine = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)
