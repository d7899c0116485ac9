"""Environment steps per second of PPO on CartPole, with all that learning takes."""

from typing import Any

import jax
from absl import logging

from experiments.benchmark.measuring import Measure, Variant, trained
from experiments.benchmark.peers.checkout import folder_of
from experiments.benchmark.peers.purejaxrl import purejaxrl_ppo
from rl_jax.agents import ppo
from rl_jax.control.online import on_device_program
from rl_jax.core.config import core_config
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.envs.cartpole import cartpole

STEPS = 100_000  # environment steps in one of our calls, and in one of the peer's


def suite(measure: Measure, seeds: int = 8, purejaxrl: str = "") -> dict[str, Any]:
    """The figures of one run and of `seeds` side by side.

    Args:
      purejaxrl: a checkout of PureJaxRL, to measure it beside; "" for none.

    Raises:
      ValueError: something else lies in that folder.
    """
    folder = folder_of("purejaxrl", purejaxrl, "purejaxrl")
    peers = {"purejaxrl": purejaxrl_ppo(folder, STEPS)} if folder else {}
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
    rollout = config.agent.num_envs * config.agent.num_steps  # environment steps in one of our updates
    chunk = STEPS // rollout
    one, many = (trained(experiment, config, number, chunk) for number in (1, seeds))
    logging.info("ppo: compiled in %.1f s; %d updates fused; environment steps/s:", one.compile_seconds, chunk)
    ours = {"fused": one, "fused_seeds": many}
    rate = measure(
        {name: Variant(lambda own=own: rollout * own.run()) for name, own in ours.items()} | peers
    )
    result = {
        "suite": "online", "device": jax.devices()[0].device_kind, "seeds": seeds,
        "ppo_env_steps_per_s": rate["fused"], f"ppo_env_steps_per_s_{seeds}_seeds": rate["fused_seeds"],
        "ppo_compile_s": one.compile_seconds, f"ppo_compile_s_{seeds}_seeds": many.compile_seconds,
    }
    if peers:
        result["ppo_purejaxrl_env_steps_per_s"] = rate["purejaxrl"]
        result["ppo_ratio_to_purejaxrl"] = rate["fused"] / rate["purejaxrl"]
    return result
