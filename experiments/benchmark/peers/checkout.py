"""Files of another library's checkout as modules."""

import contextlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# Simulators and loggers that the files import and an update does not need.
STUBBED = ("d4rl", "gym", "pyrallis", "wandb", "brax", "brax.envs", "brax.envs.wrappers.training", "navix")


def folder_of(flag: str, value: str, folder: str) -> Path | None:
    """The folder `folder` of the checkout that the flag names; None for a flag that is not given.

    Raises:
      ValueError: it is not there.
    """
    if not value:
        return None
    path = Path(value).expanduser() / folder
    if not path.is_dir():
        raise ValueError(f"--{flag}={value}: there is no {folder}/ in it, name a checkout of the library")
    return path


def load(path: Path) -> ModuleType:
    """A file as a module; it sees neither the command line, nor simulators and loggers, and changes no environment.

    Raises:
      ValueError: there is no such file.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: take another version of the library")
    with sandbox():
        spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        # Data classes look for their module while it is being made.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def sandbox() -> Iterator[None]:
    """Stubs, no arguments, and an environment that is put back."""
    arguments, environment = sys.argv, dict(os.environ)
    stubs = [name for name in STUBBED if name not in sys.modules]
    for name in stubs:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].Env = object
        sys.modules[name].wrap = lambda: lambda main: main
        sys.modules[name].EpisodeWrapper = sys.modules[name].AutoResetWrapper = object
    sys.argv = sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments
        os.environ.clear()
        os.environ.update(environment)
        for name in stubs:
            del sys.modules[name]
