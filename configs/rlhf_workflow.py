"""RLHF Workflow: from a reward model to online, iterative DPO, a stage a run.

    python -m experiments.rlhf_workflow.train --config=configs/rlhf_workflow.py:PRESET --workdir=DIR

Presets, for digits to sort (5 seeds, minutes on 2 CPU cores each); all but the first take --config.start=DIR,
a finished run of `sft`, and those with rounds also --config.reward.run=DIR, one of `rm` or of `pm`, seed by seed:
  quick, sft          supervised learning of a demonstrator who errs.
  rm                  Bradley and Terry's model of pairs that the supervised policy itself wrote.
  rm-biased           the same of an annotator who likes long answers.
  pm                  the pairwise preference model of the same pairs.
  iterative           three rounds of sampling, ranking and DPO; the anchor is pi_0, as the paper has it.
  iterative-previous  the anchor is the policy of the round before, as the authors' scripts have it: another algorithm.
  offline             one round of as many pairs and updates, all from pi_0.
  max-random          the best answer over a random one; max-max has the best over the second best.
  tournament          best and worst by a knockout of the pairwise preference model.
  penalised           the reward less a number a character (the paper's "concise" model).
  two-temperatures    half of the answers at temperature 0.7, as the paper's text says.
  second-script       the authors' second script: label smoothing 0.1, 4 answers, the previous anchor.
  gold                rounds ranked by the true reward, which no run has to learn.
  tiny-<stage>        seconds: what the tests run; from a fresh decoder where no start is given.

people is Bradley and Terry's model of people's preferences (HH-RLHF), short ones, on frozen features of SmolLM2 (`make
smollm2`): 5 seeds, six CPU minutes, nearly all of them for the features, which are computed once.

Presets of text, for a GPU (`make smollm2`): smollm2/features is Bradley and Terry's model of people's preferences
(HH-RLHF) on frozen features of SmolLM2, smollm2/pm the pairwise model by adapters, and smollm2/<rounds> are those of
SmolLM2 by adapters, ranked by the first. tiny-text-<stage> takes their way with stories260k.
"""

import functools
from typing import Any

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import dpo, judge, reward_model, rounds, sft
from rl_jax.language.experiments import data_config
from rl_jax.language.own_answers import judge_config

ROUNDS, PROMPTS, UPDATES, ANSWER = 3, 512, 20, 10  # ANSWER: tokens, at most
PAIRWISE = {"reward.kind": "pairwise"}
# Kind of stage, and what it changes, by dotted field.
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "rm": ("reward", {}),
    "rm-biased": ("reward", {"annotator.length_bias": 0.15}),
    "pm": ("pairwise", {}),
    "iterative": ("rounds", {}),
    "iterative-previous": ("rounds", {"rounds.anchor": "previous"}),
    "offline": ("rounds", {"rounds.prompts": ROUNDS * PROMPTS, "rounds.updates": ROUNDS * UPDATES}),
    "max-random": ("rounds", {"selector": "max_random"}),
    "max-max": ("rounds", {"selector": "max_max"}),
    "tournament": ("rounds", PAIRWISE),
    "penalised": ("rounds", {"reward.length_penalty": 1.0}),
    "two-temperatures": ("rounds", {"rounds.temperatures": (1.0, 0.7)}),
    "second-script": ("rounds", {"rounds.anchor": "previous", "agent.label_smoothing": 0.1, "rounds.samples": 4}),
    "gold": ("rounds", {"reward.kind": "gold"}),
}
AGENTS = {
    "sft": sft.default_config, "reward": reward_model.default_config, "pairwise": judge.default_config,
    "features": reward_model.default_config, "rounds": dpo.default_config,
}
OF_KIND: dict[str, dict[str, Any]] = {
    "sft": {"num_steps": 500, "agent.learning_rate": 2e-3},
    "reward": {"num_steps": 600, "agent.learning_rate": 1e-3},
    "pairwise": {"num_steps": 600, "agent.learning_rate": 1e-3, "agent.consistency": 0.0},
    "rounds": {"num_steps": ROUNDS * UPDATES, "agent.learning_rate": 1e-4, "loop.eval_every": UPDATES,
               "loop.log_every": UPDATES, "loop.eval_at_start": True},
}
TEXTS = ("features", "pm", "iterative", "iterative-previous", "offline", "max-random", "penalised", "two-temperatures",
         "second-script")


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: sorting("sft"), "tiny": lambda: tiny(sorting("sft"))}
    presets |= {name: functools.partial(sorting, name) for name in STAGES}
    presets["people"] = people
    presets |= {f"tiny-{name}": lambda name=name: tiny(sorting(name)) for name in STAGES}
    presets |= {f"smollm2/{name}": functools.partial(text, name) for name in TEXTS}
    presets |= {f"tiny-text-{name}": lambda name=name: tiny_text(text(name)) for name in TEXTS}
    return from_preset("rlhf_workflow", presets, preset)


