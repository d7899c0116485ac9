"""L2M: a decision transformer pre-trained on some tasks, then tuned on others in sequence.

    python -m experiments.l2m.train --config=configs/l2m.py:PRESET --workdir=DIR

Presets:
  quick       pre-training on three tasks of Meta-World and a pendulum (in DMControl's place), one seed.
  <method>    3 seeds; --config.init_from.run=DIR is a finished run of `quick`. Three more tasks of Meta-World, one
              after another. Methods: l2m (a pool of LoRA), l2m_ia3 (of IA3), l2m_no_old_keys (every
              window is modulated), ft (the whole model), head, last_layer, last_layer_head, lora, ia3, adapters,
              prefix, prompt (one for all tasks), l2p (a pool of prompts), ewc and l2 (the whole model, with a penalty).
  paper       the authors' 40M model on forty tasks of Meta-World and the pendulum, 1,000,000 updates; paper-<method>
              tunes it on the ten tasks of Continual World and the mountain car, 100,000 updates each. For an
              accelerator, with data of 2,000,000 steps a task.
  tiny        seconds, in Gymnasium's two tasks: what the tests run, and so tiny-<method>.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.agents import l2m
from rl_jax.core.config import core_config, from_preset

ALONE = {"agent.pool_size": 1, "agent.pull": 0.0, "agent.count_penalty": False}
MODEL = {"agent.modulator": "", "agent.pool_size": 0}
METHODS = {
    "l2m": {},
    "l2m_ia3": {"agent.modulator": "ia3"},
    "l2m_no_old_keys": {"agent.keeps_old": False},
    "ft": {**MODEL, "agent.trainable": ".*"},
    "head": {**MODEL, "agent.trainable": "head/"},
    "last_layer": {**MODEL, "agent.trainable": "LAST/"},
    "last_layer_head": {**MODEL, "agent.trainable": "LAST/|head/"},
    "lora": ALONE,
    "ia3": {**ALONE, "agent.modulator": "ia3"},
    "adapters": {**ALONE, "agent.modulator": "adapter"},
    "prefix": {**ALONE, "agent.modulator": "prefix"},
    "prompt": {**ALONE, "agent.modulator": "prompt"},
    "l2p": {"agent.modulator": "prompt", "agent.pool_size": 100, "agent.top_k": 5, "agent.keeps_old": False},
    "ewc": {**MODEL, "agent.trainable": ".*", "agent.penalty": "ewc"},
    "l2": {**MODEL, "agent.trainable": ".*", "agent.penalty": "l2"},
}
OLD = ("metaworld-drawer-open", "metaworld-door-open", "metaworld-window-open", "pendulum")
NEW = ("metaworld-window-close", "metaworld-faucet-close", "metaworld-plate-slide")
# Continual World's ten tasks; the other forty are what the authors pre-train on.
CW10 = (
    "hammer", "push-wall", "faucet-close", "push-back", "stick-pull", "handle-press-side", "push", "shelf-place",
    "window-close", "peg-unplug-side",
)
MT40 = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press", "button-press-topdown",
    "button-press-topdown-wall", "button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn",
    "disassemble", "door-close", "door-lock", "door-open", "door-unlock", "drawer-close", "drawer-open", "faucet-open",
    "hand-insert", "handle-press", "handle-pull", "handle-pull-side", "lever-pull", "peg-insert-side",
    "pick-out-of-hole", "pick-place", "pick-place-wall", "plate-slide", "plate-slide-back", "plate-slide-back-side",
    "plate-slide-side", "reach", "reach-wall", "soccer", "stick-push", "sweep", "sweep-into", "window-open",
)


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": pretrain, "paper": lambda: authors(pretrain()), "tiny": lambda: tiny(pretrain())}
    for method in METHODS:
        presets[method] = functools.partial(tune, method)
        presets[f"paper-{method}"] = lambda method=method: authors(tune(method))
        presets[f"tiny-{method}"] = lambda method=method: tiny(tune(method))
    return from_preset("l2m", presets, preset)


def base() -> ConfigDict:
    """A small model and its tasks."""
    config = core_config()
    config.agent = l2m.default_config()
    config.agent.update({
        "embedding_dim": 64, "num_layers": 2, "num_heads": 4, "max_timesteps": 200, "dropout": 0.0,
        "learning_rate": 1e-3, "old_keys": 16, "pool_size": 8, "rank": 8,
    })
    config.tasks = {"old": OLD, "new": NEW, "steps": 1500, "fisher_batches": 10}
    config.dataset = {
        "episodes": 40,  # a task
        "steps": 160,  # of an episode, in the data and when judged
        "context_length": 2,  # the authors' is 5
        "seed": 0,
        "data_dir": "~/.cache/rl_jax",
    }
    config.eval_episodes = 6  # of each task
    config.side_by_side = ("agent.learning_rate", "agent.pull", "agent.penalty_weight")
    config.tensorboard = False
    return config


def pretrain() -> ConfigDict:
    config = base()
    config.stage = "pretrain"
    config.num_steps, config.batch_size = 4000, 64
    config.agent.warmup_steps = 100
    config.agent.decay_steps = config.get_oneway_ref("num_steps")
    config.loop.update({"chunk": 100, "log_every": 500, "eval_every": 0})
    config.checkpoint.every = 0
    return config


def tune(method: str) -> ConfigDict:
    config = base()
    config.stage = "tune"
    config.init_from.names = "params/(model|old)/"
    config.num_seeds, config.batch_size = 3, 64
    config.num_steps = config.tasks.steps * len(config.tasks.new)
    config.update_from_flattened_dict(METHODS[method])
    if config.agent.modulator:  # what starts at 0 learns slowly: a cross-entropy of 2.44 at 1e-3, of 2.38 at this
        config.agent.learning_rate = 3e-3
    config.loop.update({"chunk": 100, "log_every": 500, "eval_every": 0})
    config.checkpoint.every = 0
    last = f"Block_{config.agent.num_layers - 1}/"
    config.agent.trainable = config.agent.trainable.replace("LAST/", last)
    return config


def authors(config: ConfigDict) -> ConfigDict:
    """The authors' model, tasks and lengths; DMControl's ten and six are Gymnasium's two."""
    trainable, last = config.agent.trainable, config.agent.num_layers - 1
    sizes = ("embedding_dim", "num_layers", "num_heads", "max_timesteps", "rank", "old_keys")
    config.agent.update({name: l2m.default_config()[name] for name in (*sizes, "dropout", "learning_rate")})
    config.agent.trainable = trainable.replace(f"Block_{last}", f"Block_{config.agent.num_layers - 1}")
    if config.agent.pool_size == 8:
        config.agent.pool_size = 30
    config.tasks.update({
        "old": tuple(f"metaworld-{task}" for task in MT40) + ("pendulum",),
        "new": tuple(f"metaworld-{task}" for task in CW10) + ("mountain-car",), "steps": 100_000,
    })
    config.dataset.update({"episodes": 10_000, "steps": 200, "context_length": 5})
    config.batch_size, config.num_seeds = 256, 3
    config.num_steps = 1_000_000 if config.stage == "pretrain" else config.tasks.steps * len(config.tasks.new)
    config.agent.warmup_steps = 4000 if config.stage == "pretrain" else 0
    config.loop.update({"log_every": 10_000, "eval_every": 0 if config.stage == "pretrain" else 50_000})
    config.checkpoint.every = 50_000
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """Seconds: what the tests run."""
    config.agent.update({
        "embedding_dim": 16, "num_layers": 1, "num_heads": 2, "num_bins": 8, "old_keys": 4, "rank": 2,
    })
    config.agent.trainable = config.agent.trainable.replace("Block_1", "Block_0")
    config.tasks.update({"old": ("pendulum",), "new": ("mountain-car", "pendulum"), "steps": 20, "fisher_batches": 2})
    config.dataset.update({"episodes": 4, "steps": 30})
    config.num_seeds, config.num_steps, config.batch_size, config.eval_episodes = 2, 40, 16, 1
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
    config.checkpoint.every = 10
    return config
