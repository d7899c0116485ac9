"""SCOPE-RL: off-policy evaluation and selection, against exact values and against roll-outs.

    python -m experiments.scope_rl.train --config=configs/scope_rl.py:PRESET --workdir=DIR

Presets:
  quick             every estimator in a random MDP of 8 states, 3 actions and 20 steps with exact values and
                    visitations, 3 times 600 repetitions of 2,000 trajectories: a minute on a CPU.
  tabular/<models>  the same. Models: exact, biased (Q too large by 1), few (exact, 200 trajectories).
  control/<task>    6 candidate policies from 1,000 episodes of another one, with fitted Q-evaluation and learnt ratios
                    of visitations, 3 seeds. Tasks: cartpole, cartpole-random, acrobot, acrobot-random; data of
                    -random are of a policy further from the candidates.
  tiny, tiny-control   seconds: what the tests run.
"""

from ml_collections import ConfigDict

from rl_jax.agents import dice, fqe
from rl_jax.core.config import core_config, from_preset

MODELS = {"exact": {}, "biased": {"q_error": 1.0}, "few": {"trajectories": 200}}

# Directions of softmax policies with linear scores (rl_jax/control/off_policy.py): a controller of some quality and
# decision, on position, velocity, angle and its speed of CartPole, on the speeds of Acrobot's links.
CONTROL = {
    "cartpole": {
        "candidates": ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.1, 1.0, 0.5), (0.0, 0.2, 2.0, 1.0),
                       (0.0, 0.0, 0.0, 0.5), (0.0, -0.2, 1.0, 0.5)),
        "behaviour": (0.0, 0.05, 1.0, 0.4),
    },
    "acrobot": {
        "candidates": ((0.0, 0.0, 0.0, 0.0, 0.0, 0.2), (0.0, 0.0, 0.0, 0.0, 0.0, 0.6), (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
                       (0.0, 0.0, 0.0, 0.0, 0.0, 1.5), (0.0, 0.0, 0.0, 0.0, 0.3, 0.5), (0.0, 0.0, 0.0, 0.0, 0.5, 0.0)),
        "behaviour": (0.0, 0.0, 0.0, 0.0, 0.0, 0.8),
    },
}
CONTROL |= {
    "cartpole-random": CONTROL["cartpole"] | {"behaviour": (0.0, 0.0, 0.5, 0.1)},
    "acrobot-random": CONTROL["acrobot"] | {"behaviour": (0.0, 0.0, 0.0, 0.0, 0.1, 0.4)},
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: tabular("exact"), "tiny": lambda: tiny(tabular("exact"))}
    presets |= {f"tabular/{models}": lambda models=models: tabular(models) for models in MODELS}
    presets |= {f"control/{task}": lambda task=task: control(task) for task in CONTROL}
    presets["tiny-control"] = lambda: tiny_control(control("cartpole"))
    return from_preset("scope_rl", presets, preset)


def base(task: str) -> ConfigDict:
    config = core_config()
    config.task = task  # "tabular", or "control"
    config.num_seeds = 3
    config.discount = 0.95
    config.tensorboard = False
    return config


def tabular(models: str) -> ConfigDict:
    config = base("tabular")
    # Both policies are random ones, mixed with the uniform policy by this share.
    config.mdp = {"states": 8, "actions": 3, "horizon": 20, "seed": 0, "noise": 0.0, "uniform": 0.7}
    config.trajectories = 2000
    config.q_error = 0.0  # added to the exact Q
    config.batch_size = 10  # repetitions a step
    config.num_steps = 60
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 0})
    config.checkpoint.every = 0
    config.update(MODELS[models])
    return config


def control(task: str) -> ConfigDict:
    config = base("control")
    config.environment = task.partition("-")[0]
    config.update(CONTROL[task])
    config.trajectories = 1000
    config.horizon = 150  # steps of the longest episode, after which nothing is earned
    config.discount = 0.98
    config.roll_outs = 2000  # by which the truth is known
    config.truth_seed = 1
    config.fqe = fqe.default_config()
    config.fqe.update({"hidden_dims": (64, 64), "learning_rate": 1e-3, "target_every": 20})
    config.dice = dice.default_config()
    config.dice.update({"method": "kernel_mwl", "hidden_dims": (64, 64)})
    for learner in (config.fqe, config.dice):
        learner.discount = config.get_oneway_ref("discount")
    config.batch_size = 128
    config.num_steps = 3000
    config.loop.update({"chunk": 100, "log_every": 500, "eval_every": 0})
    config.checkpoint.every = 0
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size, config.trajectories = 2, 4, 8, 50
    config.mdp.horizon = 5
    return config


def tiny_control(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size, config.trajectories = 2, 20, 16, 20
    config.horizon, config.roll_outs = 20, 50
    config.fqe.hidden_dims = config.dice.hidden_dims = (8,)
    config.loop.update({"chunk": 10, "log_every": 10})
    return config
