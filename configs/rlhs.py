"""RLHS: an assistant of a marketplace learns from feedback before or after what its advice leads to, a stage a run.

    python -m experiments.rlhs.train --config=configs/rlhs.py:PRESET --workdir=DIR

Presets of the token marketplace (3 seeds, a minute on 2 CPU cores each); all but the first start from
--config.start=DIR, a finished run of sft, seed by seed. FEEDBACK is immediate, partial or oracle (hindsight), or weak:
partial hindsight by a world model that is wrong about a fifth of the options.
  quick, sft         the seller's answers, of whose claims a quarter is wrong.
  dpo-FEEDBACK       DPO on 2 chats of the start in each scenario, compared by a judge in both orders.
  pg-FEEDBACK        policy gradient with a group's mean as baseline, rewarded by the customers' ratings.
  reward-FEEDBACK    a Bradley-Terry reward model of the pairs of DPO.
  ppo-FEEDBACK       PPO with a critic by that reward, --config.reward.run=DIR.
  tiny-<stage>       seconds: what the tests run; from a fresh decoder where no start is given.

smollm2/<stage>-FEEDBACK is the same with chats in English for SmolLM2, by adapters, for a GPU: dpo, reward and ppo from
the model itself, which is user, judge and, with --config.world.kind=model, world model too. tiny-texts-<stage>-FEEDBACK
takes its way with stories260k.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import curriculum, dpo, grpo, reward_model, sft
from rl_jax.language.own_answers import judge_config

# Hindsight of the judge, and the share of options about which the world model is wrong.
FEEDBACK = {
    "immediate": ("none", 0.0), "partial": ("partial", 0.0), "oracle": ("oracle", 0.0), "weak": ("partial", 0.2),
}
# Kind of stage, its trainer's settings, and dotted fields.
STAGES = {
    "sft": ("sft", sft.default_config, {"num_steps": 300, "agent.learning_rate": 3e-3, "agent.decay": True}),
    "dpo": ("dpo", dpo.default_config, {
        "num_steps": 120, "agent.learning_rate": 2e-4, "agent.decay": True, "agent.beta": 0.1,
        # RPO's; without it a policy this small loses what an answer looks like, which no pair tells it.
        "agent.likelihood_weight": 1.0,
    }),
    "pg": ("rl", functools.partial(grpo.default_config, "rloo"), {
        "num_steps": 100, "batch_size": 128, "agent.learning_rate": 1e-3, "agent.samples": 8, "agent.max_new_tokens": 5,
        "loop.chunk": 1, "loop.eval_every": 50,
    }),
    "reward": ("reward", reward_model.default_config, {"num_steps": 150, "agent.learning_rate": 1e-3}),
    "ppo": ("rl", functools.partial(grpo.default_config, "ppo"), {
        "num_steps": 100, "batch_size": 128, "agent.learning_rate": 1e-3, "agent.critic_learning_rate": 1e-3,
        "agent.max_new_tokens": 5, "loop.chunk": 1, "loop.eval_every": 50,
    }),
}
NAMES = ["sft"] + [f"{stage}-{feedback}" for stage in STAGES if stage != "sft" for feedback in FEEDBACK]


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(on_tokens, "sft"), "tiny": lambda: tiny(on_tokens("sft"))}
    presets |= {name: functools.partial(on_tokens, name) for name in NAMES}
    presets |= {f"tiny-{name}": lambda name=name: tiny(on_tokens(name)) for name in NAMES}
    texts = [name for name in NAMES if name.split("-")[0] in ("dpo", "reward", "ppo")]
    presets |= {f"smollm2/{name}": functools.partial(on_texts, name) for name in texts}
    presets |= {f"tiny-texts-{name}": lambda name=name: tiny_texts(on_texts(name)) for name in texts}
    return from_preset("rlhs", presets, preset)


def stage_of(name: str) -> ConfigDict:
    kind, _, feedback = name.partition("-")
    stage, trainer, fields = STAGES[kind]
    hindsight, error = FEEDBACK[feedback or "immediate"]
    config = core_config()
    config.stage, config.domain = stage, "tokens"  # or "texts"
    config.start = ""  # a finished run of sft; "" for a fresh decoder, or the pretrained model
    config.feedback = {
        "hindsight": hindsight,  # "none", "partial" or "oracle": what the judge is shown of what came of the advice
        "both_orders": True,  # whether the judge reads both orders of two chats, and contradictions are left out
        "seed": 17,  # of the chats that are compared
    }
    config.world = {"error": error}  # share of options about which the world model is wrong
    config.reward = {"run": ""}  # a finished run of stage "reward"; "" for the ratings themselves
    config.judge = judge_config(5)  # how policies are judged; pairs too are sampled `at_once`
    config.judge.update({"samples": 1, "at_once": 1000})
    config.overlap = 0  # batches of policy gradient that are scored ahead
    config.curriculum = curriculum.default_config()
    config.agent = trainer()
    config.tensorboard = False
    config.num_seeds, config.batch_size = 3, 64
    config.agent.warmup_steps = 20
    config.loop.update({"chunk": 30, "log_every": 30, "eval_every": 60})
    config.checkpoint.every = 100
    config.update_from_flattened_dict(fields)
    return config


def on_tokens(name: str) -> ConfigDict:
    config = stage_of(name)
    config.decoder = {
        "width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 128,
        "context_length": 12,
    }
    config.data = {
        "size": 8000,  # scenarios to train on
        "judged": 1000,  # never trained on
        "noise": 0.25,  # share of the seller's claims that are wrong
        "pairs": 0,  # most of a seed; 0 for all
    }
    return config


def on_texts(name: str) -> ConfigDict:
    config = stage_of(name)
    config.domain, config.num_seeds = "texts", 1
    config.model = {"name": "smollm2"}
    config.data = {"size": 12_000, "judged": 1200, "pairs": 10_000, "longest": 512}
    config.world.kind = "template"  # or "model", which is told the facts and the choice
    config.feedback.thoughts = 64  # tokens in which user and judge think before they choose; 0 for none
    config.feedback.longest = 1024  # tokens that they read
    config.judge.update({"max_new_tokens": 128, "at_once": 64})
    config.batch_size = 8
    config.agent.update({
        "learning_rate": 5e-5, "decay": True, "lora_rank": 16, "remat": True, "dtype": "bfloat16", "chunk": 64,
    })
    config.loop.update({"seed_axis": "map", "eval_every": 0})
    config.num_steps = 4000
    if config.stage == "dpo":
        config.agent.likelihood_weight, config.loop.eval_at_start = 0.0, True
    if config.stage == "rl":
        config.batch_size, config.num_steps, config.agent.micro_batches = 64, 200, 4
        config.agent.max_new_tokens, config.agent.critic_learning_rate = 128, 5e-4
    return config


SECONDS = {
    "num_steps": 8, "batch_size": 8, "agent.warmup_steps": 2, "loop.chunk": 2, "loop.log_every": 2,
    "loop.eval_every": 4, "checkpoint.every": 4,
}


def tiny(config: ConfigDict) -> ConfigDict:
    config.update_from_flattened_dict({
        **SECONDS, "num_seeds": 2, "data.size": 64, "data.judged": 32, "judge.at_once": 32, "decoder.width": 16,
        "decoder.num_layers": 1, "decoder.num_heads": 2, "decoder.num_kv_heads": 2, "decoder.head_dim": 8,
        "decoder.hidden_width": 16,
        "feedback.both_orders": False,  # of chats of a fresh decoder, which nobody tells apart, all are learnt
    })
    if "samples" in config.agent:
        config.agent.samples = min(config.agent.samples, 4)
    return config


def tiny_texts(config: ConfigDict) -> ConfigDict:
    config.update_from_flattened_dict({
        **SECONDS, "num_steps": 2, "loop.chunk": 1, "checkpoint.every": 0, "model.name": "stories260k",
        "data.size": 12, "data.judged": 4, "data.longest": 480, "feedback.thoughts": 4, "feedback.longest": 480,
        "judge.max_new_tokens": 8, "judge.at_once": 8, "agent.dtype": "float32", "agent.micro_batches": 1,
    })
    if config.stage == "rl":
        config.agent.max_new_tokens = 8
    return config
