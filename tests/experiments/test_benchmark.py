"""Every suite of the benchmark runs, small, and says what it promises; no test asserts a figure of time."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from configs.offline_rl import get_config
from experiments.benchmark import __main__ as binary
from experiments.benchmark import measuring
from experiments.benchmark.measuring import Variant, rates
from experiments.benchmark.peers import checkout
from experiments.benchmark.suites import generative, language, offline_rl, online, preferences, sharding
from rl_jax.control.recipes import RECIPES

QUICK = functools.partial(rates, repeats=1, seconds=0.0)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The loop's mesh takes all devices, and eight virtual ones take longer to compile for."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Suites of a few updates on little data, whatever size is asked for."""
    monkeypatch.setattr(offline_rl, "FULL", offline_rl.TINY._replace(fields={}))
    monkeypatch.setattr(generative, "UNETS", {size: generative.UNETS["tiny"] for size in ("small", "tiny")})
    monkeypatch.setattr(generative, "MODEL_CALLS", 2)


def test_a_rate_is_the_median_of_timings_taken_in_turn(monkeypatch):
    now, order = [0.0], []

    def variant(name, durations):
        durations = iter(durations)

        def run():
            order.append(name)
            now[0] += next(durations)
            return 6

        return Variant(run)

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    variants = {"a": variant("a", [99.0, 1.0, 3.0, 2.0]), "b": variant("b", [99.0, 0.5, 0.5, 6.0, 12.0])}
    assert rates(variants, repeats=3, seconds=1.0) == {"a": 3.0, "b": 1.0}  # of 6, 2, 3 and 12, 1, 0.5
    assert "".join(order) == "ababbabab"


def test_the_binary_prints_one_line_about_an_agent_and_its_peer(monkeypatch, capsys):
    peer = Variant(lambda: 1, ours={"batch_size": 16})
    monkeypatch.setattr(offline_rl, "peers_of", lambda *others: {"jax_corl": peer})
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(suite="offline_rl", agent=["bc"], seeds=2, repeats=3, seconds=0.01):
        binary.main(["benchmark"])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    figures = {name.removeprefix("bc_"): value for name, value in result.items() if name.startswith("bc_")}
    assert figures.keys() == {
        "updates_per_s", "updates_per_s_2_seeds", "compile_s", "compile_s_2_seeds", "updates_fused", "flops_per_update",
        "bytes_per_update", "percent_of_sgemm", "ratio_to_plain", "jax_corl_updates_per_s", "ratio_to_jax_corl",
    }
    assert all(value > 0 for value in figures.values())
    # By hand: three layers of products, forward, and backward twice as many but for the first layer's input.
    products = 256 * (11 * 256 + 256 * 256 + 256 * 3)
    assert figures["flops_per_update"] == pytest.approx(2 * (3 * products - 256 * 11 * 256), rel=0.05)
    # Parameters, Adam's two moments and gradients are read and the first three are written: the least that can be.
    parameters = 11 * 256 + 256 * 256 + 256 * 3 + 256 + 256 + 3
    assert figures["bytes_per_update"] > 4 * 6 * parameters


@pytest.mark.slow
def test_a_plain_loop_draws_sequences_for_an_agent_that_reads_them():
    tiny = offline_rl.TINY
    variant = offline_rl.plain(offline_rl.make_config("dt", tiny), offline_rl.synthetic_episodes(tiny.steps))
    assert variant.run() > 0 and variant.flops > 0


@pytest.mark.slow
@pytest.mark.parametrize("name, mdp", [("ppo", ""), ("ppo_freeway_10_fs30", "freeway_10_fs30")])
def test_the_online_suite_counts_environment_steps(name, mdp):
    # Twice the same program: the session's cache has the second.
    result = online.suite(QUICK, 1, mdp=mdp, steps=online.TINY_STEPS)
    assert result.keys() == {
        "suite", "device", "seeds", f"{name}_env_steps_per_s", f"{name}_env_steps_per_s_1_seeds", f"{name}_compile_s",
        f"{name}_compile_s_1_seeds",
    }
    assert all(value > 0 for name, value in result.items() if name.startswith("ppo_"))


