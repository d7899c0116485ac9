"""RLCM and DDPO: fine-tuning of text- or class-conditional image models by rewards.

    python -m experiments.rlcm.train --config=configs/rlcm.py:PRESET --workdir=DIR

Presets; <domain> is emoji (32x32, 130 animals by their names) or digits (8x8); <scale> is one of these or emoji-large,
with updates for a GPU; <reward> is compress, incompress or align (how well an image matches its prompt):
  quick                    RLCM on emoji for small JPEG files, from the committed model: minutes on 2 CPU cores.
  <scale>-<reward>         RLCM from the committed consistency model, 3 seeds.
  <scale>-ddpo-<reward>    DDPO on 50 steps of the committed diffusion model: several times as long.
  <scale>-compress-kl      RLCM with the KL divergence from the pretrained model in the loss, at tuning.kl_coefficient.
  pretrain                 the committed consistency model of emoji, by easy consistency tuning of the diffusion model.
  <domain>-pretrain        a consistency model; for emoji the same as `pretrain`.
  <domain>-pretrain-ddpo   a diffusion model, which DDPO starts from.
  <domain>-pretrain-<part> a network beside the generator: judge, similarity and, of emoji, autoencoder.
  pipeline-<reward>        RLCM of a latent consistency model on disk, --config.pipeline.folder, by low-rank adapters of
                           its U-Net; <reward> may also be aesthetic (--config.reward_options.clip and .head) or vlm
                           (.url).
  pipeline-ddpo-<reward>   DDPO of a Stable Diffusion on disk, the same way.
  tiny, tiny-ddpo, tiny-align, tiny-pretrain    seconds: for tests.

A pretraining writes model.npz, which --config.model.path takes, and samples.png.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.generative import fine_tuning, pipeline_fine_tuning, pretraining
from rl_jax.generative.domain import ALIGNMENT

# Updates and images of an update, of the networks beside the generator.
PARTS = {
    ("emoji", "autoencoder"): (2000, 16), ("emoji", "similarity"): (1000, 64), ("emoji", "judge"): (1000, 64),
    ("digits", "similarity"): (400, 898), ("digits", "judge"): (400, 899),
}
# Learning rate, images of an update, rank and alpha of the adapters, tracker's size: RLCM's code.
PIPELINE_REWARDS = {
    "compress": ("compressibility", 1e-4, 16, 16, 32.0, 16),
    "incompress": ("incompressibility", 1e-4, 16, 16, 32.0, 16),
    "aesthetic": ("aesthetic", 1e-4, 32, 8, 8.0, 32),
    "align": ("similarity", 4e-4, 120, 16, 32.0, 32),
    "vlm": ("vlm", 4e-4, 120, 16, 32.0, 32),
}
# Images of an update, and the sampling steps whose gradient is in memory at once: of RLCM (8 an image) and DDPO (49).
SCALES = {"emoji": (32, 64, 98), "emoji-large": (520, 1040, 980), "digits": (160, 1280, 1568)}
PROMPTS = "experiments/rlcm/data/animals.txt"
REWARDS = {"compress": "compressibility", "incompress": "incompressibility", "align": ALIGNMENT}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {
        "quick": lambda: _with(_tune("emoji", "consistency", "compress"), {"num_seeds": 1}),
        "pretrain": lambda: _pretrain("emoji", "consistency"),
        "tiny": lambda: _tiny(_tune("digits", "consistency", "compress")),
        "tiny-ddpo": lambda: _tiny(_tune("digits", "diffusion", "compress")),
        "tiny-align": lambda: _tiny(_tune("digits", "consistency", "align")),
        "tiny-pretrain": lambda: _tiny(_pretrain("digits", "consistency")),
    }
    for domain, part in PARTS:
        presets[f"{domain}-pretrain-{part}"] = functools.partial(_part, domain, part)
    for domain in ("emoji", "digits"):
        for name, kind in (("", "consistency"), ("-ddpo", "diffusion")):
            presets[f"{domain}-pretrain{name}"] = functools.partial(_pretrain, domain, kind)
    for scale in SCALES:
        for name, kind in (("", "consistency"), ("-ddpo", "diffusion")):
            for reward in REWARDS:
                presets[f"{scale}{name}-{reward}"] = functools.partial(_tune, scale, kind, reward)
        presets[f"{scale}-compress-kl"] = lambda scale=scale: _with(
            _tune(scale, "consistency", "compress"), {"tuning.kl_coefficient": 0.1}
        )
    for name, kind in (("", "consistency"), ("-ddpo", "diffusion")):
        for reward in PIPELINE_REWARDS:
            presets[f"pipeline{name}-{reward}"] = functools.partial(_pipeline, kind, reward)
    return from_preset("rlcm", presets, preset)


def _config(domain: str, kind: str) -> ConfigDict:
    config = core_config()
    config.task = "fine_tune"  # or "pretrain"
    config.domain = domain  # "emoji", "digits" or "pipeline"
    config.reward = "compressibility"  # a name of rl_jax/generative/rewards.py, or "alignment"
    # Arguments of the reward's function; see rewards.py.
    config.reward_options = {"clip": "", "head": "", "url": "", "variant": ""}
    config.judge_floor = 0.8  # the judge's accuracy below which rewards count as hacked; see domain_evaluation.py
    # How many batches the host rewards ahead, while the device trains on earlier ones; 0 is strictly on-policy.
    config.overlap = 0
    config.model = {
        "kind": kind,  # "consistency" or "diffusion"; in a pretraining also a network beside the generator
        "path": "",  # a model.npz of a pretraining; "" for the committed one
        "num_calls": 8 if kind == "consistency" else 50,  # calls of the model for an image
        # An update's images are drawn by a random number of calls from this one on; 0: always by all. Then give
        # tuning.tracker_size the images that an update has of a prompt: rewards depend on the number.
        "fewest_calls": 0,
        "sigma_max": 20.0,  # noise level of the first call
        "sigma_min": 0.3 if kind == "consistency" else 0.02,  # of the last call; levels between are geometric
        "last_step": True,  # see policy.consistency_sampler
        "reduction": "mean",  # of a log-density over an image's numbers, or "sum"
    }
    config.tuning = fine_tuning.default_config()
    config.pretraining = pretraining.default_config()
    config.evaluation_images = 400
    config.loop.log_every = 10
    config.loop.eval_at_start = True
    config.tensorboard = False
    return config


def _tune(scale: str, kind: str, reward: str) -> ConfigDict:
    config = _config(scale.removesuffix("-large"), kind)
    config.reward = REWARDS[reward]
    config.num_seeds = 3
    config.num_steps, every = 200 if reward == "align" else 300, 5 if kind == "consistency" else 10
    config.batch_size, *chunk_sizes = SCALES[scale]
    config.tuning.update({"tracker_size": 64, "chunk_size": chunk_sizes[kind == "diffusion"]})
    config.tuning.learning_rate = 3e-5 if reward == "align" else 1e-4
    if scale == "emoji":
        config.num_steps, every = 60, 5 if kind == "consistency" else 20
        config.tuning.update({"tracker_size": 32, "learning_rate": 3e-4})
        if reward == "align":  # an image of each prompt: after 16 updates every prompt has statistics of its own
            config.num_steps, config.batch_size, every = 100, 130, 20
            config.tuning.update({"learning_rate": 1e-4, "chunk_size": 104 if kind == "consistency" else 98})
    if config.domain == "emoji":
        config.evaluation_images = 260
    config.loop.eval_every = config.loop.log_every = config.loop.chunk = config.checkpoint.every = every
    return config


def _pretrain(domain: str, kind: str) -> ConfigDict:
    config = _config(domain, kind)
    config.task, config.loop.eval_at_start = "pretrain", False
    config.num_steps = 12_000
    config.batch_size = 128
    config.loop.log_every = 1000
    config.loop.eval_every = 4000
    if domain == "emoji":
        config.num_steps = 6000 if kind == "diffusion" else 4000
        config.batch_size, config.evaluation_images = 32, 260
        config.loop.log_every, config.loop.chunk, config.loop.eval_every = 200, 50, 2000
        config.pretraining.decay = kind == "diffusion"
        config.pretraining.from_diffusion = kind == "consistency"
    return config


def _part(domain: str, part: str) -> ConfigDict:
    """A network beside the generator."""
    config = _pretrain(domain, part)
    config.num_steps, config.batch_size = PARTS[domain, part]
    config.loop.log_every = config.loop.chunk = 100
    config.loop.eval_every = 500
    if domain == "digits":  # full batches, no clipping; the last parameters are kept
        config.pretraining.update({"optimiser": "adam", "learning_rate": 1e-2, "ema": 0.0, "max_grad_norm": 1e6})
        return config
    return _with(config, {"pretraining.learning_rate": 2e-3, "pretraining.decay": True})


def _pipeline(kind: str, name: str) -> ConfigDict:
    config = _config("pipeline", kind)
    config.reward, rate, config.batch_size, rank, alpha, tracker_size = PIPELINE_REWARDS[name]
    config.num_steps, config.overlap, config.evaluation_images = 1000, 1, 64
    config.loop.log_every, config.loop.eval_every, config.checkpoint.every = 1, 50, 50
    config.tuning.update({"learning_rate": rate, "tracker_size": tracker_size, "chunk_size": 2, "decay_steps": 3000})
    config.pipeline = pipeline_fine_tuning.default_config()
    config.pipeline.update({"prompts": PROMPTS, "lora_rank": rank, "lora_alpha": alpha})
    if kind == "diffusion":
        config.pipeline.guidance = 5.0
    config.resident_rules = pipeline_fine_tuning.RESIDENT_RULES
    return config


def _tiny(config: ConfigDict) -> ConfigDict:
    fields = {"num_seeds": 2, "num_steps": 4, "loop.eval_every": 2, "loop.log_every": 2, "evaluation_images": 20}
    if config.task == "pretrain":
        return _with(config, fields | {"num_seeds": 1, "batch_size": 16})
    return _with(config, fields | {"batch_size": 24, "model.num_calls": 3, "tuning.chunk_size": 24})


def _with(config: ConfigDict, fields: dict) -> ConfigDict:
    config.update_from_flattened_dict(fields)
    return config
