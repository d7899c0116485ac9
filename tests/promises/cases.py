"""The programs that every promise is tested on. A paper joins by adding one line to CASES."""

import importlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ml_collections import ConfigDict

from rl_jax.core.program import Program


class Case(NamedTuple):
    """One program under test.

    Attributes:
      program: module with `make_program(config, workdir) -> (Program, inputs)` and HEADLINE.
      config: module with `get_config(preset)`.
      overrides: what is set besides, by dotted field.
      quick: whether `make test` runs it also where a promise costs processes or compilations of its own.
      kin: whether it is one more agent in the program of a case above; `make test-slow` alone runs the promises on it.
    """

    name: str
    program: str
    config: str
    preset: str = "tiny"
    overrides: Mapping[str, Any] = {}
    quick: bool = False
    kin: bool = False


_TINY = "tests.promises.programs"
# Products so small that XLA computes each in one thread: a CPU with more virtual devices has more threads, and a sum
# that is split among them has other bits.
_SMALL = {"batch_size": 8}
_SHORT = _SMALL | {"agent.warmup_steps": 9, "dataset.context_length": 4}
CASES = [
    Case("online", f"{_TINY}.online", f"{_TINY}.online", quick=True),
    Case("host_fed", f"{_TINY}.host_fed", f"{_TINY}.host_fed", quick=True),
    Case("scored", f"{_TINY}.scored", f"{_TINY}.scored"),
    Case("online_rl_sac", "experiments.offline_rl.finetune", "configs.offline_to_online", overrides=_SMALL, kin=True),
    Case("offline_rl_bc", "experiments.offline_rl.train", "configs.offline_rl", "tiny-bc", kin=True),
    Case("offline_rl_td3_bc", "experiments.offline_rl.train", "configs.offline_rl", "tiny-td3_bc", kin=True),
    Case("offline_rl_iql", "experiments.offline_rl.train", "configs.offline_rl", "tiny-iql", {"agent.decay_steps": 50}),
    Case("offline_rl_awac", "experiments.offline_rl.train", "configs.offline_rl", "tiny-awac", kin=True),
    Case(
        "offline_rl_xql", "experiments.offline_rl.train", "configs.offline_rl", "tiny-xql", {"agent.decay_steps": 50},
        kin=True,
    ),
    Case("offline_rl_cql", "experiments.offline_rl.train", "configs.offline_rl", "tiny-cql", kin=True),
    Case("offline_rl_sac_n", "experiments.offline_rl.train", "configs.offline_rl", "tiny-sac_n", kin=True),
    Case("offline_rl_edac", "experiments.offline_rl.train", "configs.offline_rl", "tiny-edac", kin=True),
    Case("offline_rl_rebrac", "experiments.offline_rl.train", "configs.offline_rl", "tiny-rebrac", kin=True),
    Case("offline_rl_dt", "experiments.offline_rl.train", "configs.offline_rl", "tiny-dt", _SHORT, kin=True),
    Case(
        "dual_rl_recoil", "experiments.dual_rl.train", "configs.dual_rl", "tiny-recoil", {"agent.decay_steps": 50},
        kin=True,
    ),
    Case("sqirl_ppo", "experiments.sqirl.train", "configs.sqirl", "tiny-ppo", {"agent.num_steps": 32}, kin=True),
    Case("sqirl_dqn", "experiments.sqirl.train", "configs.sqirl", "tiny-dqn", kin=True),
    Case("sqirl_sqirl", "experiments.sqirl.train", "configs.sqirl", "tiny-sqirl", kin=True),
    Case("rlcm", "experiments.rlcm.train", "configs.rlcm", "tiny", {"evaluation_images": 10}, kin=True),
]

# Every test starts from these: intervals that do not divide one another, and one chunk length to compile.
STEPS = 24
COMMON = {
    "num_seeds": 1,
    "num_steps": STEPS,
    "loop.chunk": 2,
    "loop.log_every": 6,
    "loop.eval_every": 12,
    "checkpoint.every": 8,
    "tensorboard": False,
}
# One chunk from the first step to the last.
WHOLE = {"loop.chunk": 250, "loop.log_every": STEPS, "loop.eval_every": 0, "checkpoint.every": 0}


def data_dir() -> str:
    """Where data sets are made: one place for a test session and the processes that it starts."""
    return os.environ.get("RL_JAX_TEST_DATA") or str(Path(tempfile.gettempdir()) / "rl_jax_test_data")


def slow_unless(quick: Callable[[Case], bool]) -> list:
    """All cases as pytest parameters; `make test` takes those that `quick` says."""
    return [pytest.param(case, id=case.name, marks=[] if quick(case) else [pytest.mark.slow]) for case in CASES]


def by_name(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def make_config(case: Case, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    config = importlib.import_module(case.config).get_config(case.preset)
    if "dataset" in config:
        config.dataset.data_dir = data_dir()
    config.update_from_flattened_dict({**COMMON, **case.overrides, **(overrides or {})})
    return config


def make_program(case: Case, config: ConfigDict, workdir: Path) -> tuple[Program, dict[str, Any], str]:
    module = importlib.import_module(case.program)
    # A paper may tell its binary more than the core needs; the program and its inputs come first.
    program, inputs = module.make_program(config, workdir)[:2]
    return program, inputs, module.HEADLINE
