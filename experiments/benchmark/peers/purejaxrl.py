"""PureJaxRL's PPO (github.com/luchris429/purejaxrl): a whole training, environments and all, in one call.

It runs with the settings of its own file, and `Variant.ours` sets ours to them. What it does otherwise stays: it takes
a time-out for a terminal and its values along with its actions, and hands out the statistics of every step of a call.
"""

import sys
from pathlib import Path

import jax

from experiments.benchmark.measuring import Variant, queued
from experiments.benchmark.peers.checkout import load


def purejaxrl_ppo(folder: Path, num_steps: int) -> Variant:
    """PPO on gymnax' CartPole-v1 with its own settings, but for its printing and its number of steps.

    Args:
      folder: purejaxrl/ of a checkout.
      num_steps: environment steps of one call, which is a training from its start; rounded down to whole roll-outs.
    """
    sys.modules["wrappers"] = load(folder / "wrappers.py")
    try:
        module = load(folder / "ppo.py")
    finally:
        del sys.modules["wrappers"]
    config = {
        "LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "TOTAL_TIMESTEPS": num_steps, "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": 4, "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5, "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True, "DEBUG": False,
    }
    train = jax.jit(module.make_train(config))
    rollouts = config["NUM_UPDATES"]
    # Theirs halves the squared error before the coefficient.
    ours = {
        "hidden_dims": (64, 64), "activation": config["ACTIVATION"], "num_envs": config["NUM_ENVS"],
        "num_steps": config["NUM_STEPS"], "num_epochs": config["UPDATE_EPOCHS"], "batch_size": config["MINIBATCH_SIZE"],
        "learning_rate": config["LR"], "decay_steps": rollouts, "discount": config["GAMMA"],
        "gae_lambda": config["GAE_LAMBDA"], "clip": config["CLIP_EPS"], "value_clip": config["CLIP_EPS"],
        "value_coefficient": config["VF_COEF"] / 2, "entropy_coefficient": config["ENT_COEF"],
        "max_grad_norm": config["MAX_GRAD_NORM"],
    }
    steps = rollouts * config["NUM_ENVS"] * config["NUM_STEPS"]
    return queued(lambda _, key: train(key), None, fused=steps, calls=1)._replace(ours=ours)
