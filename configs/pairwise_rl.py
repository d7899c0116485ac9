"""Pairwise-RL: a policy's start, scorers of its answers, and reinforcement by them; a stage a run.

    python -m experiments.pairwise_rl.train --config=configs/pairwise_rl.py:PRESET --workdir=DIR

Presets, for digits to sort (3 seeds, minutes on 2 CPU cores each); all but the first start from --config.start=DIR, a
finished run of `sft`, and the arms read --config.scorer.run=DIR, a finished run of a scorer, seed by seed:
  quick, sft         supervised learning of answers of which 45% of the digits are noise.
  bt                 Bradley and Terry's model of pairs of the start's answers.
  judge              the generative judge of the same pairs, with the consistency term; judge-plain without it.
  bt-anchors, judge-anchors
                     the same where the second answer of three pairs in ten is the ground truth.
  bt-raw             arm (a): reinforcement by the number of bt.
  bt-scaled          arm (b): the same number with the deviation of the judge of --config.scorer.scale_by=DIR.
  bt-anchored        arm (c): sigmoid(r(y) - r(anchor)), the anchor a sample of the start.
  judge-sft          arm (d): the judge's probability that y beats that anchor.
  judge-gold         arm (e): the same of the ground truth, by judge-anchors.
  bt-raw-anchors, judge-sft-anchors
                     (a) by bt-anchors, and (d) by judge-anchors.
  ppo                (d) by PPO with a critic in [0, 1] in the place of a group's mean.
  p3o                differences of the number of bt between two answers to a prompt.
  tiny-<preset>      seconds: what the tests run; from fresh decoders and scorers where no run is given.

card/<preset> has the sizes of the first pilot, about three times as much. paper/<preset> is the same for SmolLM2 on
GSM8K, for an accelerator; tiny-paper-<preset> takes its way with stories260k.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import curriculum, grpo, judge, own_answers, reward_model, sft

ARM = {"batch_size": 128, "num_steps": 90, "agent.learning_rate": 3e-4, "agent.max_new_tokens": 6}
GROUP = {**ARM, "agent.kl_coefficient": 0.02, "agent.samples": 8}
PPO = {  # the divergence is in the loss, for what the critic predicts is a probability
    **ARM, "agent.kl_place": "loss", "agent.kl_estimator": "k3", "agent.kl_coefficient": 0.02,
    "agent.critic_bounded": True, "agent.critic_learning_rate": 1e-3, "agent.gae_lambda": 1.0,
}
# P3O's gradient, (r_1 - r_2) / 2 grad log(pi(y_1) / pi(y_2)), is that of two answers less their mean. Its clips do
# nothing where a batch is used for one update, as here.
P3O = {**GROUP, "agent.samples": 2, "agent.weights": "sequence_sum"}
SCORER = {"batch_size": 64, "num_steps": 800, "agent.learning_rate": 1e-3, "agent.warmup_steps": 20}
GROUPS = functools.partial(grpo.default_config, "dr_grpo")  # r less the mean of its group
# Stage, settings of its trainer, and dotted fields.
STAGES = {
    "sft": ("sft", sft.default_config, {"batch_size": 64, "num_steps": 400, "agent.learning_rate": 2e-3}),
    "bt": ("bt", reward_model.default_config, SCORER),
    "judge": ("judge", judge.default_config, SCORER),
    "judge-plain": ("judge", judge.default_config, {**SCORER, "agent.consistency": 0.0}),
    "bt-anchors": ("bt", reward_model.default_config, {**SCORER, "pairs.anchored": 0.3}),
    "judge-anchors": ("judge", judge.default_config, {**SCORER, "pairs.anchored": 0.3}),
    "bt-raw": ("rl", GROUPS, {**GROUP, "scorer.kind": "bt"}),
    "bt-scaled": ("rl", GROUPS, {**GROUP, "scorer.kind": "bt_scaled"}),
    "bt-anchored": ("rl", GROUPS, {**GROUP, "scorer.kind": "bt_anchored"}),
    "judge-sft": ("rl", GROUPS, GROUP),
    "judge-gold": ("rl", GROUPS, {**GROUP, "anchor": "gold"}),
    "ppo": ("rl", functools.partial(grpo.default_config, "ppo"), PPO),
    "p3o": ("rl", GROUPS, {**P3O, "scorer.kind": "bt"}),
    "bt-raw-anchors": ("rl", GROUPS, {**GROUP, "scorer.kind": "bt"}),
    "judge-sft-anchors": ("rl", GROUPS, GROUP),
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(on_digits, "sft"), "tiny": lambda: tiny(on_digits("sft"))}
    presets |= {name: functools.partial(on_digits, name) for name in STAGES}
    presets |= {f"card/{name}": functools.partial(as_the_card, name) for name in STAGES}
    presets |= {f"paper/{name}": functools.partial(on_text, name) for name in STAGES}
    presets |= {f"tiny-{name}": lambda name=name: tiny(on_digits(name)) for name in STAGES}
    presets |= {f"tiny-paper-{name}": lambda name=name: tiny_text(on_text(name)) for name in STAGES}
    return from_preset("pairwise_rl", presets, preset)


def stage_of(name: str) -> ConfigDict:
    stage, trainer, fields = STAGES[name]
    config = core_config()
    config.stage, config.task = stage, "sorting"  # or "text"
    config.start = ""  # a finished run of sft; "" for a fresh decoder, or the pretrained model
    config.scorer = {
        "kind": "judge",  # or "bt", "bt_scaled", "bt_anchored"
        "run": "",  # a finished run of the scorer; "" for one before its training
        "scale_by": "",  # a finished run of a judge, for bt_scaled
    }
    config.anchor = "sft"  # a sample of the start, or "gold", the ground truth
    config.pairs = {
        "prompts": 6000,  # problems, two answers each
        "kept": 4400,  # pairs
        "anchored": 0.0,  # share of the problems whose second answer is the ground truth
        "sharpness": 8.0,  # of the annotator, which is right with probability sigmoid(sharpness * difference in gold)
        "judged": 512,  # held-out pairs, of samples alone, by the gold reward
        "seed": 17,
    }
    config.answers = own_answers.judge_config(6)
    config.overlap = 0  # batches that are scored ahead; with one seed alone
    config.curriculum = curriculum.default_config()
    config.agent = trainer()
    config.tensorboard = False
    config.num_seeds = 3
    config.loop.update({"chunk": 50, "log_every": 100, "eval_every": 0})
    config.checkpoint.every = 0
    config.update_from_flattened_dict(fields)
    if stage == "bt":
        config.agent.centre = 0.0  # the number has no scale, as in the paper
    if stage == "rl":
        config.loop.update({"chunk": 1, "log_every": 15, "eval_every": 15, "eval_at_start": True})
    return config


def on_digits(name: str) -> ConfigDict:
    config = stage_of(name)
    config.decoder = {
        "width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 128,
        "tied": False, "context_length": 24,
    }
    config.data = {
        "size": 6000, "judged": 128,  # problems, and those never trained on
        "sizes": (5, 5),  # digits of one
        "noise": 0.45,  # share of the demonstrations' digits that are random
    }
    config.answers.at_once = 512
    return config


def as_the_card(name: str) -> ConfigDict:
    config = on_digits(name)
    if config.stage == "rl":
        config.batch_size, config.num_steps = 256, 240
    else:
        config.num_steps = 1500
    return config


def on_text(name: str) -> ConfigDict:
    config = stage_of(name)
    config.task, config.num_seeds = "text", 1
    config.model = {"name": "smollm2"}
    config.labels = (" A", " B")  # one token each
    config.data = {"name": "gsm8k", "longest": 512, "held_out": 0.2, "size": 7000, "judged": 240}
    config.answers.update({"max_new_tokens": 256, "at_once": 32})
    config.agent.update({"remat": True, "dtype": "bfloat16", "learning_rate": 1e-5, "micro_batches": 8})
    config.loop.seed_axis = "map"
    if config.stage == "rl":
        config.agent.update({"max_new_tokens": 256, "learning_rate": 1e-6})
        config.batch_size, config.num_steps = 256, 200
    return config


def tiny_text(config: ConfigDict) -> ConfigDict:
    fields = {
        "model.name": "stories260k", "labels": ("A", "B"), "data.longest": 400, "data.size": 120, "data.judged": 60,
        "answers.max_new_tokens": 180, "num_steps": 2, "batch_size": 8, "pairs.prompts": 8, "pairs.kept": 8,
        "pairs.judged": 8, "answers.samples": 2, "answers.at_once": 8, "agent.dtype": "float32",
        "agent.micro_batches": 1, "loop.chunk": 1, "loop.log_every": 1, "loop.eval_every": 2,
    }
    config.update_from_flattened_dict(fields)
    if config.stage == "rl":
        config.agent.max_new_tokens = 180
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    fields = {
        "num_seeds": 2, "num_steps": 8, "batch_size": 8, "data.size": 64, "data.judged": 16, "data.sizes": (3, 3),
        "pairs.prompts": 48, "pairs.kept": 24, "pairs.judged": 16, "answers.max_new_tokens": 4, "answers.samples": 2,
        "answers.at_once": 16, "decoder.width": 16, "decoder.num_layers": 1, "decoder.num_heads": 2,
        "decoder.num_kv_heads": 2, "decoder.head_dim": 8, "decoder.hidden_width": 16, "decoder.context_length": 20,
        "agent.warmup_steps": 2, "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 4, "checkpoint.every": 4,
    }
    config.update_from_flattened_dict(fields)
    if config.stage == "rl":
        config.agent.max_new_tokens = 4
        config.agent.samples = min(config.agent.samples, 4)
    return config