@pytest.mark.slow
def test_preferences_are_measured_in_rates_and_sizes():
    result = preferences.suite(QUICK, "tiny")
    cpl = 35 * 16 + 16 * 16 + 16 * 4 + 2 * 16 + 4
    others = 2 * 2 * (39 * 16 + 16 * 16 + 16 + 2 * 16 + 1) + (35 * 16 + 16 * 16 + 16 + 2 * 16 + 1)
    assert result["cpl_parameters"] == cpl
    assert result["piql_parameters"] == cpl + others + 39 * 16 + 16 * 16 + 16 + 2 * 16 + 1
    assert result["cpl_updates_per_s"] > 0 and result["ratio_of_rates"] > 0


@pytest.mark.slow
def test_a_mesh_of_one_device_is_measured_beside_none():
    result = sharding.suite(QUICK, offline_rl.TINY)
    assert result["devices"] == jax.device_count() and result["ratio_of_fsdp_to_no_mesh"] == pytest.approx(
        result["iql_updates_per_s_fsdp"] / result["iql_updates_per_s_no_mesh"]
    )
    assert all(value > 0 for name, value in result.items() if name.startswith("iql_"))


@pytest.mark.slow
def test_the_script_for_an_accelerator_leaves_a_line_a_measurement(tmp_path):
    """All of it, small, on a CPU; what fails leaves a line and the others run."""
    script = Path(__file__).parents[2] / "experiments" / "benchmark" / "accelerator.sh"
    environment = {**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([script, tmp_path, "tiny"], env=environment, capture_output=True, text=True, check=True)
    machine, *lines = map(json.loads, (tmp_path / "benchmark_cpu.jsonl").read_text().splitlines())
    assert machine["device"] == "cpu" and machine["jax"] == jax.__version__
    suites = ["offline_rl", "online", "sharding", "generative", "language"]
    assert [line.get("suite", line) for line in lines] == suites, done.stderr
    assert {"iql_updates_per_s", "iql_updates_per_s_16_seeds"} <= lines[0].keys()


def test_the_script_for_an_accelerator_says_what_fails_and_goes_on(tmp_path):
    """By an interpreter that finds a device and fails in every measurement, with a word on the last line."""
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\ncase \"$*\" in\n"
        "*'-m experiments.benchmark'*) echo 'Out of \"memory\"' >&2; exit 1 ;;\n"
        "*find_spec*) echo mujoco ;;\n"
        "*device_kind*) printf 'nvidia_h100\\ngpu\\n{}\\n' ;;\n"
        f"*) exec {sys.executable} \"$@\" ;;\nesac\n"
    )
    fake.chmod(0o755)
    script = Path(__file__).parents[2] / "experiments" / "benchmark" / "accelerator.sh"
    environment = {**os.environ, "PYTHON": str(fake)}
    done = subprocess.run([script, tmp_path], env=environment, capture_output=True, text=True, check=True)
    assert "missing: mujoco (make setup installs them)" in done.stderr
    _, *lines = map(json.loads, (tmp_path / "benchmark_nvidia_h100.jsonl").read_text().splitlines())
    assert [line["error"] for line in lines] == ['Out of "memory"'] * 5
    assert "--size=0.5b" in lines[-1]["measurement"]
    limits = re.findall(r"^(?:measure|timeout --kill-after=2) (\d+) ", script.read_text(), re.MULTILINE)
    assert len(limits) == 6 and sum(map(int, limits)) + 2 * len(limits) < 360


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_generative_suite_samples_and_the_small_u_net_trains(size):
    result = generative.suite(QUICK, size)
    assert result["parameters"] > 1e3 and result["images_per_s"] > 0
    assert (result.get("trained_images_per_s", 0) > 0) == (size == "small")


