"""Language models with real weights, by their name, file or folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from rl_jax.core.mesh import Rule
from rl_jax.language.decoder import SHARDING_RULES
from rl_jax.language.gguf import load_gguf
from rl_jax.language.hf_folder import load_folder, save_folder
from rl_jax.language.pretrained import Pretrained
from rl_jax.language.smollm2 import load_smollm2
from rl_jax.language.stories import load_stories260k

__all__ = ["Pretrained", "load", "load_folder", "load_gguf", "load_smollm2", "load_stories260k", "save_folder"]

BY_NAME = {"stories260k": load_stories260k, "smollm2": load_smollm2}


def load(
    name: str | Path, *, dtype: Any = jnp.float32, mesh: Mesh | None = None, rules: Sequence[Rule] = SHARDING_RULES
) -> Pretrained:
    """A language model: stories260k, smollm2, a .gguf file, or a folder as transformers writes it.

    Args:
      dtype: of the parameters.
      mesh: where they lie, by `rules`; None for the first device.

    Raises:
      FileNotFoundError: there is no such thing, or a file of it is missing.
      ValueError: it is damaged, or of another kind.
    """
    reader = BY_NAME.get(str(name))
    if reader is not None:
        return reader(dtype=dtype, mesh=mesh, rules=rules)
    reader = load_gguf if Path(name).suffix == ".gguf" else load_folder
    return reader(name, dtype=dtype, mesh=mesh, rules=rules)
