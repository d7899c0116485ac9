"""RLZero: sentences to policies of a forward-backward representation, beside rivals and with parts replaced.

    python -m experiments.rlzero.train --config=configs/rlzero.py:PRESET --workdir=DIR

Presets:
  quick              FB in the four alcoves without rewards, 3 seeds: what every other preset starts from.
  infer/<method>     3 seeds; nothing is trained, --config.init_from.run=DIR is a finished run of `quick`. Methods:
                     rlzero (drawn clips, random convolutions and PCA, z_imit), rlzero_discounted (frames weighted by
                     gamma^k), true_states (z_imit of the drawn states, without pictures), square and cross (clips of
                     another body), square_pixels, square_contrastive (the same by another embedder), contrastive,
                     pixels, clip (an image encoder by --config.embedder.path), reward (z_r of the prompt's own reward),
                     goal (z_g of the last frame), random (random z).
  image_reward       TD3+BC, one agent a prompt, whose reward is the cosine of picture and clip.
  encoder            the contrastive encoder, for --config.embedder.path.
  exact              the identities of the representation in a maze of 11 x 11 cells, in float64.
  paper              FB at the authors' sizes and lengths: 3,000,000 updates of 1,024; for an accelerator. What starts
                     from it: paper-infer/<method>.
  full               FB of Hopper's body from the replay of a training, standardised, judged in Hopper-v4 by z of its
                     reward; and full-infer/<method>: reward, rlzero (a clip of TRPO's policy, windows of 3 pictures of
                     64 pixels), square (the same in another colour and thicker), true_states. For an accelerator.
  tiny               seconds: what the tests run, and so tiny-<method>, tiny-image_reward, tiny-encoder, tiny-exact and
                     tiny-body.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.agents import fb, td3_bc
from rl_jax.core.config import core_config, from_preset

METHODS = {
    "rlzero": {},
    "rlzero_discounted": {"imagine.discount": 0.95},
    "true_states": {"imagine.arm": "true"},
    "square": {"imagine.sprite": "square"},
    "cross": {"imagine.sprite": "cross"},
    "square_pixels": {"imagine.sprite": "square", "embedder.name": "pixels"},
    "square_contrastive": {"imagine.sprite": "square", "embedder.name": "contrastive"},
    "contrastive": {"embedder.name": "contrastive"},
    "pixels": {"embedder.name": "pixels"},
    "clip": {"embedder.name": "clip"},
    "reward": {"imagine.arm": "reward"},
    "goal": {"imagine.arm": "goal"},
    "random": {"imagine.arm": "random"},
}
BODIES = ("reward", "rlzero", "square", "true_states")  # of Hopper


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {
        "quick": pretrain, "image_reward": image_reward, "encoder": encoder, "exact": exact,
        "paper": lambda: authors(pretrain()), "full": body, "tiny-body": lambda: tiny(body("rlzero")),
        "tiny": lambda: tiny(pretrain()), "tiny-image_reward": lambda: tiny(image_reward()),
        "tiny-encoder": lambda: tiny(encoder()), "tiny-exact": lambda: tiny(exact()),
    }
    for method in BODIES:
        presets[f"full-infer/{method}"] = functools.partial(body, method, 0)
    for method in METHODS:
        presets[f"infer/{method}"] = functools.partial(infer, method)
        presets[f"paper-infer/{method}"] = lambda method=method: authors(infer(method))
        presets[f"tiny-{method}"] = lambda method=method: tiny(infer(method))
    return from_preset("rlzero", presets, preset)


def base(task: str) -> ConfigDict:
    """FB at a CPU's size in the four alcoves."""
    config = core_config()
    config.task = task
    config.agent = fb.default_config()
    config.agent.update({
        "latent_dim": 32, "hidden_dim": 64, "backward_hidden_dim": 64, "frequencies": 3, "learning_rate": 1e-3,
        "backward_learning_rate": 1e-3, "actor_learning_rate": 3e-4, "discount": 0.94,
    })
    config.maze = {"episodes": 2000, "episode_steps": 50, "seed": 0}  # uniform actions from uniform starts
    config.imagine = {
        "arm": "projected",  # or "true", "reward", "goal", "random": experiments/rlzero/experiment.py
        "sprite": "own",  # the body in the clips: rl_jax/envs/velocity_maze.py
        "frames": 32,  # of a clip
        "discount": 1.0,  # gamma of the frames' weights gamma^k in z_imit
        "horizon": 50,  # steps of a roll-out
    }
    config.embedder = {
        "name": "random_conv",  # or "contrastive", "pixels", "clip": rl_jax/generative/embedders.py
        "path": "",  # clip: its folder; contrastive: the folder of a finished run of preset encoder
        "states": 5000,  # of the data whose pictures may be found
        "window": 1,  # pictures that are compared together; a point's position is all of its state
        "pixels": 32,
    }
    config.goals = 20
    config.batch_size = 256
    config.num_seeds = 3
    config.eval_episodes = 4  # starts of each prompt, and of each goal
    config.side_by_side = ("agent.*", "!agent.value_weight")
    config.tensorboard = False
    config.loop.update({"chunk": 500, "log_every": 1000, "eval_every": 1500, "eval_at_start": True})
    return config


