"""Updates per second of every offline agent, on made-up data of Hopper's shapes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from configs import offline_rl
from experiments.benchmark.measuring import Measure, Variant, queued, sgemm, trained
from experiments.benchmark.peers.checkout import folder_of
from experiments.benchmark.peers.corl import corl_rebrac
from experiments.benchmark.peers.jax_corl import jax_corl
from rl_jax.control.agents import make_agent
from rl_jax.control.offline import agent_data, offline_program
from rl_jax.control.recipes import RECIPES
from rl_jax.control.tasks import SCORE
from rl_jax.core.config import flat
from rl_jax.core.experiment import Experiment
from rl_jax.core.program import Metrics, TrainState
from rl_jax.data.episodes import Episodes
from rl_jax.data.sequences import sequences_at

OBSERVATION, ACTION = 11, 3
# Operations of one call: enough for the call to cost nothing beside them, few enough to look at the clock often.
CALL_FLOPS = 1.5e11
# The first recipe of each agent; the others (10%-BC, Cal-QL) differ by their data or by a term.
AGENTS: dict[str, str] = {}
for _name, _recipe in RECIPES.items():
    AGENTS.setdefault(_recipe.default_config().name, _name)
SIZES = {"sac": {"agent.num_critics": 10}, "edac": {"agent.num_critics": 10}}


class Scale(NamedTuple):
    """How large a suite is.

    Attributes:
      steps: of the made-up data.
      max_chunk: updates in one call, at most.
      fields: of the configuration of every agent that has them.
    """

    steps: int
    max_chunk: int
    fields: Mapping[str, Any] = {}


FULL = Scale(100_000, 250)
SMALL_NETWORKS = {"agent.hidden_dims": (16, 16), "agent.embedding_dim": 16, "agent.num_layers": 1, "agent.num_heads": 1}
TINY = Scale(2000, 2, {"batch_size": 8, **SMALL_NETWORKS})  # seconds


def suite(
    measure: Measure, agents: Sequence[str] = tuple(AGENTS), seeds: int = 8, jax_corl: str = "", corl: str = "",
    scale: Scale = FULL,
) -> dict[str, Any]:
    """The figures of some of AGENTS, of one run and of `seeds` side by side.

    Args:
      jax_corl, corl: checkouts of these libraries, to measure them beside; "" for none.

    Raises:
      ValueError: something else lies in the folder of a checkout.
    """
    folders = {"jax_corl": folder_of("jax_corl", jax_corl, "algos"), "corl": folder_of("corl", corl, "algorithms")}
    episodes = synthetic_episodes(scale.steps)
    result: dict[str, Any] = {"suite": "offline_rl", "device": jax.devices()[0].device_kind, "seeds": seeds}
    for name in agents:
        figures = figures_of(name, episodes, measure, seeds, folders, scale)
        result |= {f"{name}_{figure}": value for figure, value in figures.items()}
    return result


def figures_of(
    name: str, episodes: Episodes, measure: Measure, seeds: int, folders: Mapping[str, Path | None], scale: Scale
) -> dict[str, float]:
    """The figures of one agent."""
    loop = plain(make_config(name, scale), episodes)
    chunk = int(np.clip(CALL_FLOPS / loop.flops, 1, scale.max_chunk))
    one, many = (fused(make_config(name, scale), episodes, number, chunk) for number in (1, seeds))
    peers = peers_of(name, episodes, chunk, folders)
    like = {
        f"like_{library}": fused(make_config(name, scale, peer.ours), episodes, 1, peer.fused)
        for library, peer in peers.items()
    }
    logging.info(
        "%s: %.4g GFLOP and %.4g MB an update, compiled in %.1f s; %d updates fused; updates/s:",
        name, loop.flops / 1e9, loop.bytes / 1e6, one.compile_seconds, chunk,
    )
    rate = measure({"fused": one, "fused_seeds": many, "plain": loop, "sgemm": sgemm(), **peers, **like})
    figures = {
        "updates_per_s": rate["fused"],
        f"updates_per_s_{seeds}_seeds": rate["fused_seeds"],
        "compile_s": one.compile_seconds,
        f"compile_s_{seeds}_seeds": many.compile_seconds,
        "updates_fused": chunk,
        "flops_per_update": loop.flops,
        "bytes_per_update": loop.bytes,
        "percent_of_sgemm": 100 * loop.flops * rate["fused"] / rate["sgemm"],
        "ratio_to_plain": rate["fused"] / rate["plain"],
    }
    for library in peers:
        figures[f"{library}_updates_per_s"] = rate[library]
        figures[f"ratio_to_{library}"] = rate[f"like_{library}"] / rate[library]
    return figures


def synthetic_episodes(steps: int) -> Episodes:
    """So many steps of Hopper's shapes in episodes of 1000, each ended by time."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    starts = np.arange(0, steps, 1000)
    truncated = np.zeros(steps, bool)
    truncated[starts + 999] = True
    return Episodes(
        normal(steps, OBSERVATION), np.clip(normal(steps, ACTION), -1, 1), normal(steps), np.zeros(steps, bool),
        truncated, normal(steps, OBSERVATION), starts,
    )


def make_config(name: str, scale: Scale = FULL, overrides: Mapping[str, Any] = {}) -> ConfigDict:
    """An agent's settings for hopper-medium, but for SIZES, the scale's fields and `overrides`."""
    config = offline_rl.get_config(f"{AGENTS[name]}/hopper-medium")
    known = flat(config)
    own = {field: value for field, value in scale.fields.items() if field in known}
    config.update_from_flattened_dict({**SIZES.get(name, {}), **own, **overrides})
    return config


def fused(config: ConfigDict, episodes: Episodes, num_seeds: int, chunk: int) -> Variant:
    """The compiled step of the agent's program on resident data."""
    data = agent_data(config, episodes)
    return trained(Experiment(lambda config: offline_program(config, data), {}, SCORE), config, num_seeds, chunk)


def plain(config: ConfigDict, episodes: Episodes) -> Variant:
    """The same update in a jitted call of its own, on batches drawn by numpy; what one writes first."""
    agent, data = make_agent(config, ACTION), agent_data(config, episodes).resident
    length, rng = config.dataset.context_length, np.random.default_rng(0)

    def drawn() -> Any:
        rows = rng.integers(len(data), size=config.batch_size)
        return sequences_at(data, rows, length) if length else jax.tree.map(lambda x: x[rows], data)

    def update(state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        new, metrics = agent.update(state, batch, key)
        return new.replace(step=state.step + 1), metrics

    key = jax.random.PRNGKey(0)
    state = jax.jit(agent.init)(key, drawn())
    compiled = jax.jit(update).lower(state, drawn(), key).compile()
    cost = compiled.cost_analysis()
    calls = int(np.clip(CALL_FLOPS / 5 / cost["flops"], 1, 50))
    variant = queued(lambda state, key: compiled(state, drawn(), key)[0], state, calls=calls)
    return variant._replace(flops=cost["flops"], bytes=cost["bytes accessed"])


def peers_of(name: str, episodes: Episodes, chunk: int, folders: Mapping[str, Path | None]) -> dict[str, Variant]:
    """The other libraries that have this agent and whose folders are given."""
    found: dict[str, Variant | None] = {}
    if folders["jax_corl"]:
        found["jax_corl"] = jax_corl(name, episodes, folders["jax_corl"])
    if folders["corl"] and name == "rebrac":
        found["corl"] = corl_rebrac(episodes, folders["corl"], chunk)
    return {library: peer for library, peer in found.items() if peer}