@pytest.mark.slow
def test_the_language_suite_samples_and_trains_beside_another_python(tmp_path):
    """A stand-in for transformers' process counts what it is told and does nothing."""
    fake = tmp_path / "python"
    fake.write_text(
        f"#!{sys.executable}\nimport json, sys\ntold = json.loads(sys.argv[2])\n"
        "print(json.dumps({'parameters': 32 * 16 + 3 * 16 + 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24}), flush=True)\n"
        "for line in sys.stdin:\n    print(len(told['prompts']) * told['max_new_tokens'], flush=True)\n"
    )
    fake.chmod(0o755)
    result = language.suite(QUICK, "tiny", str(fake))
    assert min(result[f"{name}_tokens_per_s"] for name in ("sampled", "trained", "scored")) > 0
    assert 0 < result["share_of_matmul_score"] < 1 and 0 < result["share_of_matmul_train"] < 1
    shares = [result[f"grpo_share_{name}"] for name in ("generate", "score", "update")]
    assert result["grpo_steps_per_s"] > 0 and min(shares) > 0 and sum(shares) == pytest.approx(1.0)
    for figure in ("sampled_tokens_per_s", "trained_tokens_per_s"):
        ratio = result[figure] / result[f"transformers_{figure}"]
        assert result[f"ratio_to_transformers_{figure}"] == pytest.approx(ratio)
    fake.write_text(fake.read_text().replace("32 * 16", "31 * 16"))
    with pytest.raises(ValueError, match=f"--transformers_python={fake} has 2464 parameters and ours 2480"):
        language.suite(QUICK, "tiny", str(fake))


def test_every_agent_has_a_setting():
    assert set(offline_rl.AGENTS) == {recipe.default_config().name for recipe in RECIPES.values()}
    for name, recipe in offline_rl.AGENTS.items():
        assert offline_rl.make_config(name).agent.name == get_config(f"{recipe}/hopper-medium").agent.name == name


@pytest.mark.parametrize(
    "suite, flag, message",
    [
        (offline_rl.suite, "jax_corl", "there is no algos/ in it"),
        (offline_rl.suite, "corl", "there is no algorithms/ in it"),
        (online.suite, "purejaxrl", "there is no purejaxrl/ in it"),
        (generative.suite, "diffusers_python", "there is no such file, name a Python interpreter"),
        (language.suite, "transformers_python", "there is no such file, name a Python interpreter"),
    ],
)
def test_a_flag_that_names_nothing_is_one_clear_error(suite, flag, message, tmp_path):
    with pytest.raises(ValueError, match=f"--{flag}={tmp_path}: {message}"):
        suite(QUICK, **{flag: str(tmp_path)})


def test_a_file_of_a_checkout_leaves_nothing_behind(tmp_path):
    code = "import os, sys, d4rl; os.environ['MARK'] = '1'; ARGUMENTS = sys.argv[1:]"
    (tmp_path / "algorithm.py").write_text(code)
    module = checkout.load(tmp_path / "algorithm.py")
    assert module.ARGUMENTS == [] and "MARK" not in os.environ and "d4rl" not in sys.modules
    with pytest.raises(ValueError, match="take another version"):
        checkout.load(tmp_path / "other.py")


def test_of_batches_that_do_not_fit_the_next_smaller_is_tried(monkeypatch):
    tried = []

    def sampling(model, batch_size):
        def run():
            tried.append(batch_size)
            if batch_size > fit:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
            return batch_size

        return Variant(run)

    monkeypatch.setattr(generative, "sampling", sampling)
    for fit, wanted, steps in ((100, 96, [128, 112, 96]), (300, 128, [128]), (50, 64, [128, 112, 96, 80])):
        tried.clear()
        assert generative.fitting(None, 131, 64) == wanted and tried == steps
