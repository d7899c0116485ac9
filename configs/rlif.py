"""RLIF: reinforcement learning whose only reward is that an expert took over, beside ways to clone the expert.

    python -m experiments.rlif.train --config=configs/rlif.py:PRESET --workdir=DIR

Presets:
  quick              RLIF beside the weak expert of Pendulum-v1, 3 seeds.
  <method>/<task>    3 seeds. Methods: rlif (value-based interventions), rlif_random (in half of all steps),
                     rlif_random_30 and rlif_random_85 (in 30% and 85%), rlif_segments (random ones that last),
                     rlif_symmetric (half of each batch from the expert's first episodes), rlif_coded (the policy is
                     compared with the strong expert's action, as in the authors' scripts), rlif_own_reference (the
                     reference Q is that of the expert itself, from --config.intervention.reference=DIR, a run of
                     own_reference/<task>), dagger, dagger_85 (85% of all states are labelled), hg_dagger,
                     hg_dagger_coded (the policy's own steps are cloned too), bc. Tasks: pendulum, reacher and hopper,
                     each as <task>-weak and <task>-strong by the expert, and reacher-untrained and reacher-middle;
                     hopper has the authors' networks and lengths, for an accelerator.
  reference/<task>   fits the reference Q, which is that of the strong expert; own_reference/<task> of the task's own.
  tiny               RLIF in seconds: what the tests run, and so tiny-<method> and tiny-reference.
"""

import functools
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rl_jax.agents import bc, fqe, rlpd
from rl_jax.core.config import core_config, from_preset


class Task(NamedTuple):
    """What the tasks differ by.

    Attributes:
      experts: by level, of which every task has weak and strong.
      returns: that score 0 and 100; () for the published ones.
      settings: by dotted field.
      discount: of the reference Q.
    """

    env_id: str
    experts: dict[str, str]
    returns: tuple[float, ...]
    settings: dict[str, Any]
    discount: float


# Sizes for a CPU, where nothing of the authors' is known.
_SMALL = {
    "agent.hidden_dims": (64, 64), "agent.num_critics": 5, "agent.utd": 2, "agent.learning_rate": 1e-3,
    "batch_size": 64, "replay.capacity": 10_000, "prior.episodes": 10,
}
_HOPPER = {  # the authors' script
    "agent.utd": 15, "intervention.threshold": "relative", "intervention.alpha": 0.975, "eval_episodes": 50,
}
TASKS = {
    # A random policy returns -1211 in Pendulum, and TQC's -144; in Reacher TRPO's -12.5 before and -3.9 after training.
    "pendulum": Task(
        "Pendulum-v1", {"weak": "sac_pendulum", "strong": "tqc_pendulum"}, (-1211.0, -144.0), _SMALL, 0.97
    ),
    "reacher": Task(
        "Reacher-v4",
        {"untrained": "trpo_reacher_it0000", "weak": "trpo_reacher_it0020", "middle": "trpo_reacher_it0040",
         "strong": "trpo_reacher_it0500"},
        (-12.5, -3.9), _SMALL | {"prior.episodes": 40}, 0.95,
    ),
    "hopper": Task(
        "Hopper-v4", {"weak": "sac_hopper_100k", "strong": "trpo_hopper_it0500"}, (), _HOPPER, 0.99
    ),
}
CLONING = {"agent.hidden_dims": (64, 64), "batch_size": 64, "agent.learning_rate": 1e-3}
# The authors' rounds: the policy collects and is refitted in turn.
ROUNDS = {"collect.first": 2000, "collect.every": 400, "collect.env_steps": 400}
METHODS = {
    "rlif": {},
    "rlif_random": {"intervention.kind": "random", "intervention.probability": 0.5},
    "rlif_random_30": {"intervention.kind": "random", "intervention.probability": 0.3},
    "rlif_random_85": {"intervention.kind": "random", "intervention.probability": 0.85},
    "rlif_segments": {"intervention.kind": "random_segments", "intervention.probability": 0.5},
    "rlif_symmetric": {"replay.offline_fraction": 0.5},
    "rlif_coded": {"intervention.compared": "strong"},
    "rlif_own_reference": {},
    "dagger": {"store.what": "labels", "intervention.kind": "never"},
    "dagger_85": {
        "store.what": "labels", "intervention.kind": "never", "store.label_share": 0.85, "store.unlabelled": "own",
    },
    "hg_dagger": {"store.what": "segments"},
    "hg_dagger_coded": {"store.what": "segments", "store.unlabelled": "own"},
    "bc": {"intervention.kind": "never"},
}
CLONES = ("dagger", "dagger_85", "hg_dagger", "hg_dagger_coded", "bc")


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: interactive("rlif", "pendulum", "weak")}
    for task, own in TASKS.items():
        for level in own.experts:
            presets |= {
                f"{method}/{task}-{level}": functools.partial(interactive, method, task, level) for method in METHODS
            }
            presets[f"own_reference/{task}-{level}"] = functools.partial(reference, task, level)
            presets[f"reference/{task}-{level}"] = functools.partial(reference, task, "strong")
    presets |= {"tiny": lambda: tiny("rlif"), "tiny-reference": tiny_reference}
    presets |= {f"tiny-{method}": functools.partial(tiny, method) for method in METHODS}
    return from_preset("rlif", presets, preset)


