"""Updates per second of every agent, without compilation and evaluation, beside simpler and other people's loops.

    python -m experiments.benchmark --suite=offline_rl
    python -m experiments.benchmark --suite=online
    python -m experiments.benchmark --suite=generative

Made-up data of Hopper's shapes and the authors' settings for hopper-medium, but for 10 critics in SAC-N and EDAC. Every
variant runs in turn, `--repeats` times, so that a busy machine slows all alike; the figures are medians. Variants:
  fused        the core's step: data on the device, many updates in one program; for 1 and for --seeds runs.
  plain        the same update, one jitted call each, batches drawn by numpy: what one writes first.
  jax_corl     JAX-CORL's own update (only with --jax_corl=DIR, a checkout of github.com/nissymori/JAX-CORL, and its
               requirements distrax, omegaconf and pydantic).
  corl         CORL's own ReBRAC (only with --corl=DIR, a checkout of github.com/tinkoff-ai/CORL).
A ratio to a peer is of equal sizes: ours are set to the peer's widths, batch, sampled actions and number of updates
fused in a call, a variant of its own (`like_jax_corl`, `like_corl`); experiments/peers.py says what else differs.

`--suite=online` measures PPO on CartPole in environment steps a second, with all that learning takes. Variants:
  fused        the core's step: roll-outs and updates of many steps in one program; for 1 and for --seeds runs.
  purejaxrl    PureJaxRL's own PPO (only with --purejaxrl=DIR, a checkout of github.com/luchris429/purejaxrl, and its
               requirements gymnax<1 and distrax), whose settings ours are set to.

`--suite=generative` measures a text-conditioned U-Net of 5.6 million parameters on images of 32x32 by 8 calls of a
latent consistency model, all parameters trained, in float32. Variants:
  sample       images sampled a second, with the log-densities of their steps.
  train        images a second in a policy-gradient update over all of their steps.
  diffusers    both by diffusers' UNet2DConditionModel of the same shape in PyTorch, on the same device (only with
               --diffusers_python=PYTHON, an interpreter that has torch and diffusers). Where something else runs
               beside, give both one free core (`taskset -c 0 python -m ...`): PyTorch's threads wait for each other.
With --size=sd15 it is the U-Net of Stable Diffusion 1.5 as a latent consistency model has it, 860 million random
parameters, in bfloat16 on latents of 64x64, which takes an accelerator: images sampled a second by 8 calls, at two
sizes of a batch, and the most memory that the device held; and how many images fit, which is tried. The process takes
XLA_PYTHON_CLIENT_MEM_FRACTION of a GPU's memory (0.75 if not set) and leaves the rest to diffusers.

FLOPs and bytes of one update are XLA's counts for the plain variant; bytes are the operands and results of all of its
operations, and of a policy that is not due in every update (TD3+BC, ReBRAC) the update in which it is due counts.
`percent_of_sgemm` is the rate of floating-point operations over that of a large float32 matrix product measured in the
same run. The last line on standard output is one JSON object.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from configs import offline_rl
from experiments import image_benchmark, peers
from experiments.offline_rl.learner import make_agent, make_learner
from experiments.peers import Variant
from rl_jax.agents import ppo
from rl_jax.agents.online import online_program
from rl_jax.core.fused import default_seed_axis, empty_window, fused_step, init_runs, run_keys
from rl_jax.core.program import Metrics, Program, Resident, TrainState
from rl_jax.core.runtime import run_binary
from rl_jax.data.episodes import Episodes
from rl_jax.envs.cartpole import cartpole

SIZE, OBSERVATION, ACTION = 100_000, 11, 3
# Updates in one call: enough for the call to cost nothing beside them, few enough to look at the clock often.
MAX_CHUNK, CALL_FLOPS = 250, 1.5e11
ONLINE_STEPS = 100_000  # environment steps in one call of the online suite
# An agent's first recipe; the others (10%-BC, Cal-QL) differ by their data or by a term.
RECIPES: dict[str, str] = {}
for _name, _recipe in offline_rl.AGENTS.items():
    RECIPES.setdefault(_recipe.default_config().name, _name)
SIZES = {"sac": {"agent.num_critics": 10}, "edac": {"agent.num_critics": 10}}

SUITE = flags.DEFINE_enum("suite", "offline_rl", ["offline_rl", "online", "generative"], "What to measure.")
SIZE_OF_UNET = flags.DEFINE_enum("size", "small", list(image_benchmark.UNETS), "The U-Net of the generative suite.")
DIFFUSERS = flags.DEFINE_string("diffusers_python", "", "A Python with torch and diffusers to measure in the same run.")
SEEDS = flags.DEFINE_integer("seeds", 8, "Runs side by side in the second fused variant.", lower_bound=2)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timings of each variant; the median counts.", lower_bound=3)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Length of one timing.", lower_bound=0.01)
AGENT = flags.DEFINE_multi_enum("agent", list(RECIPES), list(RECIPES), "Agents to measure; repeat it for several.")
JAX_CORL = flags.DEFINE_string("jax_corl", "", "A checkout of JAX-CORL to measure in the same run.")
CORL = flags.DEFINE_string("corl", "", "A checkout of CORL, whose ReBRAC to measure in the same run.")
PUREJAXRL = flags.DEFINE_string("purejaxrl", "", "A checkout of PureJaxRL, whose PPO to measure in the same run.")


class Cost(NamedTuple):
    """XLA's count for one update."""

    flops: float
    bytes: float


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
    )


