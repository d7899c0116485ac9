"""CPL and its baselines on comparisons of segments, with exact regret (a double integrator) or in Meta-World.

    python -m experiments.cpl.train --config=configs/cpl.py:PRESET --workdir=DIR

Presets:
  quick               CPL on the double integrator, 3 seeds: about a minute on 2 cores.
  <method>/<task>     3 seeds. Methods: cpl (bias 0.5), cpl_unbiased (bias 1), cpl_return (the same, compared by
                      return), cpl_bc, cpl_kl, piql, sft, bc, bc10 (of the best tenth). Tasks: double_integrator, and
                      with the extra metaworld bin-picking, button-press, door-open, drawer-open, plate-slide,
                      sweep-into.
  <method>/pictures   the double integrator from pictures of 16 pixels, 3 seeds: minutes on a CPU; not piql.
  paper-<method>/<task>   the authors' settings and lengths: 500,000 updates of 96 pairs of 64 steps, dense data; and
                      sparse-<method>/<task>, 10,000 comparisons of 20,000 segments. For a GPU.
  image-<method>/<task>   from Meta-World's pictures of 64 pixels with the authors' network for images, 2,500 segments,
                      all pairs by score, 120,000 updates; and image-sparse-<method>/<task>, 10,000 comparisons, 200,000
                      updates of 48. Not piql. For a GPU, with MUJOCO_GL=egl.
  full                CPL by the same from pictures of the double integrator.
  tiny                seconds: what the tests run, and so tiny-<method> and tiny-pictures.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.agents import cpl, piql
from rl_jax.core.config import core_config, from_preset

TASKS = ("bin-picking", "button-press", "door-open", "drawer-open", "plate-slide", "sweep-into")
DOUBLE_INTEGRATOR = "double_integrator"


def _unbiased() -> ConfigDict:
    config = cpl.default_config()
    config.bias = 1.0
    return config


# By method: its agent, and what it changes of the data.
METHODS = {
    "cpl_unbiased": (_unbiased, {}),
    "cpl": (cpl.default_config, {}),
    "sft": (cpl.sft_config, {}),
    "bc": (cpl.bc_config, {}),
    "cpl_return": (_unbiased, {"dataset.label": "return"}),
    "piql": (piql.default_config, {}),
    "cpl_kl": (cpl.cpl_kl_config, {}),
    "cpl_bc": (cpl.cpl_bc_config, {}),
    "bc10": (cpl.bc_config, {"dataset.top_fraction": 0.1}),
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {
        "quick": functools.partial(double_integrator, "cpl"), "full": pictures,
        "tiny-pictures": lambda: tiny(pictures(), picture=16),
    }
    for method in METHODS:
        presets[f"{method}/{DOUBLE_INTEGRATOR}"] = functools.partial(double_integrator, method)
        presets[f"tiny-{method}" if method != "cpl" else "tiny"] = lambda method=method: tiny(double_integrator(method))
        if method != "piql":
            presets[f"{method}/pictures"] = functools.partial(small_pictures, method)
        for task in TASKS:
            presets[f"{method}/{task}"] = functools.partial(meta_world, method, task)
            presets[f"paper-{method}/{task}"] = functools.partial(authors, method, task)
            presets[f"sparse-{method}/{task}"] = functools.partial(sparse, method, task)
            if method != "piql":
                presets[f"image-{method}/{task}"] = functools.partial(images, method, task)
                presets[f"image-sparse-{method}/{task}"] = functools.partial(sparse_images, method, task)
    return from_preset("cpl", presets, preset)


def base(method: str, name: str) -> ConfigDict:
    """The authors' settings."""
    make, changes = METHODS[method]
    config = core_config()
    config.agent = make()
    config.batch_size = 96  # pairs, or segments that are all compared
    config.num_steps = 500_000
    if "decay_steps" in config.agent:
        config.agent.decay_steps = config.get_oneway_ref("num_steps")
    config.eval_episodes = 25
    config.dataset = {
        "name": name,
        "num_steps": 160_000,  # in all segments together
        "segment_length": 64,
        "pairing": "rank",  # or "comparison" or "score": rl_jax/data/segments.py
        "temperature": 0.0,  # of the labels: 0 prefers the larger score, as in the authors' data
        "label": "regret",  # or "return": the score by which segments are compared
        "top_fraction": 1.0,  # below 1: the segments of the highest scores (%BC)
        "normalize_observations": False,
        "picture": 0,  # pixels: above 0 the policy sees pictures
        "seed": 0,
        "data_dir": "~/.cache/rl_jax",
    }
    config.loop.update({"chunk": 500, "log_every": 500, "eval_every": 5000, "eval_at_start": True})
    config.checkpoint.every = 50_000
    config.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


