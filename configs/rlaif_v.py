"""RLAIF-V: feedback from a labeller that is asked about one claim at a time, over rounds of DPO.

    python -m experiments.rlaif_v.train --config=configs/rlaif_v.py:PRESET --workdir=DIR

Presets, for scenes that are described without pixels (3 seeds, a minute on a CPU core each, or less):
  quick, sft       supervised learning of a demonstrator that hallucinates 3 of 10 values and mentions 3 to 8 of them.
The others start from --config.start=DIR, a finished run of sft, seed by seed:
  divide           the labeller of claims: yes or no to a claim about a scene, from 2,000 labelled claims.
  holistic         the labeller of answers: which of two descriptions is better, from 2,000 labelled pairs.
Those with rounds are labelled by --config.labels.run=DIR, a finished run of divide or holistic:
  rounds           four rounds of DPO; an answer's score is minus the number of its claims that the labeller rejects.
  rounds-holistic  the labeller of answers says which of two is better.
  rounds-truth     the true number of errors, without a labeller: what labels without errors would bring.
  one-round        as many pairs and updates in one round.
  confounded       the better answer of a pair is another writer's, whose fillers differ.
  unbalanced       without the balance of lengths.
  paper/<preset>   the authors' numbers of instructions, rounds and updates, for the same scenes: for a GPU.
  tiny-<preset>    seconds: what the tests run; from a fresh decoder and labels that know nothing where none is given.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import dpo, judge, rounds, sft
from rl_jax.language.own_answers import judge_config

MOST = 18  # tokens: a description has 17
# Of the presets with rounds, by dotted field.
ARMS = {
    "rounds": {"best_of.samples": 8},
    "rounds-holistic": {"labels.kind": "holistic"},
    "rounds-truth": {"labels.kind": "truth"},
    "one-round": {"rounds.prompts": 1200, "rounds.updates": 144},
    "confounded": {"pairs.confounded": True},
    "unbalanced": {"pairs.balanced": False},
}
STAGES = ("sft", "divide", "holistic")


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    names = (*STAGES, *ARMS)
    presets = {"quick": functools.partial(on_scenes, "sft"), "tiny": lambda: tiny(on_scenes("sft"))}
    presets |= {name: functools.partial(on_scenes, name) for name in names}
    presets |= {f"paper/{name}": lambda name=name: paper(on_scenes(name)) for name in names}
    presets |= {f"tiny-{name}": lambda name=name: tiny(on_scenes(name)) for name in names}
    return from_preset("rlaif_v", presets, preset)


def on_scenes(name: str) -> ConfigDict:
    config = core_config()
    config.stage = name if name in STAGES else "rounds"
    config.start = ""  # a finished run of sft; "" for a fresh decoder
    config.decoder = {
        "width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 128,
        "context_length": 48,
    }
    config.data = {
        "size": 16_000,  # described scenes of supervised learning
        "noise": 0.3,  # share of their values that are wrong
        "fewest": 3,  # mentions of a description; at most all 8
        "labelled": 2000,  # claims, or pairs of descriptions, that a labeller learns from
        "judged": 300,  # fresh scenes
        "seed": 40,
    }
    config.judge = judge_config(MOST)
    config.judge.samples, config.judge.at_once = 2, 300
    config.tensorboard = False
    config.num_seeds, config.batch_size = 3, 64
    config.loop.update({"chunk": 36, "log_every": 36, "eval_every": 0})
    config.checkpoint.every = 0
    if name in STAGES:
        config.agent = judge.default_config() if name == "holistic" else sft.default_config()
        config.agent.update({"learning_rate": 2e-3, "warmup_steps": 36, "decay": True})
        config.num_steps = 612
        if name == "sft":  # long enough that it is wrong where its demonstrator is, and not otherwise
            config.batch_size, config.num_steps, config.agent.learning_rate = 32, 2016, 1e-3
        return config
    config.agent, config.num_steps = dpo.default_config(), 144
    config.agent.update({"beta": 0.1, "learning_rate": 1e-4})
    config.rounds = rounds.default_config(MOST)
    config.rounds.update({
        "prompts": 300, "samples": 10, "temperatures": (0.7,), "updates": 36, "anchor": "previous", "at_once": 300,
    })
    config.labels = {
        "kind": "divide",  # or "holistic", "truth"
        "run": "",  # of the stage of that name
    }
    config.pairs = {
        "most": 2,  # of a scene
        "least": 1.0,  # rejected claims by which the scores of a pair differ
        "balanced": True,  # whether the lengths of better and worse answers are made alike
        "confounded": False,  # whether the better answer of each pair is another writer's
    }
    config.best_of = {"samples": 0}  # answers of which the policy picks one by its own implicit reward; 0 for none
    config.loop.update({"eval_every": 36, "eval_at_start": True})
    config.update_from_flattened_dict(ARMS[name])
    config.checkpoint.every = 72
    return config


def paper(config: ConfigDict) -> ConfigDict:
    """The authors' numbers of instructions, rounds and updates, for the same scenes."""
    if config.stage == "rounds":
        config.rounds.update({"prompts": 4000, "updates": 2672, "at_once": 1000})
        config.num_steps, config.batch_size = 4 * 2672, 8
        config.agent.update({"learning_rate": 5e-7, "weight_decay": 0.01})
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    fields = {
        "num_seeds": 2, "num_steps": 8, "batch_size": 8, "data.size": 64, "data.labelled": 32, "data.judged": 16,
        "decoder.width": 16, "decoder.num_layers": 1, "decoder.num_heads": 2, "decoder.num_kv_heads": 2,
        "decoder.head_dim": 8, "decoder.hidden_width": 16, "judge.at_once": 16,
        "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 4, "checkpoint.every": 4, "agent.warmup_steps": 0,
    }
    if config.stage == "rounds":
        fields |= {"rounds.prompts": 16, "rounds.updates": 4, "rounds.samples": 4, "rounds.at_once": 16}
    config.update_from_flattened_dict(fields)
    return config