def make_config(name: str, overrides: Mapping[str, Any] = {}) -> ConfigDict:
    config = offline_rl.get_config(f"{RECIPES[name]}/hopper-medium")
    config.update_from_flattened_dict({**SIZES.get(name, {}), **overrides})
    return config


def fused(config: ConfigDict, episodes: Episodes, num_seeds: int, chunk: int) -> tuple[Variant, float]:
    """The core's step of `chunk` updates of `num_seeds` runs, and the seconds that compiling it took."""
    learner = make_learner(config, episodes)
    return fused_program(Program(learner.init, learner.step, Resident(learner.data)), num_seeds, chunk)


def fused_program(program: Program, num_seeds: int, chunk: int) -> tuple[Variant, float]:
    """The same of any program on resident data."""
    seed_axis = default_seed_axis()
    init_keys, keys = run_keys("init", 0, num_seeds), run_keys("train", 0, num_seeds)
    state = jax.jit(lambda keys: init_runs(program, keys, seed_axis))(init_keys)
    data = jax.device_put(program.source.data)
    window = empty_window(program, state, data, data_by_run=False)
    step = fused_step(program, chunk, seed_axis=seed_axis, on_nan="abort", data_by_run=False)
    begin = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(state, window, data, keys).compile()
    seconds = time.perf_counter() - begin
    carry = [state, window]
    # Calls are queued up as the peers' are.
    calls = 1 if chunk > peers.CALLS else peers.CALLS

    def run() -> int:
        for _ in range(calls):
            carry[:] = compiled(*carry, data, keys)
        jax.block_until_ready(carry[1])
        return calls * chunk * num_seeds

    return run, seconds


