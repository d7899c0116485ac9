"""Environment steps per second of PPO, on CartPole or in a tabular MDP, with all that learning takes."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from configs import sqirl
from experiments.benchmark.measuring import Measure, Variant, trained
from experiments.benchmark.peers.checkout import folder_of
from experiments.benchmark.peers.purejaxrl import purejaxrl_ppo
from rl_jax.agents import ppo
from rl_jax.control.online import on_device_program
from rl_jax.control.solving import samples_a_step, tabular_experiment
from rl_jax.core.config import core_config
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.envs.cartpole import cartpole
from rl_jax.tabular.files import bridge_mdp

STEPS, TINY_STEPS = 100_000, 1024  # environment steps in one of our calls, and in one of the peer's


def suite(
    measure: Measure, seeds: int = 8, purejaxrl: str = "", mdp: str = "", steps: int = STEPS
) -> dict[str, Any]:
    """The figures of one run and of `seeds` side by side.

    Args:
      mdp: of BRIDGE, in which SQIRL's PPO learns; "" for CartPole.
      purejaxrl: a checkout of PureJaxRL, to measure it beside; "" for none.
      steps: of the environment in one call.

    Raises:
      ValueError: something else lies in that folder, or there is no such MDP.
    """
    result = {"suite": "online", "device": jax.devices()[0].device_kind, "seeds": seeds}
    if mdp:
        config = sqirl.get_config(f"ppo/{mdp}")
        experiment = tabular_experiment(config, bridge_mdp(mdp), None, math.inf)
        return result | _figures(f"ppo_{mdp}", measure, experiment, config, seeds, steps)
    folder = folder_of("purejaxrl", purejaxrl, "purejaxrl")
    peers = {"purejaxrl": purejaxrl_ppo(folder, steps)} if folder else {}
    config = core_config()
    config.side_by_side = ()
    config.agent = ppo.default_config()
    # PureJaxRL's sizes with or without it.
    config.agent.update({"activation": "tanh", "num_envs": 4, "batch_size": 128})
    for peer in peers.values():
        config.agent.update(peer.ours)
    experiment = Experiment(
        lambda config: on_device_program(lambda resident: ppo.ppo(config.agent, cartpole())),
        {}, Metric("episode/return", "return"),
    )
    return result | _figures("ppo", measure, experiment, config, seeds, steps, peers)


def _figures(
    name: str, measure: Measure, experiment: Experiment, config: ConfigDict, seeds: int, steps: int,
    peers: Mapping[str, Variant] = {},
) -> dict[str, float]:
    """Of one problem, beside the peers that have it."""
    rollout = samples_a_step(config.agent)  # environment steps in one of our updates
    chunk = max(1, steps // rollout)
    one, many = (trained(experiment, config, number, chunk) for number in (1, seeds))
    logging.info("%s: compiled in %.1f s; %d updates fused; environment steps/s:", name, one.compile_seconds, chunk)
    ours = {"fused": one, "fused_seeds": many}
    rate = measure(
        {variant: Variant(lambda own=own: rollout * own.run()) for variant, own in ours.items()} | peers
    )
    figures = {
        f"{name}_env_steps_per_s": rate["fused"], f"{name}_env_steps_per_s_{seeds}_seeds": rate["fused_seeds"],
        f"{name}_compile_s": one.compile_seconds, f"{name}_compile_s_{seeds}_seeds": many.compile_seconds,
    }
    for peer in peers:
        figures |= {f"{name}_{peer}_env_steps_per_s": rate[peer], f"{name}_ratio_to_{peer}": rate["fused"] / rate[peer]}
    return figures
