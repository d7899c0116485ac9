"""SWE-RL: reinforcement learning from how like the developers' own patch a patch is.

    python -m experiments.swe_rl.train --config=configs/swe_rl.py:PRESET --workdir=DIR

Presets:
  quick        the edit policy, by GRPO from the similarity, 3 seeds, 200 updates; also called "similarity".
  exact        the same from 1 for the true patch and 0 for another one.
  sft          the control: as many updates of supervised learning of the start's own responses.
  pretrain     the committed start: supervised learning of random edits of random lines.
  smollm2      the full text, by adapters of SmolLM2-135M, for an accelerator; --config.model.name names another model.
  qwen         the same at the scale of Qwen2.5-Coder-7B, which --config.model.name=FOLDER names.
  stories260k  that of smollm2 from a model that any machine has, which shows that it runs and no more.
  tiny         seconds: what the tests run, and so tiny-exact, tiny-sft, tiny-pretrain and tiny-text (stories260k).
"""

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import curriculum, grpo, sft
from rl_jax.language.decoder import SHARDING_RULES


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {
        "quick": learning, "similarity": learning, "exact": exact, "sft": control, "pretrain": pretrain,
        "smollm2": lambda: text("smollm2"), "qwen": qwen, "stories260k": stories,
    }
    presets |= {f"tiny-{name}": lambda name=name: tiny(presets[name]()) for name in ("exact", "sft", "pretrain")}
    presets |= {"tiny": lambda: tiny(learning()), "tiny-text": tiny_text}
    return from_preset("swe_rl", presets, preset)


def base(task: str, agent: ConfigDict) -> ConfigDict:
    config = core_config()
    config.task = task  # of experiment.TASKS
    config.agent = agent
    config.judge = {
        "samples": 4,  # responses to each question that is judged
        "batch_size": 100,  # questions whose responses are sampled at a time
        "execute": False,  # whether QuixBugs' repaired programs are run on their test cases
    }
    config.reward = {
        "exact": False,  # 1 for the true patch and 0 for another one, in place of the similarity
        "longest": 20_000,  # characters of a diff that is still compared
        "workers": 0,  # processes that score; 0 scores in this one
        "deadline": 5.0,  # seconds of a response there
    }
    config.overlap = 0  # batches that are scored ahead
    config.curriculum = curriculum.default_config()
    config.tensorboard = False
    return config


def small(task: str, agent: ConfigDict) -> ConfigDict:
    config = base(task, agent)
    config.decoder = {
        "width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "hidden_width": 128,
        "context_length": 72,
    }
    config.start = ""  # a model.npz of preset `pretrain`; "" for the committed one
    config.data = {"longest": 64}  # tokens of a function; longer ones are left out
    config.batch_size = 192  # responses
    config.num_seeds = 3
    config.num_steps = 200
    config.loop.update({"chunk": 1, "log_every": 10, "eval_every": 50, "eval_at_start": True})
    config.checkpoint.every = 50
    config.agent.learning_rate = 1e-3
    config.agent.warmup_steps = 10
    config.agent.chunk = 72
    return config


def learning() -> ConfigDict:
    config = small("edits", grpo.default_config("grpo"))
    config.agent.update({"samples": 8, "max_new_tokens": 5, "kl_coefficient": 0.05})
    return config


def exact() -> ConfigDict:
    config = learning()
    config.reward.exact = True
    return config


def control() -> ConfigDict:
    return small("sft", sft.default_config())


def pretrain() -> ConfigDict:
    config = small("pretrain", sft.default_config())
    config.decoder_seed = 0
    config.num_seeds, config.num_steps, config.seed = 1, 400, 100
    config.agent.learning_rate = 3e-3
    config.agent.warmup_steps = 20
    config.loop.update({"chunk": 20, "log_every": 20, "eval_every": 100})
    return config


def text(model: str) -> ConfigDict:
    """The full contract as text, by adapters, for an accelerator."""
    config = base("text", grpo.default_config("grpo"))
    config.model = {"name": model}
    config.data = {
        "name": "",  # a .jsonl of issues with their files and patches; "" for the committed functions
        "longest": 1024,  # tokens of a prompt; longer ones are left out
        "held_out": 0.1,  # share of the issues that is judged
    }
    config.batch_size = 256
    config.num_steps = 500
    config.agent.update({
        "samples": 8, "max_new_tokens": 512, "kl_coefficient": 1e-3, "learning_rate": 1e-4, "warmup_steps": 10,
        "lora_rank": 16, "micro_batches": 16, "remat": True, "dtype": "bfloat16",
    })
    config.judge.samples, config.judge.batch_size = 1, 32
    config.reward.workers, config.overlap = 8, 1
    config.loop.update({"chunk": 1, "log_every": 10, "eval_every": 50, "eval_at_start": True, "seed_axis": "map"})
    config.checkpoint.every = 50
    return config


def stories() -> ConfigDict:
    config = text("stories260k")
    config.data.longest, config.agent.max_new_tokens, config.reward.workers = 448, 64, 1
    return config


def qwen() -> ConfigDict:
    """The card's batch, 32 issues with 16 responses each; every parameter is trained, over all devices."""
    config = text("qwen2.5-coder-7b-instruct")
    config.batch_size, config.agent.samples = 512, 16
    config.data.longest, config.agent.max_new_tokens = 8192, 8192
    config.agent.update({"lora_rank": 0, "learning_rate": 1e-6, "micro_batches": 64})
    config.num_steps = 1600
    config.sharding_rules = SHARDING_RULES
    config.resident_rules = tuple((f"model/.*{rule}", how) for rule, how in SHARDING_RULES) + ((".*", "replicate"),)
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size = 2, 8, 8
    config.judge.samples, config.judge.batch_size = 2, 20
    config.agent.warmup_steps = 2
    config.loop.update({"chunk": 2, "log_every": 2, "eval_every": 4})
    config.checkpoint.every = 4
    if "samples" in config.agent:
        config.agent.samples = 4
    return config


def tiny_text() -> ConfigDict:
    config = text("stories260k")
    config.agent.update({"max_new_tokens": 16, "lora_rank": 0, "micro_batches": 1, "dtype": "float32", "chunk": 16})
    config.data.longest, config.reward.workers = 380, 0
    return tiny(config)