def double_integrator(method: str) -> ConfigDict:
    """10,000 segments of 16 steps of a weak controller with much noise, every regret exact."""
    config = base(method, DOUBLE_INTEGRATOR)
    config.dataset.update({"num_steps": 160_000, "segment_length": 16})
    config.dataset.strength = 0.03  # of the behaviour: the share of the optimal gain
    config.dataset.noise = 0.5  # of the bound, on every action
    # An action that is off by 1 costs 10.7, so that alpha is 10.7 / 21.4 in the regret model of the labels.
    config.dataset.temperature = 21.4
    if method in ("cpl", "cpl_unbiased", "cpl_return"):
        config.agent.alpha = 0.5
    config.num_seeds, config.num_steps, config.batch_size, config.eval_episodes = 3, 2500, 32, 64
    _lengths(config, cloning=500, warmup=100)
    config.agent.update({"hidden_dims": (64, 64), "learning_rate": 1e-3, "dropout": 0.0})
    config.loop.update({"chunk": 125, "log_every": 125, "eval_every": 125})
    config.checkpoint.every = 2500
    return config


def small_pictures(method: str) -> ConfigDict:
    """The same from pictures of 16 pixels with the authors' encoder, for a CPU."""
    config = double_integrator(method)
    config.dataset.picture = 16
    config.agent.update({"encoder": "drq_cnn", "shift": 1})  # a sixteenth of the width, as 4 are of 64
    config.batch_size, config.num_steps = 8, 2000
    return config


def meta_world(method: str, task: str) -> ConfigDict:
    """1,000 segments of a scripted expert that misjudges, networks and lengths for a CPU."""
    config = base(method, f"metaworld-{task}")
    config.dataset.update({"num_steps": 64_000, "normalize_observations": True})
    config.num_seeds, config.num_steps, config.batch_size = 3, 900, 8
    _lengths(config, cloning=300, warmup=100)
    config.agent.update({"hidden_dims": (128, 128), "learning_rate": 3e-4})
    if method == "piql":
        config.agent.reward_share = 1 / 3
    config.loop.update({"chunk": 100, "log_every": 100, "eval_every": 300, "eval_at_start": False})
    config.checkpoint.every = 900
    return config


def authors(method: str, task: str) -> ConfigDict:
    """Dense data: 2,500 segments, any two of which are compared."""
    config = base(method, f"metaworld-{task}")
    config.num_seeds = 4
    if method == "cpl_kl":
        config.agent.contrastive_rate = 0.1
    if method == "bc10":
        config.batch_size = 8  # pairs of 64 steps: 1,024 steps
    return config


def sparse(method: str, task: str) -> ConfigDict:
    """Sparse data: 20,000 segments, each in one comparison."""
    config = authors(method, task)
    config.dataset.update({"num_steps": 20_000 * 64, "pairing": "comparison"})
    return config


def images(method: str, task: str) -> ConfigDict:
    """Dense data from pictures."""
    config = _from_pictures(authors(method, task))
    if not config.agent.contrastive:
        # Pairs: the authors' file of SFT says "score", where their code knows no preferred segments and stops.
        config.dataset.pairing, config.batch_size = "rank", 32
    return config


def sparse_images(method: str, task: str) -> ConfigDict:
    """Sparse data from pictures."""
    config = _from_pictures(sparse(method, task))
    config.dataset.pairing = "comparison"
    _lengths(config, cloning=80_000, warmup=10_000)
    config.num_steps, config.batch_size = 200_000, 48
    return config


def pictures() -> ConfigDict:
    """CPL from pictures of the double integrator."""
    config = double_integrator("cpl")
    config.dataset.segment_length = 64
    return _from_pictures(config)


def _from_pictures(config: ConfigDict) -> ConfigDict:
    """With the authors' network and settings for images."""
    config.agent.update({
        "encoder": "drq_cnn", "hidden_dims": (1024, 1024), "dropout": 0.5, "learning_rate": 1e-4,
    })
    if config.agent.contrastive and config.agent.cloning_weight:
        config.agent.cloning_weight = 1.5
    config.dataset.update({"picture": 64, "pairing": "score"})
    _lengths(config, cloning=40_000, warmup=10_000)
    config.num_seeds, config.num_steps, config.batch_size = 4, 120_000, 64
    config.loop.update({"eval_every": 2500})
    return config


def _lengths(config: ConfigDict, cloning: int, warmup: int) -> None:
    if config.agent.name == "cpl":
        config.agent.update({"cloning_steps": cloning, "warmup_steps": warmup})


def tiny(config: ConfigDict, picture: int = 0) -> ConfigDict:
    """Seconds: what the tests run."""
    config.agent.hidden_dims = (16, 16)
    config.num_seeds, config.num_steps, config.batch_size, config.eval_episodes = 2, 40, 8, 4
    _lengths(config, cloning=10, warmup=5)
    config.dataset.update({"num_steps": 640, "segment_length": 8, "picture": picture})
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
    config.checkpoint.every = 10
    return config
