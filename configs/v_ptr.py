"""V-PTR: values of action-free video train an encoder, and offline RL of a robot starts from it.

    python -m experiments.v_ptr.train --config=configs/v_ptr.py:PRESET --workdir=DIR

Presets:
  quick                 ICVF on clips of another body, 3 seeds. The same for the others:
  pretrain/<learner>    icvf, reconstruction or time_contrastive on those clips; icvf_robot on the robot's own frames.
  prior/<start>         CQL of the robot on demonstrations of four tasks. Starts: `shared`, an encoder that learns on;
                        `frozen`, one that does not. --config.init_from.run=DIR is a finished run of pretrain/*; without
                        it the encoder starts from nothing.
  finetune/<start>      the same on a mixture with few demonstrations of a fifth task; --config.init_from.run=DIR is a
                        finished run of prior/*. finetune-many/<start>: ten times as many.
  tabular               ICVF of state numbers in a 7 x 7 maze, held against exact values.
  paper-icvf, paper-prior, paper-finetune      the authors' settings and lengths at 64 pixels; for an accelerator.
  tiny                  seconds: what the tests run, and so tiny-<learner>, tiny-prior, tiny-finetune, tiny-tabular.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.agents import icvf, ptr, video_encoders
from rl_jax.core.config import core_config, from_preset

LEARNERS = ("icvf", "reconstruction", "time_contrastive", "icvf_robot")
STARTS = {"shared": {}, "frozen": {"agent.encoder_learning_rate": 0.0}}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {
        "quick": pretrain, "tabular": tabular, "tiny": lambda: tiny(pretrain()),
        "tiny-tabular": lambda: tiny(tabular()), "tiny-prior": lambda: tiny(prior()),
        "tiny-finetune": lambda: tiny(finetune()), "paper-icvf": lambda: authors(pretrain()),
        "paper-prior": lambda: authors(prior()), "paper-finetune": lambda: authors(finetune()),
    }
    for learner in LEARNERS:
        presets[f"pretrain/{learner}"] = functools.partial(pretrain, learner)
        presets[f"tiny-{learner}"] = lambda learner=learner: tiny(pretrain(learner))
    for start in STARTS:
        presets[f"prior/{start}"] = functools.partial(prior, start)
        presets[f"finetune/{start}"] = functools.partial(finetune, start)
        presets[f"finetune-many/{start}"] = functools.partial(finetune, start, 100)
    return from_preset("v_ptr", presets, preset)


def base(task: str) -> ConfigDict:
    config = core_config()
    config.task = task
    config.world = {
        "pixels": 16,
        "human": "square", "robot": "own",  # bodies: rl_jax/envs/velocity_maze.py
        "things": 2,  # that lie about in each clip or episode, of random places and colours
        "noise": 0.3,  # standard deviation of what is added to the shortest ways' actions
        "clips": 2000, "clip_steps": 24,  # of the video
        "prior": 200,  # demonstrations of the prior tasks
        "demonstrations": 10,  # of the task that counts
        "robot_steps": 40,  # at most, of a demonstration
        "horizon": 30,  # of a roll-out
        "seed": 0,  # of all data
    }
    config.shift = 0  # pixels by which frames are shifted at random, those of one row of a batch alike
    config.batch_size = 64
    config.num_seeds = 3
    config.eval_episodes = 100
    config.side_by_side = ("agent.*", "!agent.discount")
    config.tensorboard = False
    config.loop.update({"chunk": 250, "log_every": 500, "eval_every": 0, "eval_at_start": True})
    config.checkpoint.every = 0
    return config


def pretrain(learner: str = "icvf") -> ConfigDict:
    config = base("pretrain")
    small = {"encoder": "tiny_cnn", "learning_rate": 1e-3}
    if learner.startswith("icvf"):
        config.agent = icvf.default_config()
        config.agent.update(small | {"hidden_dims": (64, 64), "adam_eps": 1e-8, "discount": 0.95, "tau": 0.02})
    else:
        config.agent = video_encoders.default_config()
        config.agent.update(small | {"name": learner, "hidden_dims": (128,)})
    config.video = "robot" if learner == "icvf_robot" else "human"
    config.probed = 2000  # scenes of the linear probe
    config.num_steps = 3000
    return config


def prior(start: str = "shared") -> ConfigDict:
    config = base("robot")
    config.agent = ptr.default_config()
    config.agent.update({
        "encoder": "tiny_cnn", "hidden_dims": (64, 64), "learning_rate": 1e-3, "actor_learning_rate": 1e-3,
        "encoder_learning_rate": 3e-4, "tau": 0.02,
    })
    config.prior_share = 1.0  # share of the prior tasks' steps in a batch
    config.init_from.names = "params/encoder/"
    config.num_steps = 2000
    config.update_from_flattened_dict(STARTS[start])
    return config


def finetune(start: str = "shared", demonstrations: int = 10) -> ConfigDict:
    config = prior(start)
    config.prior_share = 0.9
    config.world.demonstrations = demonstrations
    config.init_from.names = "params/|opt_state/"
    config.num_steps = 4000
    config.loop.eval_every = 1000
    return config


def tabular() -> ConfigDict:
    config = base("tabular")
    config.agent = icvf.default_config()
    config.agent.update({
        "encoder": "one_hot_20", "hidden_dims": (64, 64), "learning_rate": 1e-3, "adam_eps": 1e-8, "discount": 0.9,
        "tau": 0.02, "expectile": 0.99,
    })
    config.batch_size, config.num_steps = 256, 8000
    return config


def authors(config: ConfigDict) -> ConfigDict:
    """The authors' hyper-parameters and lengths; their networks are larger and so are their pictures."""
    learner = icvf if config.task == "pretrain" else ptr
    config.agent = learner.default_config()
    config.world.pixels, config.shift = 64, 4
    config.num_steps = 1_000_000 if config.task == "pretrain" else 200_000
    config.loop.update({"log_every": 1000, "eval_every": 50_000})
    config.checkpoint.every = 50_000
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """Seconds: what the tests run."""
    config.agent.hidden_dims = (8, 8)
    config.world.update({"clips": 20, "prior": 12, "demonstrations": 4, "horizon": 4})
    config.num_seeds, config.batch_size, config.eval_episodes = 2, 16, 4
    if config.task == "pretrain":
        config.probed = 120
    config.num_steps = 40
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
    config.checkpoint.every = 10
    return config