def base(task: Task, expert: str) -> ConfigDict:
    config = core_config()
    config.env_id = task.env_id
    config.reference_returns = task.returns
    config.side_by_side = ()  # the simulators are opened for one combination of a sweep
    config.expert = {
        "name": expert,  # of rl_jax/data/experts or the locomotion sets, or a file by its path
        "stochastic": True,  # whether it acts with its own noise; labels are always its mode
    }
    config.prior = {"episodes": 50, "seed": 0}  # of the expert, that the learner starts from
    config.batch_size = 256
    config.num_seeds = 3
    config.eval_episodes = 10
    config.tensorboard = False
    return config


def interactive(method: str, name: str, level: str) -> ConfigDict:
    """A method beside an expert; a step is an update, and of RLIF a step of the environment."""
    task, clones = TASKS[name], method in CLONES
    config = base(task, task.experts[level])
    config.agent = bc.default_config() if clones else rlpd.default_config()
    config.intervention = {
        "kind": "value",  # or "random", "random_segments", "never": rl_jax/envs/interventions.py
        "steps": 4,  # n, of the expert at an intervention
        "beta": 0.95,  # the probability of one where it is due; elsewhere 1 - beta
        "probability": 0.5,  # of random ones
        "threshold": "absolute",  # or "relative", for positive Q alone
        "alpha": 0.97,  # relative: Q of the policy's action is below alpha times the expert's
        "delta": 0.01,  # absolute: it is below the expert's by more than this share of the range of Q
        "compared": "",  # an expert whose mode the policy's action is compared with; "" for what the expert would do
        "reference": name,  # the folder of a finished run of preset reference/<task>, or an embedded one
        "hidden_dims": (64, 64),  # of the reference Q
    }
    config.store = {
        "what": "steps",  # or "labels" (DAgger), "segments" (HG-DAgger)
        "expert_steps": "last",  # of an intervention: or "all", "none"
        "last_step": "dropped",  # of an episode: or "kept", "punished"
        "label_share": 1.0,  # of the states that get the expert's label
        "unlabelled": "dropped",  # or "own": the policy's actions are cloned too
    }
    config.collect = {
        "env_steps": 1,  # of each run's environment at a collection
        "first": 0,  # the update before which the first collection is
        "every": 1,  # updates between two collections
    }
    config.replay = {
        "capacity": 1_000_000,
        "offline_fraction": -1.0,  # of a batch from the expert's episodes; below 0: one buffer that begins with them
    }
    config.num_steps = 8000 if name != "hopper" else 1_000_000
    fields = {field: value for field, value in task.settings.items() if not clones or not field.startswith("agent.")}
    config.update_from_flattened_dict(fields)
    if clones:
        config.update_from_flattened_dict(CLONING | ROUNDS)
        config.num_steps += ROUNDS["collect.first"]
    config.update_from_flattened_dict(METHODS[method])
    if config.intervention.compared:
        config.intervention.compared = task.experts["strong"]
    if method == "rlif_own_reference":
        config.intervention.reference = ""  # has to be given
    if method == "bc":
        config.num_steps = config.collect.first  # it never collects
    config.loop.update({"chunk": 100, "log_every": 500, "eval_every": config.num_steps // 8, "eval_at_start": True})
    config.checkpoint.every = config.num_steps // 2
    return config


def reference(name: str, level: str) -> ConfigDict:
    """Fitted Q-evaluation of an expert."""
    task = TASKS[name]
    config = base(task, task.experts[level])
    config.agent = fqe.default_config()
    config.agent.update({"hidden_dims": (64, 64), "learning_rate": 1e-3, "discount": task.discount})
    if name == "hopper":
        config.agent.target_every = 20  # 100 leave a fifth of a Q with discount 0.99 unlearnt
    config.prior.shares = (0.0, 0.5, 1.0)  # of uniform actions in each third of the data
    config.num_seeds, config.num_steps = 1, 15_000
    config.loop.update({"chunk": 500, "log_every": 1000, "eval_every": 3000})
    config.checkpoint.every = config.num_steps
    return config


def tiny(method: str) -> ConfigDict:
    config = interactive(method, "pendulum", "weak")
    if "num_critics" in config.agent:
        config.agent.num_critics = 3
    config.intervention.reference = "pendulum"
    config.collect.update({"first": min(config.collect.first, 5), "every": 1, "env_steps": 1})
    return shortened(config)


def tiny_reference() -> ConfigDict:
    return shortened(reference("pendulum", "strong"))


def shortened(config: ConfigDict) -> ConfigDict:
    config.agent.hidden_dims = (16, 16)
    config.update_from_flattened_dict({
        "batch_size": 32, "num_seeds": 2, "num_steps": 40, "loop.chunk": 10, "loop.log_every": 10,
        "loop.eval_every": 20, "checkpoint.every": 10, "eval_episodes": 2, "prior.episodes": 2,
    })
    return config