def of_stage(kind: str, answer: int) -> ConfigDict:
    config = core_config()
    config.stage = kind
    config.start = ""  # a finished run of `sft`; "" for a fresh decoder, or the model of the texts
    config.agent = AGENTS[kind]()
    config.reward = {
        "kind": "bradley_terry",  # or "pairwise", "features" of texts, "gold"
        "run": "",  # a finished run that trained it
        "length_penalty": 0.0,  # lambda, of each character of an answer
    }
    config.selector = "max_min"  # or "max_random", "max_max": which answers make a pair
    config.rounds = rounds.default_config(answer)
    config.judge = judge_config(answer)
    config.tensorboard = False
    config.loop.update({"chunk": 50, "log_every": 50, "eval_every": 0})
    return config


def sorting(name: str) -> ConfigDict:
    kind, fields = STAGES[name]
    config = of_stage(kind, ANSWER)
    config.task, config.num_seeds, config.batch_size = "sorting", 5, 64
    config.decoder = {
        "width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 128,
        "context_length": 16,
    }
    config.data = {
        "size": 3000, "judged": 200,  # rows of digits to train on, and others that are judged
        "digits": 5,
        "noise": 0.45,  # share of the demonstrator's digits that are random ones
        "dots": 0.3,  # probability of one more dot after its answer, which says nothing
    }
    config.annotator = {
        "sharpness": 8.0,  # right with probability sigmoid(sharpness times the difference of scores)
        "length_bias": 0.0,  # score of a character, beside the gold reward
    }
    config.pairs = {"prompts": 2400, "kept": 1600, "judged": 150}  # two answers each; pairs to train on, and judged
    config.rounds.update({"prompts": PROMPTS, "updates": UPDATES, "at_once": 256})
    config.judge.at_once = 200
    config.update_from_flattened_dict({**OF_KIND[kind], **fields})
    return config


def text(name: str) -> ConfigDict:
    kind, fields = ("features", {}) if name == "features" else STAGES[name]
    config = of_stage(kind, 128)
    config.task = "text"
    config.update(data_config())
    config.model.name, config.data.name, config.data.longest = "smollm2", "hh_harmless", 512
    config.loop.update({"eval_at_start": True, "seed_axis": "map"})
    config.judge.update({"samples": 1, "at_once": 64})
    config.agent.dtype = "bfloat16"
    if kind == "features":
        config.batch_size, config.num_steps = 256, 400
        config.agent.update({"learning_rate": 1e-3, "weight_decay": 0.1})
        return config
    config.agent.update({"learning_rate": 2e-4, "lora_rank": 16, "remat": True, "warmup_steps": 2, "decay": True})
    config.agent.micro_batches, config.batch_size, config.num_steps = 8, 32, 3 * 25
    if kind == "pairwise":
        config.agent.consistency = 0.0
        return config
    # The authors' 20,000 questions a round are 400 here, as many as there are; 2 passes, as theirs.
    config.agent.learning_rate = 1e-5
    config.rounds.update({"prompts": 400, "updates": 25, "at_once": 64})
    config.reward.kind = "features"
    config.loop.update({"eval_every": 25, "log_every": 5})
    config.update_from_flattened_dict(fields)
    if name == "offline":
        config.rounds.update({"prompts": 3 * 400, "updates": 3 * 25})
    if name == "penalised":
        config.reward.length_penalty = 0.001  # the authors'
    return config


def people() -> ConfigDict:
    """The features of the pairs of at most `longest` tokens, of which two fifths of the openings are judged."""
    config = text("features")
    config.num_seeds, config.num_steps, config.agent.dtype = 5, 100, "float32"
    config.data.longest, config.data.held_out = 128, 0.4
    config.rounds.max_new_tokens = 32  # none is sampled; what is left of a row is a question's
    config.loop.update({"chunk": 25, "log_every": 25, "eval_every": 25})
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.update_from_flattened_dict({
        "num_seeds": 2, "num_steps": min(6, config.num_steps), "batch_size": 8, "data.size": 64, "data.judged": 16,
        "data.digits": 2, "decoder.width": 16, "decoder.num_layers": 1, "decoder.num_heads": 2,
        "decoder.num_kv_heads": 2, "decoder.head_dim": 8, "decoder.hidden_width": 16, "decoder.context_length": 8,
        "rounds.max_new_tokens": 5, "rounds.prompts": min(32, config.rounds.prompts // 8), "rounds.samples": 4,
        "rounds.updates": 2, "rounds.at_once": 16, "judge.max_new_tokens": 5, "judge.samples": 2, "judge.at_once": 16,
        "pairs.prompts": 64, "pairs.kept": 16, "pairs.judged": 8, "agent.warmup_steps": 2,
        "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 3, "checkpoint.every": 3,
    })
    return config


def tiny_text(config: ConfigDict) -> ConfigDict:
    config.update_from_flattened_dict({
        "model.name": "stories260k", "data.longest": 192, "data.most": 24, "num_steps": min(4, config.num_steps),
        "batch_size": 8, "agent.dtype": "float32", "agent.micro_batches": 1, "rounds.max_new_tokens": 8,
        "rounds.prompts": 8, "rounds.samples": 4, "rounds.updates": 2, "rounds.at_once": 8, "judge.max_new_tokens": 8,
        "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 2, "checkpoint.every": 2,
    })
    return config
