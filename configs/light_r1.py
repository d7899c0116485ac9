"""Light-R1: a curriculum for long chains of thought, a stage a run.

    python -m experiments.light_r1.train --config=configs/light_r1.py:PRESET --workdir=DIR

Presets, for chains of additions and multiplications modulo 100 (3 seeds, minutes on 2 CPU cores each); all but the
first start from --config.start=DIR, a finished run of the stage before, seed by seed:
  quick, sft1        supervised learning of the teacher's traces of 1 to 5 steps.
  sft1-continued     as many further updates of that as sft2 has.
  sft2               the 500 problems of 4 to 7 steps, of 600, that the model itself solves least often.
  sft2-unfiltered    500 of them without the filter.
  dpo-nca            NCA for the teacher's traces over the model's own wrong ones; from sft2.
  dpo-sigmoid        the same pairs with DPO's loss.
  dpo-second         NCA at another beta, the second variant that the average takes.
  average            of --config.average.first, .second and .third, which are runs: nothing is trained.
  grpo               8 samples a problem that the averaged model solves in 0.2 to 0.625 of its samples.
  grpo-unfiltered    problems of all difficulties.
  tiny-<stage>       seconds: what the tests run; from a fresh decoder where no start is given.

gsm8k-smollm2/<stage> is the same curriculum for SmolLM2 on GSM8K by adapters, for a GPU: sft1, sft2, dpo-nca,
dpo-second, average, grpo. tiny-gsm8k takes its way with stories260k.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import curriculum, dpo, grpo, sft, training

DPO = {"pool": "deep", "filter.candidates": 400, "filter.kept": 400}
# Stage, settings of its trainer, and dotted fields.
STAGES = {
    "sft1": ("sft", sft.default_config, {"num_steps": 1000, "packing": 64, "agent.learning_rate": 2e-3}),
    "sft1-continued": ("sft", sft.default_config, {"packing": 64}),
    "sft2": ("sft", sft.default_config, {"pool": "deep", "filter.kind": "hardest", "filter.kept": 500}),
    "sft2-unfiltered": ("sft", sft.default_config, {"pool": "deep", "filter.kept": 500}),
    "dpo-nca": ("dpo", dpo.default_config, {**DPO, "agent.loss": "nca"}),
    "dpo-sigmoid": ("dpo", dpo.default_config, {**DPO, "agent.loss": "dpo"}),
    "dpo-second": ("dpo", dpo.default_config, {**DPO, "agent.loss": "nca", "agent.beta": 0.5}),
    "average": ("average", training.default_config, {"num_steps": 1}),  # a step that changes nothing is saved
    "grpo": ("grpo", grpo.default_config, {"pool": "mixed", "filter.kind": "band", "filter.kept": 128}),
    "grpo-unfiltered": ("grpo", grpo.default_config, {"pool": "mixed", "filter.kept": 128, "num_steps": 20}),
}
OF_STAGE = {
    "sft": {"batch_size": 64, "num_steps": 300, "agent.learning_rate": 1e-3, "agent.weight_decay": 0.1,
            "agent.warmup_steps": 20, "agent.decay": True},
    "dpo": {"batch_size": 32, "num_steps": 60, "agent.learning_rate": 5e-5, "agent.beta": 1.0,
            "loop.eval_at_start": True, "loop.chunk": 30, "loop.eval_every": 30},
    "average": {},
    "grpo": {"batch_size": 128, "num_steps": 100, "agent.learning_rate": 1e-5, "agent.kl_coefficient": 0.001,
             "agent.samples": 8, "agent.max_new_tokens": 42, "loop.eval_every": 20, "loop.chunk": 1},
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(on_chains, "sft1")}
    presets |= {name: functools.partial(on_chains, name) for name in STAGES}
    presets |= {"tiny": lambda: tiny(on_chains("sft1"))}
    presets |= {f"tiny-{name}": lambda name=name: tiny(on_chains(name)) for name in STAGES}
    presets |= {f"gsm8k-smollm2/{name}": functools.partial(on_text, name) for name in STAGES}
    presets |= {"gsm8k-smollm2": lambda: on_text("sft1")}
    presets |= {f"tiny-gsm8k-{name}": lambda name=name: tiny_text(on_text(name)) for name in STAGES}
    return from_preset("light_r1", presets, preset)


def stage_of(name: str) -> ConfigDict:
    stage, trainer, fields = STAGES[name]
    config = core_config()
    config.stage, config.domain = stage, "chains"  # or "texts"
    config.start = ""  # a finished run of the stage before; "" for a fresh decoder, or the pretrained model
    config.average = {"first": "", "second": "", "third": ""}  # runs
    config.pool = "broad"  # or "deep" or "mixed": what is trained on
    config.filter = {
        "kind": "none",  # or "hardest", or "band"
        "candidates": 600,  # problems of the pool whose pass rate is measured
        "samples": 4,  # of each
        "kept": 0,  # problems, or pairs; 0 for all
        "low": 0.2, "high": 0.625,  # pass rates of the band
        "seed": 17,
    }
    config.judge = {
        "samples": 4, "temperature": 0.6, "seed": 23,
        "max_new_tokens": 42, "at_once": 128,  # problems that are sampled together
    }
    config.reward = {"length_weight": 0.0}  # of what a response is too long, beside 1 for a right one
    config.recent = 20  # updates of grpo whose rewards an evaluation reports
    config.packing = 0  # tokens of a row that holds several texts; 0 for a row a text
    config.overlap = 0  # batches of grpo that are scored ahead
    config.curriculum = curriculum.default_config()  # of grpo, beside the filter before it
    config.agent = trainer()
    config.tensorboard = False
    config.num_seeds = 3
    config.loop.update({"chunk": 25, "log_every": 50, "eval_every": 0})
    config.checkpoint.every = 500
    config.update_from_flattened_dict({**OF_STAGE[stage], **fields})
    if stage == "grpo":
        config.loop.log_every, config.checkpoint.every = 10, 20
        config.filter.samples = 8
    return config


def on_chains(name: str) -> ConfigDict:
    config = stage_of(name)
    config.decoder = {
        "width": 64, "num_layers": 3, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 128,
        "context_length": 64,
    }
    config.data = {
        "size": 16_000,  # problems of the broad pool
        "pool": 1000,  # and of the two others
        "judged": 128,  # of either split, never trained on
        "broad": (1, 5), "deep": (4, 7), "mixed": (1, 8), "hard": (6, 7),  # steps
    }
    return config


def on_text(name: str) -> ConfigDict:
    config = stage_of(name)
    config.domain, config.num_seeds = "texts", 1
    config.model = {"name": "smollm2"}
    config.data = {
        "name": "gsm8k", "longest": 512, "held_out": 0.2, "judged": 240,
        "broad": (1, 4), "deep": (3, 8), "mixed": (1, 8), "hard": (4, 8),  # lines of a solution
    }
    config.judge.update({"max_new_tokens": 256, "at_once": 32})
    config.packing = 0
    config.agent.update({"lora_rank": 16 if config.stage != "average" else 0, "remat": True, "dtype": "bfloat16"})
    config.agent.learning_rate = 2e-4 if config.stage == "sft" else 2e-5
    config.agent.weight_decay = 0.0
    config.loop.seed_axis = "map"
    if config.stage == "grpo":
        config.agent.max_new_tokens = 256
    if config.stage == "dpo":
        config.agent.beta = 0.1
    return config


def tiny_text(config: ConfigDict) -> ConfigDict:
    fields = {
        "model.name": "stories260k", "num_steps": min(2, config.num_steps), "batch_size": 8, "data.longest": 288,
        "data.hard": (2, 8), "judge.max_new_tokens": 16, "judge.samples": 2, "judge.at_once": 8,
        "filter.candidates": 8, "filter.samples": 2, "filter.low": 0.0, "filter.kept": 8,
        "agent.warmup_steps": 1, "agent.dtype": "float32",
        "loop.chunk": 1, "loop.log_every": 1, "loop.eval_every": 2, "checkpoint.every": 0,
    }
    config.update_from_flattened_dict(fields)
    if config.stage == "grpo":
        config.agent.samples, config.agent.max_new_tokens = 4, 16
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    fields = {
        "num_seeds": 2, "num_steps": min(8, config.num_steps), "batch_size": 8, "data.size": 64, "data.pool": 32,
        "data.judged": 16, "data.broad": (1, 2), "data.deep": (2, 3), "data.mixed": (1, 3), "data.hard": (3, 3),
        "decoder.width": 16, "decoder.num_layers": 1, "decoder.num_heads": 2, "decoder.num_kv_heads": 2,
        "decoder.head_dim": 8, "decoder.hidden_width": 16, "decoder.context_length": 40, "judge.max_new_tokens": 18,
        "judge.samples": 2, "judge.at_once": 16, "filter.candidates": 16, "filter.samples": 2, "filter.low": 0.0,
        "filter.kept": 16 if config.filter.kept else 0, "packing": min(config.packing, 40), "agent.warmup_steps": 2,
        "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 4, "checkpoint.every": 4,
    }
    config.update_from_flattened_dict(fields)
    config.recent = 4
    if config.stage == "grpo":
        config.agent.samples, config.agent.max_new_tokens = 4, 18
    return config
