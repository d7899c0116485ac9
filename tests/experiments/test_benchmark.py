"""The benchmark runs and says what it promises; its figures are asserted by no test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs.offline_rl import AGENTS
from experiments import benchmark, image_benchmark

ROOT = Path(__file__).resolve().parents[2]


def run(*args: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments.benchmark", "--seconds=0.01", "--repeats=3", "--seeds=2", *args]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_one_agent_to_its_json_line():
    done = run("--agent=bc")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    figures = {name.removeprefix("bc_"): value for name, value in result.items() if name.startswith("bc_")}
    assert figures.keys() == {
        "updates_per_s", "updates_per_s_2_seeds", "compile_s", "compile_s_2_seeds", "updates_fused", "flops_per_update",
        "bytes_per_update", "percent_of_sgemm", "ratio_to_plain",
    }
    assert all(value > 0 for value in figures.values())
    # By hand: three layers of products, forward, and backward twice as many but for the first layer's input.
    products = 256 * (11 * 256 + 256 * 256 + 256 * 3)
    assert figures["flops_per_update"] == pytest.approx(2 * (3 * products - 256 * 11 * 256), rel=0.05)
    # Parameters, Adam's two moments and gradients are read and the first three are written: the least that can be.
    parameters = 11 * 256 + 256 * 256 + 256 * 3 + 256 + 256 + 3
    assert figures["bytes_per_update"] > 4 * 6 * parameters


def test_it_covers_every_agent():
    assert set(benchmark.RECIPES) == {recipe.default_config().name for recipe in AGENTS.values()}
    for name in benchmark.RECIPES:
        assert benchmark.make_config(name).agent.name == name


def test_a_missing_checkout_is_one_clear_line(tmp_path):
    done = run("--agent=iql", f"--jax_corl={tmp_path}")
    assert done.returncode == 1
    assert f"--jax_corl={tmp_path}: there is no algos/ in it" in done.stderr and "Traceback" not in done.stderr


def test_a_missing_python_is_one_clear_line(tmp_path):
    done = run("--suite=generative", f"--diffusers_python={tmp_path}/python")
    assert done.returncode == 1
    assert "python: there is no such file, name a Python interpreter" in done.stderr and "Traceback" not in done.stderr


def test_of_batches_that_do_not_fit_the_next_smaller_is_tried(monkeypatch):
    tried = []

    def sampling(model, batch_size):
        tried.append(batch_size)
        if batch_size > fit:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return lambda: batch_size

    monkeypatch.setattr(image_benchmark, "sampling", sampling)
    for fit, wanted, steps in ((100, 96, [128, 112, 96]), (300, 128, [128]), (50, 64, [128, 112, 96, 80])):
        tried.clear()
        assert image_benchmark.fitting(None, 131, 64) == wanted and tried == steps


@pytest.mark.slow
def test_the_generative_suite_to_its_json_line():
    done = run("--suite=generative")
    assert done.returncode == 0, done.stderr
    assert "--diffusers_python is not given: ours is measured alone" in done.stderr
    result = json.loads(done.stdout)
    assert result["parameters"] > 2e6 and result["images_per_s"] > 0 and result["trained_images_per_s"] > 0


@pytest.mark.slow
def test_the_online_suite_to_its_json_line():
    done = run("--suite=online")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() == {
        "suite", "device", "seeds", "ppo_env_steps_per_s", "ppo_env_steps_per_s_2_seeds", "ppo_compile_s",
        "ppo_compile_s_2_seeds",
    }
    assert all(value > 0 for name, value in result.items() if name.startswith("ppo_"))
