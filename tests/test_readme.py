"""The README's "Add a paper": its blocks are a whole paper, which trains, resumes and is judged."""

import re
import sys
import types
from pathlib import Path

import pytest

import rl_jax.agents
from rl_jax.control.agents import AGENTS
from rl_jax.core import main
from rl_jax.reports.declaration import Preset

README = (Path(__file__).parents[1] / "README.md").read_text()
NAMES = ("rl_jax.agents.crr", "configs.crr", "experiments.crr.experiment", "experiments.crr.claims")


@pytest.fixture
def paper(monkeypatch):
    """The four modules of the README, importable by their names."""
    section = README.split("## Add a paper")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.S)
    modules = {}
    for name, code in zip(NAMES, blocks, strict=True):
        modules[name] = module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, f"README.md: {name}", "exec"), module.__dict__)
        if name == "rl_jax.agents.crr":
            monkeypatch.setattr(rl_jax.agents, "crr", module, raising=False)
            monkeypatch.setitem(AGENTS, "crr", module.crr)
    return modules


def test_the_papers_blocks_are_short():
    section = README.split("## Add a paper")[1].split("\n## ")[0]
    assert sum(len(block.splitlines()) for block in re.findall(r"```python\n(.*?)```", section, re.S)) <= 160


def test_it_trains_and_finishes(paper, tmp_path):
    config = paper["configs.crr"].get_config("tiny-crr")
    config.update_from_flattened_dict({"num_steps": 4, "loop.eval_every": 0, "tensorboard": False, "num_seeds": 1})
    made = paper["experiments.crr.experiment"].experiment
    summary = main.run(made, config, tmp_path)
    assert summary["step"] == 4 and summary["score"] is not None and "gain_interval" in summary
    assert main.run(made, config, tmp_path)["score"] == summary["score"]


def test_its_presets_are_declared(paper):
    for preset in paper["experiments.crr.claims"].PAPER.presets.values():
        declared = preset()
        assert isinstance(declared, Preset) and declared.runs and declared.claims
        for run in declared.runs:
            assert paper["configs.crr"].get_config(run.config.split(":")[1]).agent.name == run.method
