"""SINDy-RL: equations fitted to few real steps, PPO inside them, and the policy it finds as a polynomial.

    python -m experiments.sindy_rl.train --config=configs/sindy_rl.py:PRESET --workdir=DIR

Presets:
  quick             SINDy-RL in the cart-pole swing-up, 3 seeds: a minute on a CPU.
  <method>/<world>  Methods: sindy_rl, network_dyna (networks for a model), ppo (on the real environment alone).
                    Worlds: swingup (dm_control's cart-pole as pure functions), dm_control (the same in the simulator,
                    extra dm_control), swimmer (Gymnasium's Swimmer-v5, whose reward is fitted too).
  distil/<world>    the policy of --config.init_from.run as a polynomial of degree 3; distil_by_error/<world>: chosen
                    by its error and then by real returns, as the authors do.
  <model>/<size>    a model of 500, 2000 or 8000 random steps of the swing-up, judged by its roll-outs. Models: sindy,
                    linear, network_next, network_difference.
  paper/<method>/<world>   the authors' numbers of steps and 20 seeds.
  tiny, tiny-<method>, tiny-distil, tiny-sindy, tiny-network_next    seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.agents import ppo
from rl_jax.control import dynamics
from rl_jax.core.config import core_config, from_preset

METHODS = ("sindy_rl", "network_dyna", "ppo")
MODELS = {
    "sindy": {}, "linear": {"model.degree": 1},
    "network_next": {"model.kind": "network", "model.predict": "next"},
    "network_difference": {"model.kind": "network", "model.predict": "difference"},
}
SIZES = (500, 2000, 8000)
SWIMMER = {
    "reward": "fitted", "model.mixed": False, "model.ridge": 0.5, "model.threshold": 2e-2, "model.reward_ridge": 1e-5,
    "model.reward_threshold": 5e-2, "real.random_steps": 12_000, "real.steps": 1000, "policy_updates": 5,
}
WORLDS = {"swingup": {}, "dm_control": {}, "swimmer": SWIMMER}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(learning, "sindy_rl", "swingup")}
    for world in WORLDS:
        for method in METHODS:
            presets[f"{method}/{world}"] = functools.partial(learning, method, world)
            presets[f"paper/{method}/{world}"] = functools.partial(paper, method, world)
        presets[f"distil/{world}"] = functools.partial(distil, world)
        presets[f"distil_by_error/{world}"] = lambda world=world: by_error(distil(world))
    presets |= {f"{model}/{size}": functools.partial(modelling, model, size) for model in MODELS for size in SIZES}
    presets |= {name: lambda: tiny(learning("sindy_rl", "swingup")) for name in ("tiny", "tiny-dyna")}
    presets |= {f"tiny-{name}": lambda name=name: tiny(learning(name, "swingup")) for name in METHODS[1:]}
    presets["tiny-distil"] = lambda: tiny(distil("swingup"))
    presets |= {f"tiny-{name}": lambda name=name: tiny(modelling(name, 500)) for name in ("sindy", "network_next")}
    return from_preset("sindy_rl", presets, preset)


def base(world: str) -> ConfigDict:
    config = core_config()
    config.task = "dyna"  # or "model_free", "distil", "model"
    config.world = world
    config.horizon = 1000  # steps of an episode
    config.eval_episodes = 8
    config.reward = "known"  # or "fitted"
    config.model = dynamics.default_config()
    # Steps of the real environment: random ones first, held for some steps each, then so many of the policy a round.
    config.real = {"num_envs": 1, "random_steps": 8000, "steps": 500, "hold": 10, "capacity": 8000}
    config.policy_updates = 10  # PPO's in a round, each a roll-out in the model
    config.agent = ppo.default_config()
    config.agent.update(
        {"continuous": True, "activation": "tanh", "num_envs": 64, "num_steps": 100, "num_epochs": 5,
         "batch_size": 800, "learning_rate": 1e-3, "clip": 0.2, "entropy_coefficient": 0.0}
    )
    config.side_by_side = ("agent.learning_rate", "agent.discount")
    config.num_seeds = 3
    config.tensorboard = False
    return config


def learning(method: str, world: str) -> ConfigDict:
    config = base(world)
    config.num_steps = 20
    config.loop.update({"chunk": 1, "log_every": 5, "eval_every": 1})
    config.checkpoint.every = 20
    config.update_from_flattened_dict(WORLDS[world])
    if method == "network_dyna":
        config.model.update({"kind": "network", "predict": "difference", "updates": 300})
    if method == "ppo":
        config.task = "model_free"
        config.num_steps = 150
        config.agent.num_envs = 64 if world == "swingup" else 1
        config.agent.num_steps = 6400 // config.agent.num_envs
        config.real.update({"num_envs": config.agent.num_envs, "random_steps": 0, "steps": 6400})
        config.loop.eval_every = 5
    return config


def distil(world: str) -> ConfigDict:
    config = base(world)
    config.task = "distil"
    config.init_from.names = "params/actor_critic|extra/fitted"
    config.distil = {
        "degree": 3,
        "noise": 0.1,  # standard deviation, on the observations that the network is asked at
        "steps": 500, "copies": 6,  # in the model, a step of the program
        "clip": 5.0,  # of both policies' actions, as in the authors' code; the environment clips them to 1
        "thresholds": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2), "ridges": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
        "members": 20, "dropped": 1, "unbias": True,
        "choose": "surrogate",  # by what a polynomial earns there; or by its "error", as the authors do
        "finalists": 1,  # above 1 they play in the real environment, and the best is taken
    }
    config.num_steps = 2  # attempts
    config.loop.update({"chunk": 1, "log_every": 1})
    config.update_from_flattened_dict(WORLDS[world])
    return config


def by_error(config: ConfigDict) -> ConfigDict:
    """The authors' way: one attempt, and the closest five play in the real environment."""
    config.num_steps, config.distil.choose, config.distil.finalists = 1, "error", 5
    return config