def plain(config: ConfigDict, episodes: Episodes) -> tuple[Variant, Cost]:
    """One jitted update a call on batches drawn by numpy, and the cost of one update."""
    learner, agent = make_learner(config, episodes), make_agent(config, ACTION)
    data = learner.data
    rng = np.random.default_rng(0)
    carry = [agent.init(jax.random.key(0), learner.batch_at(data, np.arange(1))), jax.random.key(1)]
    batch = learner.batch_at(data, np.arange(config.batch_size))

    def step(state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        new, metrics = agent.update(state, batch, key)
        return new.replace(step=state.step + 1), metrics

    update = jax.jit(step).lower(carry[0], batch, carry[1]).compile()
    analysis = update.cost_analysis()
    cost = Cost(analysis["flops"], analysis["bytes accessed"])
    calls = int(np.clip(CALL_FLOPS / 5 / cost.flops, 1, 50))

    def run() -> int:
        for _ in range(calls):
            indices = rng.integers(len(data), size=config.batch_size)
            carry[1], key = jax.random.split(carry[1])
            carry[0], _ = update(carry[0], learner.batch_at(data, indices), key)
        jax.block_until_ready(carry[0])
        return calls

    return run, cost


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


def peers_of(name: str, episodes: Episodes, chunk: int) -> dict[str, peers.Peer]:
    """The other libraries that have this agent and were given by a flag."""
    found = {}
    if JAX_CORL.value:
        found["jax_corl"] = peers.jax_corl(name, episodes, Path(JAX_CORL.value).expanduser())
    if CORL.value and name == "rebrac":
        found["corl"] = peers.corl_rebrac(episodes, Path(CORL.value).expanduser(), chunk)
    return {library: peer for library, peer in found.items() if peer is not None}


def measure(name: str, episodes: Episodes) -> dict[str, Any]:
    """The figures of one agent."""
    config = make_config(name)
    loop, cost = plain(config, episodes)
    chunk = int(np.clip(CALL_FLOPS / cost.flops, 1, MAX_CHUNK))
    one, compile_one = fused(config, episodes, 1, chunk)
    many, compile_many = fused(config, episodes, SEEDS.value, chunk)
    others = peers_of(name, episodes, chunk)
    variants = {"fused": one, "fused_seeds": many, "plain": loop, "sgemm": sgemm()}
    for library, peer in others.items():
        variants[library] = peer.run
        variants[f"like_{library}"], _ = fused(make_config(name, peer.ours), episodes, 1, peer.fused)
    logging.info(
        "%s: %.4g GFLOP and %.4g MB an update, compiled in %.1f s; %d updates fused; updates/s:",
        name, cost.flops / 1e9, cost.bytes / 1e6, compile_one, chunk,
    )
    rate = rates(variants)
    figures = {
        "updates_per_s": rate["fused"],
        f"updates_per_s_{SEEDS.value}_seeds": rate["fused_seeds"],
        "compile_s": compile_one,
        f"compile_s_{SEEDS.value}_seeds": compile_many,
        "updates_fused": chunk,
        "flops_per_update": cost.flops,
        "bytes_per_update": cost.bytes,
        "percent_of_sgemm": 100 * cost.flops * rate["fused"] / rate["sgemm"],
        "ratio_to_plain": rate["fused"] / rate["plain"],
    }
    for library in others:
        figures[f"{library}_updates_per_s"] = rate[library]
        figures[f"ratio_to_{library}"] = rate[f"like_{library}"] / rate[library]
    return {f"{name}_{figure}": value for figure, value in figures.items()}


def check_checkout(flag: flags.FlagHolder, folder: str) -> None:
    if flag.value and not (Path(flag.value).expanduser() / folder).is_dir():
        raise ValueError(f"--{flag.name}={flag.value}: there is no {folder}/ in it, name a checkout of the library")


def offline_rl_suite() -> dict[str, Any]:
    check_checkout(JAX_CORL, "algos")
    check_checkout(CORL, "algorithms")
    episodes = synthetic_episodes()
    result: dict[str, Any] = {"suite": "offline_rl", "device": jax.devices()[0].device_kind, "seeds": SEEDS.value}
    for name in AGENT.value:
        result |= measure(name, episodes)
    return result


def online_suite() -> dict[str, Any]:
    check_checkout(PUREJAXRL, "purejaxrl")
    config = ppo.default_config()
    # PureJaxRL's sizes with or without it.
    config.update({"activation": "tanh", "num_envs": 4, "batch_size": 128})
    variants: dict[str, Variant] = {}
    if PUREJAXRL.value:
        peer = peers.purejaxrl_ppo(Path(PUREJAXRL.value).expanduser(), ONLINE_STEPS)
        config.update(peer.ours)
        variants["purejaxrl"] = peer.run
    steps = config.num_envs * config.num_steps  # environment steps in one of ours
    program, chunk = online_program(ppo.ppo(config, cartpole())), ONLINE_STEPS // steps
    one, compile_one = fused_program(program, 1, chunk)
    many, compile_many = fused_program(program, SEEDS.value, chunk)
    variants |= {"fused": lambda: steps * one(), "fused_seeds": lambda: steps * many()}
    logging.info("ppo: compiled in %.1f s; %d steps fused; environment steps/s:", compile_one, chunk)
    rate = rates(variants)
    result = {
        "suite": "online", "device": jax.devices()[0].device_kind, "seeds": SEEDS.value,
        "ppo_env_steps_per_s": rate["fused"], f"ppo_env_steps_per_s_{SEEDS.value}_seeds": rate["fused_seeds"],
        "ppo_compile_s": compile_one, f"ppo_compile_s_{SEEDS.value}_seeds": compile_many,
    }
    if PUREJAXRL.value:
        result["ppo_purejaxrl_env_steps_per_s"] = rate["purejaxrl"]
        result["ppo_ratio_to_purejaxrl"] = rate["fused"] / rate["purejaxrl"]
    return result


def main(argv: list[str]) -> None:
    del argv
    suites = {
        "offline_rl": offline_rl_suite, "online": online_suite,
        "generative": lambda: image_benchmark.suite(SIZE_OF_UNET.value, DIFFUSERS.value, rates),
    }
    print(json.dumps(suites[SUITE.value]()), flush=True)


if __name__ == "__main__":
    run_binary(main)
