"""Updates per second of every agent, without compilation and evaluation, beside simpler and other people's loops.

    python -m experiments.benchmark --suite=offline_rl

Made-up data of Hopper's shapes; every variant runs in turn, `--repeats` times, so that a busy machine slows all alike;
the figures are medians. Variants of an agent:
  fused        the core's step: data on the device, a chunk of updates in one program; for 1 and for --seeds runs.
  plain        the same update, one jitted call each, batches drawn by numpy: what one writes first.
  jax_corl     JAX-CORL's own update (only with --jax_corl=DIR, a checkout of github.com/nissymori/JAX-CORL, and its
               requirements distrax, omegaconf and pydantic).
`percent_of_sgemm` is the rate of floating-point operations (XLA's count for one update) over that of a large float32
matrix product measured in the same run. The last line on standard output is one JSON object.
"""

import contextlib
import importlib.util
import json
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from configs import offline_rl
from experiments.offline_rl.learner import AGENTS, make_agent, make_learner
from rl_jax.core.fused import default_seed_axis, empty_window, fused_step, init_runs, run_keys
from rl_jax.core.program import Program, Resident
from rl_jax.core.runtime import run_binary
from rl_jax.data.episodes import Episodes
from rl_jax.data.transitions import Transitions

SIZE, OBSERVATION, ACTION = 100_000, 11, 3
CHUNK = 250

SUITE = flags.DEFINE_enum("suite", "offline_rl", ["offline_rl"], "What to measure.")
SEEDS = flags.DEFINE_integer("seeds", 8, "Runs side by side in the second fused variant.", lower_bound=2)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timings of each variant; the median counts.", lower_bound=3)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Length of one timing.", lower_bound=0.01)
AGENT = flags.DEFINE_multi_enum("agent", list(AGENTS), list(AGENTS), "Agents to measure; repeat the flag for several.")
JAX_CORL = flags.DEFINE_string("jax_corl", "", "A checkout of JAX-CORL to measure in the same run.")

Variant = Callable[[], int]  # does some updates to their end and returns how many


def synthetic_episodes() -> Episodes:
    """Steps of Hopper's shapes in episodes of 1000, each ended by time."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    starts = np.arange(0, SIZE, 1000)
    truncated = np.zeros(SIZE, bool)
    truncated[starts + 999] = True
    return Episodes(
        normal(SIZE, OBSERVATION), np.clip(normal(SIZE, ACTION), -1, 1), normal(SIZE), np.zeros(SIZE, bool), truncated,
        normal(SIZE, OBSERVATION), starts,
    )  # fmt: skip


def fused(name: str, episodes: Episodes, num_seeds: int) -> tuple[Variant, float]:
    """The core's chunk of `num_seeds` runs, and the seconds that compiling it took."""
    config = offline_rl.get_config(f"{name}/hopper-medium")
    learner = make_learner(config, episodes)
    program = Program(learner.init, learner.step, Resident(learner.data))
    seed_axis = default_seed_axis()
    init_keys, keys = run_keys("init", 0, num_seeds), run_keys("train", 0, num_seeds)
    state = jax.jit(lambda keys: init_runs(program, keys, seed_axis))(init_keys)
    data = jax.device_put(learner.data)
    one_run = jax.tree.map(lambda x: x[0], state.replace(step=None)).replace(step=state.step)
    window = empty_window(program, one_run, data, num_seeds)
    chunk = fused_step(program, CHUNK, seed_axis=seed_axis, on_nan="abort", data_by_run=False)
    begin = time.perf_counter()
    compiled = jax.jit(chunk, donate_argnums=(0, 1)).lower(state, window, data, keys).compile()
    seconds = time.perf_counter() - begin
    carry = [state, window]

    def run() -> int:
        carry[:] = compiled(*carry, data, keys)
        jax.block_until_ready(carry[1])
        return CHUNK * num_seeds

    return run, seconds


def plain(name: str, episodes: Episodes) -> tuple[Variant, float]:
    """One jitted update a call on batches drawn by numpy, and the FLOPs of one update by XLA's count."""
    config = offline_rl.get_config(f"{name}/hopper-medium")
    learner, agent = make_learner(config, episodes), make_agent(config, ACTION)
    data = learner.data
    rng = np.random.default_rng(0)
    update = jax.jit(agent.update)
    carry = [agent.init(jax.random.key(0), learner.batch_at(data, np.arange(1))), jax.random.key(1)]

    def one() -> None:
        indices = rng.integers(len(data), size=config.batch_size)
        carry[1], key = jax.random.split(carry[1])
        carry[0], _ = update(carry[0], learner.batch_at(data, indices), key)

    def run() -> int:
        for _ in range(50):
            one()
        jax.block_until_ready(carry[0])
        return 50

    batch = learner.batch_at(data, np.arange(config.batch_size))
    analysis = update.lower(carry[0], batch, carry[1]).compile().cost_analysis()
    return run, analysis["flops"]