def modelling(model: str, size: int) -> ConfigDict:
    config = base("swingup")
    config.task = "model"
    config.data = {"size": size, "hold": 10, "held_out_episodes": 20, "horizons": (10, 50, 100)}
    config.model.updates = 2000
    config.num_steps = 1
    config.update_from_flattened_dict(MODELS[model])
    return config


def paper(method: str, world: str) -> ConfigDict:
    """A network of 64 by 64 with a learning rate that falls from 3e-4 to nothing over 1e7 steps in the model."""
    config = learning(method, world)
    config.num_seeds = 20
    config.num_steps = 1600 if method == "ppo" else 160
    config.agent.learning_rate = 3e-4
    config.agent.decay_steps = 1600
    config.loop.eval_every = 5
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.horizon, config.eval_episodes = 2, 40, 2
    config.agent.update({"hidden_dims": (8, 8), "num_envs": 4, "num_steps": 16, "batch_size": 32, "num_epochs": 2})
    config.model.update({"members": 4, "networks": 2, "hidden_dims": (8,), "updates": 5, "batch_size": 16})
    config.loop.update({"chunk": 1, "log_every": 2, "eval_every": 2})
    config.checkpoint.every = 2
    if config.task in ("dyna", "model_free"):
        config.num_steps, config.policy_updates = 4, 2
        on_policy = config.task == "dyna"
        config.real.update({"num_envs": 1 if on_policy else 4, "random_steps": 80 if on_policy else 0,
                            "steps": 32 if on_policy else 64, "capacity": 64})
    if config.task == "distil":
        config.distil.update({"steps": 20, "copies": 4, "members": 3, "degree": 2, "finalists": 2,
                              "thresholds": (1e-3, 1e-2), "ridges": (1e-4,)})
    if config.task == "model":
        config.data.update({"size": 100, "held_out_episodes": 2})
    return config
