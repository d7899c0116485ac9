"""Optional dependencies: imported where they are used, missing ones named together with the extra that brings them."""

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


def require(module: str, extra: str) -> ModuleType:
    """Imports `module`, or raises `MissingExtraError` naming the extra of setup.cfg that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A missing dependency of an installed module is that module's own defect: do not disguise it.
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise MissingExtraError(f"{module} is not installed: pip install 'rl_jax[{extra}]'") from error
