"""RLEEGNet: what a person imagines to move, told from EEG by CSP and DQN, fairly and as leaky protocols would have it.

    python -m experiments.rleegnet.train --config=configs/rleegnet.py:PRESET --workdir=DIR

Presets:
  quick                 DQN judged on runs that it has not seen, 3 seeds: a minute on a CPU.
  <method>/<protocol>   3 folds by 3 seeds. Methods: lda (CSP, log-variances and shrinkage LDA of whole trials), nearest
                        (1-NN of windows), dqn, dqn_discounted (discount 0.9), cross_entropy (the same network, told
                        the labels), streaming (windows come one after the other, to wait costs 0.01). Protocols: runs
                        (fair), csp (filters fitted to all trials), windows (overlapping windows split at random),
                        permuted, permuted_csp, permuted_windows (the three of permuted labels), fists (fair, left
                        against right), bank (fair, four bands of 4 to 38 Hz).
  paper/<method>        the sizes of the method's card and 10,000 steps, judged on unseen runs, 5 seeds: for a GPU.
  folder/<method>       the same on another person's EDF files: --config.data.folder=DIR, --config.data.task=imagery or
                        movement.
  tiny, tiny-<method>   seconds: what the tests run.
"""

from ml_collections import ConfigDict

from rl_jax.agents import trial_dqn
from rl_jax.core.config import core_config, from_preset

BANK = ((4.0, 8.0), (8.0, 14.0), (14.0, 22.0), (22.0, 38.0))  # Hz
# By method and by protocol: what is set besides, by dotted field.
BASELINES = {"lda": {"window.length": 3.0}, "nearest": {}}
LEARNERS = {
    "dqn": {}, "dqn_discounted": {"agent.discount": 0.9}, "cross_entropy": {"agent.feedback": "label"},
    "streaming": {"agent.wait_cost": 0.01, "agent.discount": 1.0},
}
PROTOCOLS = {
    "runs": {}, "csp": {"data.protocol": "csp"}, "windows": {"data.protocol": "windows"},
    "permuted": {"data.permute_labels": True},
    "permuted_csp": {"data.permute_labels": True, "data.protocol": "csp"},
    "permuted_windows": {"data.permute_labels": True, "data.protocol": "windows"},
    "fists": {"data.classes": (0, 1)}, "bank": {"data.bands": BANK},
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: classifier("dqn", "runs"), "tiny": lambda: tiny(classifier("dqn", "runs"))}
    for method in (*BASELINES, *LEARNERS):
        presets |= {
            f"{method}/{protocol}": lambda method=method, protocol=protocol: classifier(method, protocol)
            for protocol in PROTOCOLS
        }
        presets[f"paper/{method}"] = lambda method=method: paper(classifier(method, "runs"))
        presets[f"folder/{method}"] = lambda method=method: folder(paper(classifier(method, "runs")))
        presets[f"tiny-{method}"] = lambda method=method: tiny(classifier(method, "runs"))
    return from_preset("rleegnet", presets, preset)


def classifier(method: str, protocol: str) -> ConfigDict:
    config = core_config()
    config.data = {
        "folder": "",  # of one person's EDF files; "" for the embedded trials
        "task": "imagery",  # or, in a folder, "movement"
        "classes": (),  # 0 left fist, 1 right fist, 2 both fists, 3 both feet; () for all
        "bands": ((8.0, 30.0),),  # Hz
        "span": (0.5, 3.5),  # seconds from the cue
        "protocol": "runs",  # or "csp" or "windows", which leak
        "split_seed": 0,  # of "windows"
        "permute_labels": False,
    }
    config.window = {"length": 1.0, "hop": 0.125}  # seconds
    config.csp = {"pairs": 3, "shrinkage": 0.1}  # filters at each end for a class; also LDA's shrinkage
    config.num_seeds = 3
    config.tensorboard = False
    config.checkpoint.every = 0
    config.update_from_flattened_dict(PROTOCOLS[protocol])
    if method in BASELINES:
        config.agent = ConfigDict({"name": method})
        config.num_steps = 0
    else:
        config.agent = trial_dqn.default_config()
        config.agent.update({
            "widths": (16, 32), "pool": 4, "memory": 32, "batch_size": 32, "collected": 8, "exploration_steps": 1200,
        })
        config.side_by_side = ("agent.learning_rate",)
        config.num_steps = 3000
        config.loop.update({"chunk": 250, "log_every": 250, "eval_every": 250})
    config.update_from_flattened_dict((BASELINES | LEARNERS)[method])
    return config


def paper(config: ConfigDict) -> ConfigDict:
    """The card's sizes."""
    if config.num_steps:
        config.agent.update({
            "widths": (32, 64), "pool": 2, "memory": 64, "batch_size": 64, "collected": 1, "exploration_steps": 4000,
        })
        config.num_steps, config.num_seeds = 10_000, 5
        config.loop.update({"chunk": 500, "log_every": 500, "eval_every": 2500})
    return config


def folder(config: ConfigDict) -> ConfigDict:
    config.data.folder = "data/eeg"
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.data.bands = ((8.0, 30.0),)
    config.csp.pairs = 1
    config.num_seeds = 2
    if config.num_steps:
        config.window.hop = 1.0
        config.agent.update({"widths": (4, 4), "memory": 4, "batch_size": 8, "capacity": 64, "target_every": 5})
        config.num_steps = 40
        config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
        config.checkpoint.every = 10
    return config
