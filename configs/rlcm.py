"""RLCM beside DDPO: fine-tuning of text- or class-conditional image models by rewards.

    python -m experiments.rlcm.train --config=configs/rlcm.py:PRESET --workdir=DIR

Presets:
  digits-<reward>         RLCM on 8x8 digits from the committed consistency model, 300 updates of 160 images, 3 seeds:
                          minutes on 2 CPU cores. Rewards: compress, incompress, align.
  digits-ddpo-<reward>    the same by DDPO on 50 steps of the committed diffusion model: several minutes.
  digits-compress-kl      with the divergence from the pretrained model in the loss, at tuning.kl_coefficient.
  digits-pretrain         the consistency model, by easy consistency tuning: minutes on 2 CPU cores; writes model.npz.
  digits-pretrain-ddpo    the diffusion model.
  tiny, tiny-ddpo, tiny-align, tiny-pretrain    seconds: what the tests run.
"""

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.generative import fine_tuning

REWARDS = {"compress": "compressibility", "incompress": "incompressibility", "align": "alignment"}


def get_config(preset: str = "digits-compress") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {
        "digits-pretrain": lambda: _pretrain("consistency"),
        "digits-pretrain-ddpo": lambda: _pretrain("diffusion"),
        "emoji-pretrain-autoencoder": lambda: _part("autoencoder", 4000, 16),
        "emoji-pretrain-similarity": lambda: _part("similarity", 2000, 64),
        "emoji-pretrain-judge": lambda: _part("judge", 2000, 64),
        "digits-compress-kl": lambda: _with(_tune("consistency", "compress"), {"tuning.kl_coefficient": 0.1}),
        "tiny": lambda: _tiny(_tune("consistency", "compress")),
        "tiny-ddpo": lambda: _tiny(_tune("diffusion", "compress")),
        "tiny-align": lambda: _tiny(_tune("consistency", "align")),
        "tiny-pretrain": lambda: _tiny(_pretrain("consistency")),
    }
    for reward in REWARDS:
        presets[f"digits-{reward}"] = lambda reward=reward: _tune("consistency", reward)
        presets[f"digits-ddpo-{reward}"] = lambda reward=reward: _tune("diffusion", reward)
    return from_preset("rlcm", presets, preset)


def _config(kind: str) -> ConfigDict:
    config = core_config()
    config.task = "fine_tune"  # or "pretrain"
    config.domain = "digits"
    config.reward = "compressibility"  # a name of rl_jax/generative/rewards.py, or "alignment"
    config.reward_options = {"clip": "", "head": "", "url": ""}  # what the reward's function takes; see rewards.py
    config.judge_floor = 0.8  # the judge's accuracy below which rewards count as hacked; see tuning.evaluation
    # Whether the host rewards one batch while the device trains on the one before, whose images are an update old.
    config.overlap = False
    config.model = {
        "kind": kind,  # "consistency" or "diffusion"
        "path": "",  # a model.npz of a pretraining; "" for the committed one
        "num_calls": 8 if kind == "consistency" else 50,  # of the model, for an image
        "most": 20.0,  # noise level of the first call
        "least": 0.3 if kind == "consistency" else 0.02,  # of the last one; levels between are geometric
        "last_step": True,  # see generative.policy.consistency_sampler
        "reduction": "mean",  # of a log-density over an image's numbers
    }
    config.tuning = fine_tuning.default_config()
    config.pretraining = {
        "learning_rate": 1e-3,
        "decay": False,  # of the learning rate to 0, as a cosine
        "stages": 5,  # of ECT's gap, see generative.consistency.ect_gap
        "ema": 0.999,
        "from_diffusion": False,  # whether a consistency model starts from the diffusion model of its domain
    }
    config.evaluation_images = 400
    config.loop.log_every = 10
    config.tensorboard = False
    return config


def _tune(kind: str, reward: str) -> ConfigDict:
    config = _config(kind)
    config.reward = REWARDS[reward]
    config.num_seeds = 3
    config.num_steps = 300
    config.batch_size = 160
    config.loop.eval_every = config.loop.log_every = config.loop.chunk = 25
    config.tuning.update({"tracker_size": 64, "chunk_size": 1280 if kind == "consistency" else 1568})
    if reward == "align":
        config.tuning.learning_rate = 3e-5
        config.num_steps = 200
    return config


def _pretrain(kind: str) -> ConfigDict:
    config = _config(kind)
    config.task = "pretrain"
    config.num_steps = 12_000
    config.batch_size = 128
    config.loop.log_every = 1000
    config.loop.eval_every = 4000
    return config


def _part(kind: str, num_steps: int, batch_size: int) -> ConfigDict:
    """A network beside the generator of emoji."""
    config = _pretrain(kind)
    config.domain = "emoji"
    config.num_steps, config.batch_size = num_steps, batch_size
    config.loop.log_every = config.loop.chunk = 100
    config.loop.eval_every = 500
    return _with(config, {"pretraining.learning_rate": 2e-3, "pretraining.decay": True})


def _tiny(config: ConfigDict) -> ConfigDict:
    fields = {"num_seeds": 2, "num_steps": 4, "loop.eval_every": 2, "loop.log_every": 2, "evaluation_images": 20}
    if config.task == "pretrain":
        return _with(config, fields | {"num_seeds": 1, "batch_size": 16})
    return _with(config, fields | {"batch_size": 24, "model.num_calls": 3, "tuning.chunk_size": 24})


def _with(config: ConfigDict, fields: dict) -> ConfigDict:
    config.update_from_flattened_dict(fields)
    return config
