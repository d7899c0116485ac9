"""What a mesh costs: IQL's fused step on a mesh of all devices beside the same step without a mesh, on one device."""

from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from experiments.benchmark.measuring import Measure, Variant, chained, trained
from experiments.benchmark.suites.offline_rl import FULL, Scale, make_config, synthetic_episodes
from rl_jax.control.offline import agent_data, offline_program
from rl_jax.control.tasks import SCORE
from rl_jax.core.experiment import Experiment
from rl_jax.core.fused import Window, fused_step, metric_names
from rl_jax.core.loop import Run

RULES = {"replicated": ((".*", "replicate"),), "fsdp": ((".*", "fsdp"),)}
AGENT = "iql"


def suite(measure: Measure, scale: Scale = FULL) -> dict[str, Any]:
    """The updates a second of one run, by each of RULES and without a mesh."""
    config, chunk = make_config(AGENT, scale), scale.max_chunk
    data = agent_data(config, synthetic_episodes(scale.steps))
    experiment = Experiment(lambda config: offline_program(config, data), {}, SCORE)
    variants = {"no_mesh": without_mesh(experiment, config, chunk)}
    for name, rules in RULES.items():
        config.sharding_rules = rules
        variants[name] = trained(experiment, config, 1, chunk)
    logging.info("%s on %d devices; %d updates fused; updates/s:", AGENT, jax.device_count(), chunk)
    rate = measure(variants)
    result = {"suite": "sharding", "device": jax.devices()[0].device_kind, "devices": jax.device_count()}
    result |= {f"{AGENT}_updates_per_s_{name}": value for name, value in rate.items()}
    return result | {f"ratio_of_{name}_to_no_mesh": rate[name] / rate["no_mesh"] for name in RULES}


def without_mesh(experiment: Experiment, config: ConfigDict, chunk: int) -> Variant:
    """The fused step of one run, jitted where no mesh is set, on the first device."""
    start = Run(experiment, experiment.program(config), config, Path())
    keys, settings, resident = jax.device_put((start.keys, start.settings, start.resident), jax.devices()[0])
    state = jax.jit(start.init_runs)(keys["init"], settings, resident)
    fused = fused_step(start.program_at, chunk, seed_axis=start.seed_axis, on_nan=config.loop.on_nan)
    step = jax.jit(fused, donate_argnums=(0, 1))
    window = Window.empty(1, metric_names(start.program, state, resident, None))
    return chained(lambda *carry: step(*carry, resident, None, keys["train"], settings), (state, window), chunk)