def pretrain() -> ConfigDict:
    config = base("pretrain")
    config.num_steps = 6000
    config.checkpoint.every = 6000
    return config


def infer(method: str) -> ConfigDict:
    config = base("infer")
    config.num_steps = 0
    config.init_from.names = "params/"
    config.update_from_flattened_dict(METHODS[method])
    return config


def image_reward() -> ConfigDict:
    config = base("image_reward")
    config.agent = td3_bc.default_config()
    config.agent.update({"hidden_dims": (64, 64), "learning_rate": 1e-3, "discount": 0.94})
    config.num_steps = 1000
    config.loop.update({"chunk": 250, "log_every": 500, "eval_every": 500})
    config.checkpoint.every = 1000
    return config


def encoder() -> ConfigDict:
    config = base("encoder")
    config.encoder = {
        "learning_rate": 1e-3,
        "recolour": 0.3,  # standard deviation of the random mixing of the body's colour channels
    }
    config.num_seeds, config.num_steps, config.batch_size = 1, 600, 64
    config.loop.update({"chunk": 100, "log_every": 100, "eval_every": 200})
    config.checkpoint.every = 600
    return config


def exact() -> ConfigDict:
    config = base("exact")
    config.num_steps = 0
    return config


def authors(config: ConfigDict) -> ConfigDict:
    """FB's settings of the authors' point mass, networks and lengths."""
    config.agent = fb.default_config()
    config.agent.update({
        "latent_dim": 100, "frequencies": 3, "discount": 0.99, "backward_learning_rate": 1e-6,
        "actor_learning_rate": 1e-6,
    })
    config.maze.update({"episodes": 5000, "episode_steps": 1000})
    config.batch_size, config.num_seeds = 1024, 4
    if config.task == "pretrain":
        config.num_steps = 3_000_000
        config.loop.update({"log_every": 10_000, "eval_every": 100_000})
        config.checkpoint.every = 100_000
    return config


def body(method: str = "reward", num_steps: int = 3_000_000) -> ConfigDict:
    """The authors' settings of DeepMind Control, with Gymnasium's Hopper."""
    config = pretrain()
    config.task = "body"
    config.agent = fb.default_config()
    config.dataset = {
        "name": "locomotion-2/hopper-medium-replay", "path": "", "num_steps": 0, "seed": 0, "env_id": "",
        "reference_returns": (), "data_dir": "~/.cache/rl_jax",
    }
    config.update_from_flattened_dict(METHODS[method])
    config.imagine.policy = "trpo_hopper_it0500"  # whom the clip is of
    config.imagine.frames = 200
    # States are of the first `stretch` steps of episodes of all ages.
    config.embedder.update({"window": 3, "pixels": 64, "stretch": 200})
    config.num_steps, config.batch_size, config.num_seeds, config.eval_episodes = num_steps, 1024, 4, 10
    config.loop.update({"log_every": 10_000, "eval_every": 100_000, "eval_at_start": False})
    config.checkpoint.every = 100_000
    if not num_steps:
        config.init_from.names = "params/"
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """Seconds: what the tests run."""
    config.maze.update({"episodes": 20, "episode_steps": 10})
    config.imagine.update({"frames": 4, "horizon": 12})
    config.embedder.update({"states": 100, "pixels": 16})
    config.num_seeds, config.batch_size, config.eval_episodes, config.goals = 2, 16, 2, 3
    if config.task == "image_reward":
        config.agent.hidden_dims = (8, 8)
    else:
        config.agent.update({"latent_dim": 8, "hidden_dim": 16, "backward_hidden_dim": 16})
    if config.task == "body":
        config.dataset.update({"name": "locomotion-2/hopper-medium", "num_steps": 1000})
    if config.task in ("pretrain", "image_reward", "encoder", "body"):
        config.num_steps = 40
        config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
        config.checkpoint.every = 10
    return config
