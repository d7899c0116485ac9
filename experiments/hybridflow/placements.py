"""One driver on three placements of its roles: what each iteration says and writes, and what a stage takes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.hybridflow.models import Functions, Roles
from rl_jax.core.mesh import bytes_per_device, make_mesh
from rl_jax.core.program import PyTree
from rl_jax.language.roles import TRAINING_RULES, generation_rules

TRAINED = ("actor", "critic", "cost_critic", "multiplier")
# Functions by the stage of an iteration that they belong to, with the role that runs them.
STAGES = {
    "generate": {"generate": "actor", "greedy": "actor"},
    "score": {
        "actor_log_probs": "actor", "reference_log_probs": "reference", "values": "critic", "scores": "reward",
        "costs": "cost",
    },
    "update": {"update_actor": "actor", "update_critic": "critic", "update_multiplier": "multiplier"},
}


def meshes(devices: list[jax.Device]) -> dict[str, tuple[Mesh, Mesh]]:
    """By placement: the actor's mesh, and that of the other roles, of 8 devices."""
    everywhere = make_mesh(data=4, model=2, devices=devices)
    first, others = (make_mesh(data=2, model=2, devices=half) for half in (devices[:4], devices[4:]))
    alone = make_mesh(data=1, devices=devices[:1])
    return {"together": (everywhere, everywhere), "split": (first, others), "one": (alone, alone)}


def placed(roles: Roles, mesh_of_actor: Mesh, mesh_of_others: Mesh) -> Roles:
    """Trained roles in the layout of training, the others in that of generation."""

    def put(name: str, role: Any) -> Any:
        rules = TRAINING_RULES if name in TRAINED else generation_rules(TRAINING_RULES)
        return role.placed(mesh_of_actor if name == "actor" else mesh_of_others, rules)

    found = {name: put(name, role) for name, role in roles._asdict().items() if role is not None}
    return roles._replace(**found)


class Clock:
    """Runs functions and notes what each call takes.

    Attributes:
      seconds: by function, of every call, without compilation.
      temporary: by function, bytes a device beside its arguments and results.
    """

    def __init__(self):
        self.seconds: dict[str, list[float]] = {}
        self.temporary: dict[str, int] = {}
        self._compiled: dict[Any, Any] = {}

    def watched(self, functions: Functions) -> Functions:
        """The functions, each compiled at its first call and timed at all."""
        return Functions(*(self._watch(name, function) for name, function in functions._asdict().items()))

    def _watch(self, name: str, function: Callable) -> Callable:
        def run(*inputs: PyTree) -> PyTree:
            kind = name, jax.tree.structure(inputs)
            if kind not in self._compiled:
                self._compiled[kind] = function.lower(*inputs).compile()
                memory = self._compiled[kind].memory_analysis()
                self.temporary[name] = max(self.temporary.get(name, 0), memory.temp_size_in_bytes)
            begin = time.perf_counter()
            found = jax.block_until_ready(self._compiled[kind](*inputs))
            self.seconds.setdefault(name, []).append(time.perf_counter() - begin)
            return found

        return run

    def stages(self) -> dict[str, float]:
        """Seconds of a stage of an iteration, each function by its fastest call."""
        return {
            stage: sum(min(self.seconds[name]) for name in names if name in self.seconds)
            for stage, names in STAGES.items()
        }

    def costs(self) -> dict[str, dict[str, float]]:
        """Seconds by stage and model."""
        found: dict[str, dict[str, float]] = {stage: {} for stage in STAGES}
        for stage, names in STAGES.items():
            for name, model in names.items():
                if name in self.seconds:
                    found[stage][model] = found[stage].get(model, 0.0) + min(self.seconds[name])
        return found


class Followed(NamedTuple):
    """Some iterations on a placement.

    Attributes:
      losses: [iterations, losses], in the order of their names.
      tokens: of all that was written, an array an iteration.
      parameters: bytes of all roles on the fullest device, between two stages.
    """

    losses: np.ndarray
    tokens: list[np.ndarray]
    parameters: int


def follow(step: Callable[[Any, int], tuple[Any, Any, dict[str, jax.Array]]], start: Any, iterations: int) -> Followed:
    """Takes steps of (roles or state, number) -> (the same, rows, metrics)."""
    losses, tokens = [], []
    for number in range(iterations):
        start, rows, metrics = step(start, number)
        losses.append([float(metrics[name]) for name in sorted(metrics) if name.endswith("/loss")])
        tokens.append(np.asarray(rows.tokens))
    return Followed(np.array(losses), tokens, fullest(start) if isinstance(start, Roles) else 0)


def fullest(roles: Roles) -> int:
    """Bytes of all placed roles' parameters on the fullest device."""
    by_device: dict[jax.Device, int] = {}
    for role in roles:
        for device in role.mesh.devices.flat if role is not None and role.mesh is not None else ():
            by_device[device] = by_device.get(device, 0) + bytes_per_device(role.params)
    return max(by_device.values(), default=0)
