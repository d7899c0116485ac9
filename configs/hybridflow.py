"""HybridFlow: dataflows of reinforcement learning as drivers over roles, a decoder that learns to sort digits.

    python -m experiments.hybridflow.train --config=configs/hybridflow.py:PRESET --workdir=DIR

Presets:
  quick                  PPO on eight virtual devices, 3 seeds: minutes on 2 cores.
  <method>/training      the same by ppo, remax, grpo or safe_rlhf.
  <method>/one           the same on one device.
  <method>/placements    three iterations by plain Python on three placements of the roles, compared.
  <way>/resharding       a way from the layout of training to that of generation, measured: hybridflow, minor,
                         contiguous, deepspeed_chat.
  pretrain               the committed start: supervised learning that ends before the decoder sorts well.
  full                   GRPO of six digits by a decoder of 0.2 billion parameters in bfloat16, for accelerators; its
                         start is one's own, by full-pretrain and --config.start.
  tiny                   seconds: what the tests run, and so tiny-<method>, tiny-placements, tiny-resharding and
                         tiny-pretrain.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import sft, training
from rl_jax.language.roles import TRAINING_RULES, generation_rules

METHODS = ("ppo", "remax", "grpo", "safe_rlhf")
WAYS = ("hybridflow", "minor", "contiguous", "deepspeed_chat")
# KL: of PPO and its kin in the reward (k1), of GRPO in the loss (k3).
BY_METHOD = {
    "ppo": {"kl_coefficient": 0.01},
    "remax": {"kl_coefficient": 0.01},
    "grpo": {"samples": 8, "kl_loss": 0.01},
    "safe_rlhf": {"kl_coefficient": 0.01, "pretraining_coefficient": 0.05},
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(learning, "ppo"), "pretrain": pretrain}
    presets |= {f"{method}/training": functools.partial(learning, method) for method in METHODS}
    presets |= {f"{method}/one": functools.partial(on_one_device, method) for method in METHODS}
    presets |= {f"{method}/placements": functools.partial(placements, method) for method in METHODS}
    presets |= {f"{way}/resharding": functools.partial(resharding, way) for way in WAYS}
    presets |= {f"tiny-{method}": lambda method=method: tiny(learning(method)) for method in METHODS}
    presets |= {"full": lambda: large(learning("grpo")), "full-pretrain": lambda: large(pretrain())}
    presets |= {
        "tiny": lambda: tiny(learning("ppo")), "tiny-placements": lambda: tiny(placements("ppo")),
        "tiny-resharding": lambda: tiny(resharding("hybridflow")), "tiny-pretrain": lambda: tiny(pretrain()),
    }
    return from_preset("hybridflow", presets, preset)


def base(agent: ConfigDict) -> ConfigDict:
    config = core_config()
    config.task = "training"  # or "placements", "resharding", "pretrain"
    config.method = "ppo"  # or another of METHODS; of WAYS where the task is resharding
    config.devices = 0  # that a CPU becomes, or that there must be; 0 takes what there is
    config.decoder = {
        "vocab_size": 16,  # the 12 letters of sorting, and as many more as let 8 devices share them
        "width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 128,
        "context_length": 16,
    }
    config.decoder_seed = 0
    config.data = {
        "digits": 4,  # of a prompt
        "judged": 256,  # prompts that are judged and never trained on
        "costly": 7,  # the digit that costs where an answer shows it: Safe-RLHF's limit
    }
    config.agent = agent
    config.tensorboard = False
    return config


def learning(method: str) -> ConfigDict:
    config = base(training.default_config())
    config.method = method
    config.start = ""  # a run of preset `pretrain` or its model.npz; "" for the committed one
    config.devices = 8
    config.mesh.model = 2
    config.sharding_rules = TRAINING_RULES
    config.resident_rules = tuple((f"reference.*{pattern}", kind) for pattern, kind in generation_rules(TRAINING_RULES))
    config.batch_size = 256  # answers
    config.agent.update({
        "learning_rate": 5e-4, "critic_learning_rate": 1e-3,
        "samples": 1,  # answers to a prompt
        "updates": 2,  # parts of a batch, an optimiser's step each
        "clip": 0.2, "value_clip": 0.2, "discount": 1.0, "gae_lambda": 0.95,
        "kl_coefficient": 0.0,  # k1 in the reward
        "kl_loss": 0.0,  # of k3 in the actor's loss
        "pretraining_coefficient": 0.0,  # of the likelihood of right answers
        "cost_limit": 0.1,  # share of answers that may show the costly digit
        "multiplier_rate": 0.5,  # of the logarithm of the Lagrange multiplier
    })
    config.agent.update(BY_METHOD[method])
    config.num_seeds = 3
    config.num_steps = 100
    config.loop.update({"chunk": 5, "log_every": 10, "eval_every": 10, "eval_at_start": True})
    config.checkpoint.every = 50
    return config


def on_one_device(method: str) -> ConfigDict:
    config = learning(method)
    config.devices, config.mesh.model = 0, 1
    return config


def placements(method: str) -> ConfigDict:
    config = on_one_device(method)
    config.task, config.devices, config.num_steps = "placements", 8, 0
    return config


def resharding(way: str) -> ConfigDict:
    config = base(ConfigDict())
    config.task, config.method, config.devices, config.num_steps = "resharding", way, 8, 0
    config.decoder.update({
        "vocab_size": 512, "width": 256, "num_heads": 8, "num_kv_heads": 8, "head_dim": 32, "hidden_width": 512,
    })
    return config


def pretrain() -> ConfigDict:
    config = base(sft.default_config())
    config.task = "pretrain"
    config.batch_size = 128
    config.agent.update({"learning_rate": 1e-3, "warmup_steps": 20})
    config.num_steps = 30
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 10})
    return config


def large(config: ConfigDict) -> ConfigDict:
    config.devices = 0
    config.decoder.update({
        "width": 1024, "num_layers": 16, "num_heads": 16, "num_kv_heads": 16, "head_dim": 64, "hidden_width": 2816,
        "context_length": 32,
    })
    config.data.digits, config.data.judged = 6, 1024
    config.agent.dtype, config.agent.remat = "bfloat16", True
    config.agent.learning_rate = 1e-5 if config.task == "training" else 1e-4
    config.batch_size, config.num_steps = 1024, 1000
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.batch_size = 16
    if config.task in ("training", "pretrain"):
        config.num_seeds, config.num_steps, config.devices, config.mesh.model = 2, 8, 0, 1
        config.loop.update({"chunk": 2, "log_every": 2, "eval_every": 4})
        config.checkpoint.every = 4
        config.data.judged = 16
    if config.task == "training":
        config.agent.updates = 1
        config.agent.samples = min(config.agent.samples, 4)
    if config.task == "resharding":
        config.decoder.update({"width": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 64})
    if config.task == "placements":
        config.num_seeds = 1
    return config
