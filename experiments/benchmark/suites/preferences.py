"""Updates per second and sizes of CPL and P-IQL, on made-up segments of Meta-World's shapes."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import cpl
from experiments.benchmark.measuring import Measure, trained
from rl_jax.control.offline import offline_program
from rl_jax.control.preferences import SUCCESS, preference_data
from rl_jax.core.experiment import Experiment
from rl_jax.data.episodes import Episodes

AGENTS = ("cpl", "piql")
OBSERVATION, ACTION = 35, 4
SIZES = {  # segments, updates in one call, and what differs from the authors' settings
    "small": (2500, 1, {}),
    "tiny": (20, 1, {"batch_size": 4, "agent.hidden_dims": (16, 16), "dataset.segment_length": 8}),
}


def suite(measure: Measure, size: str = "small") -> dict[str, Any]:
    """The updates a second of one run of each agent by the authors' settings, 96 pairs of 64 steps, and its parameters.
    """
    count, chunk, fields = SIZES[size]
    variants, parameters = {}, {}
    for name in AGENTS:
        config = cpl.get_config(f"paper-{name}/drawer-open")
        config.update_from_flattened_dict(fields)
        experiment = made_up(config, count)
        program = experiment.program(config)
        state = jax.eval_shape(program.init, jax.random.key(0), program.resident)
        parameters[name] = sum(leaf.size for leaf in jax.tree.leaves((state.params, state.target_params)))
        variants[name] = trained(experiment, config, 1, chunk)
    rate = measure(variants)
    return {
        "suite": "preferences", "device": jax.devices()[0].device_kind,
        **{f"{name}_updates_per_s": rate[name] for name in AGENTS},
        **{f"{name}_parameters": parameters[name] for name in AGENTS},
        "ratio_of_rates": rate["cpl"] / rate["piql"],
        "ratio_of_parameters": parameters["cpl"] / parameters["piql"],
    }


def made_up(config: ConfigDict, count: int) -> Experiment:
    """The agent on `count` segments of random numbers, judged by nothing."""
    rng, length = np.random.default_rng(0), config.dataset.segment_length
    steps = count * length

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    last = np.arange(steps) % length == length - 1
    episodes = Episodes(
        normal(steps, OBSERVATION), np.clip(normal(steps, ACTION), -1, 1), normal(steps), np.zeros(steps, bool), last,
        normal(steps, OBSERVATION), np.arange(0, steps, length),
        {"value": normal(steps), "next_value": normal(steps)},
    )
    data = preference_data(config, episodes, episodes.starts, episodes.lengths)
    return Experiment(lambda config: offline_program(config, data), {}, SUCCESS)
