"""The configuration of the toy binary."""

from rl_jax.core.config import from_preset
from tests.core import toys


def get_config(preset="quick"):
    """Twenty steps of the toy regression."""
    return from_preset("toy", {"quick": _quick, "short": lambda: _quick(num_steps=4)}, preset)


def _quick(**fields):
    config = toys.config(num_seeds=2, **fields)
    config.agent = {"name": "toy", "rate": 0.9, "width": 16}
    return config
