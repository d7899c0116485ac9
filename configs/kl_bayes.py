"""RL with KL penalties as Bayesian inference: a decoder fitted to a target over all 4,096 texts of 6 symbols.

    python -m experiments.kl_bayes.train --config=configs/kl_bayes.py:PRESET --workdir=DIR

Presets:
  quick               KL-regularised reinforcement learning to the posterior of a reward, 3 seeds: a minute on 2
                      cores.
  <method>/<target>   3 seeds. Methods: reward (no KL penalty), reverse_kl (KL-regularised reinforcement learning), kl
                      (GDC++), dpg (GDC), off_policy, total_variation, jensen_shannon; targets: reward (half a point for
                      each of a symbol, beta 0.5), pointwise (the symbol occurs twice), distributional (it
                      occurs in half of all texts).
  <method>/<model>    3 seeds, the first 24 tokens of a language model's texts, in which a word must occur. Models:
                      stories260k (a word that 5% of them hold; minutes on a CPU), smollm2 (`make smollm2`; for a GPU).
                      Methods: kl, off_policy, adaptive_kl (PPO's controller) and the other divergences.
  pretrain            the committed prior: a decoder of one layer, trained on a random Markov chain of order 2.
  tiny                seconds: what the tests run, and so tiny-<method>, tiny-texts and
                      tiny-pretrain.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import distribution_matching

METHODS = ("reward", "reverse_kl", "kl", "dpg", "off_policy", "total_variation", "jensen_shannon")
TARGETS = ("reward", "pointwise", "distributional")
MODELS = {"stories260k": 1e-4, "smollm2": 1e-5}  # learning rates


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(matching, "reverse_kl", "reward"), "pretrain": pretrain}
    presets |= {
        f"{method}/{target}": functools.partial(matching, method, target) for method in METHODS for target in TARGETS
    }
    presets |= {
        f"{method}/{model}": functools.partial(texts, method, model)
        for method in ("adaptive_kl", *METHODS) for model in MODELS
    }
    presets |= {"tiny": lambda: tiny(matching("reverse_kl", "reward")), "tiny-pretrain": lambda: tiny(pretrain())}
    presets |= {"tiny-texts": lambda: tiny_texts(texts("kl", "stories260k"))}
    presets |= {f"tiny-{method}": lambda method=method: tiny(matching(method, "distributional")) for method in METHODS}
    return from_preset("kl_bayes", presets, preset)


def base() -> ConfigDict:
    config = core_config()
    config.task = "match"  # or "pretrain"
    config.model = ""  # a language model by its name or folder; "" for the decoder of symbols
    config.prior = ""  # a model.npz of preset `pretrain`; "" for the committed one
    config.decoder = {
        "vocab_size": 4, "width": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_dim": 16,
        "hidden_width": 64, "context_length": 16,
    }
    config.matching = distribution_matching.default_config()
    config.side_by_side = ("matching.learning_rate", "target.beta")
    config.tensorboard = False
    return config


def matching(method: str, target: str) -> ConfigDict:
    config = base()
    config.matching.method = method
    config.target = {
        "kind": target,
        "symbol": 3,  # the token that is rewarded or has to occur
        "times": 2,  # how often, where that is a pointwise constraint
        "beta": 0.5,  # of a reward
        "share": 0.5,  # of the texts that a distributional constraint asks the symbol of
        "fitted_on": 10_240,  # texts of the prior, by which a distributional constraint is turned into a target
        "tolerance": 0.001,  # of that
    }
    config.num_seeds = 3
    config.num_steps = 1500
    config.matching.decay_steps = config.get_oneway_ref("num_steps")
    config.loop.update({"chunk": 50, "log_every": 50, "eval_every": 50, "eval_at_start": True})
    config.checkpoint.every = 500
    return config


def texts(method: str, model: str) -> ConfigDict:
    config = matching(method, "word")
    config.model = model
    config.target.word = " dog"
    config.prior_texts = 4096  # among which are those that the target is known by
    config.evaluation_texts = 256  # of the policy, at an evaluation
    config.matching.update({"length": 24, "learning_rate": MODELS[model], "kl_target": 2.3, "decay_steps": 0})
    config.num_steps = 100
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
    config.checkpoint.every = 100
    return config


def pretrain() -> ConfigDict:
    config = base()
    config.task = "pretrain"
    config.chain = {"seed": 0, "concentration": 1.0}  # of the Dirichlet distribution that its rows are drawn from
    config.batch_size = 256
    config.num_steps = 3000
    config.loop.update({"log_every": 500, "eval_every": 1000})
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.matching.samples, config.matching.length = 2, 40, 16, 3
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
    config.checkpoint.every = 10
    if config.task == "match":
        config.target.fitted_on = 100
    return config


def tiny_texts(config: ConfigDict) -> ConfigDict:
    config = tiny(config)
    config.matching.length, config.prior_texts, config.evaluation_texts = 24, 600, 8
    return config