def jax_corl(name: str, transitions: Transitions, checkout: Path) -> Variant | None:
    """JAX-CORL's own `update_n_times` with its own defaults; None for an agent that it does not have."""
    files = {"iql": ("iql", "IQL", "create_iql_train_state"), "td3_bc": ("td3bc", "TD3BC", "create_td3bc_train_state")}
    if name not in files:
        return None
    file, algorithm, create = files[name]
    path = checkout / "algos" / f"{file}.py"
    if not path.exists():
        raise ValueError(f"--jax_corl={checkout}: {path} does not exist")
    with _simulators_stubbed():
        spec = importlib.util.spec_from_file_location(f"jax_corl_{file}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    config = getattr(module, f"{algorithm}Config")()
    fields = {
        "observations": transitions.observations, "actions": transitions.actions, "rewards": transitions.rewards,
        "next_observations": transitions.next_observations, "dones": 1 - transitions.masks,
        "dones_float": 1 - transitions.masks,
    }  # fmt: skip
    data = module.Transition(**{field: jnp.asarray(fields[field]) for field in module.Transition._fields})
    state = getattr(module, create)(jax.random.PRNGKey(0), data.observations[0], data.actions[0], config)
    update = jax.jit(getattr(module, algorithm)().update_n_times, static_argnums=(3,))
    carry = [state, jax.random.PRNGKey(1)]

    def run() -> int:
        for _ in range(6):
            carry[1], key = jax.random.split(carry[1])
            carry[0], _ = update(carry[0], data, key, config)
        jax.block_until_ready(carry[0])
        return 6 * config.n_jitted_updates

    return run


@contextlib.contextmanager
def _simulators_stubbed() -> Iterator[None]:
    """JAX-CORL's files import a simulator and a logger and read the command line; its update needs none of them."""
    arguments, stubs = sys.argv, [name for name in ("d4rl", "gym", "wandb") if name not in sys.modules]
    for name in stubs:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].Env = object
    sys.argv = sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments
        for name in stubs:
            del sys.modules[name]


def sgemm() -> Variant:
    """A 2048^3 float32 matrix product; returns its floating-point operations."""
    x = jnp.ones((2048, 2048)) / 2048
    product = jax.jit(lambda x: x @ x)

    def run() -> int:
        product(x).block_until_ready()
        return 2 * 2048**3

    return run


def rates(variants: dict[str, Variant]) -> dict[str, float]:
    """Median rate of each variant over --repeats timings taken in turn, after one warm-up each."""
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    for _ in range(REPEATS.value):
        for name, run in variants.items():
            begin, done = time.perf_counter(), 0
            while time.perf_counter() - begin < SECONDS.value:
                done += run()
            samples[name].append(done / (time.perf_counter() - begin))
    for name, values in samples.items():
        logging.info("%-14s median %.4g, from %.4g to %.4g", name, np.median(values), min(values), max(values))
    return {name: float(np.median(values)) for name, values in samples.items()}


def offline_rl_suite() -> dict[str, Any]:
    episodes = synthetic_episodes()
    transitions = episodes.to_transitions()
    result: dict[str, Any] = {"suite": "offline_rl", "device": jax.devices()[0].device_kind, "seeds": SEEDS.value}
    for name in AGENT.value:
        logging.info("%s, updates/s:", name)
        one, compile_one = fused(name, episodes, 1)
        many, compile_many = fused(name, episodes, SEEDS.value)
        loop, flops = plain(name, episodes)
        variants = {"fused": one, "fused_seeds": many, "plain": loop}
        peer = jax_corl(name, transitions, Path(JAX_CORL.value).expanduser()) if JAX_CORL.value else None
        if peer is not None:
            variants["jax_corl"] = peer
        rate = rates(variants | {"sgemm": sgemm()})
        result |= {
            f"{name}_updates_per_s": rate["fused"],
            f"{name}_updates_per_s_{SEEDS.value}_seeds": rate["fused_seeds"],
            f"{name}_compile_s": compile_one,
            f"{name}_compile_s_{SEEDS.value}_seeds": compile_many,
            f"{name}_ratio_to_plain": rate["fused"] / rate["plain"],
            f"{name}_flops_per_update": flops,
            f"{name}_percent_of_sgemm": 100 * flops * rate["fused"] / rate["sgemm"],
        }
        if peer is not None:
            result[f"{name}_ratio_to_jax_corl"] = rate["fused"] / rate["jax_corl"]
    return result


def main(argv: list[str]) -> None:
    del argv
    print(json.dumps({"offline_rl": offline_rl_suite}[SUITE.value]()), flush=True)


if __name__ == "__main__":
    run_binary(main)
