"""Configurations of runs that learn from rewards of their own answers: a calculator's, and language models' on text."""

from ml_collections import ConfigDict

from rl_jax.core.config import core_config
from rl_jax.language import curriculum, grpo, sft
from rl_jax.language.experiments import data_config

GPU = {
    "agent.remat": True, "agent.dtype": "bfloat16",
    "loop.seed_axis": "map",  # one run fills it; its attention kernels do not map over seeds
}
# By model, dotted fields. Rates and lengths of Qwen 2.5 are those of verl's runs on GSM8K, whose batches are four times
# as large: our part of the set has fewer than a thousand questions.
MODELS = {
    "stories260k": {
        "model.name": "stories260k", "batch_size": 32, "data.longest": 256, "agent.max_new_tokens": 64,
        "agent.learning_rate": 1e-4,
    },
    "smollm2": GPU | {
        "model.name": "smollm2", "batch_size": 256, "data.longest": 512, "agent.max_new_tokens": 256,
        "agent.learning_rate": 2e-5, "agent.lora_rank": 16, "agent.micro_batches": 8,
    },
    "qwen2.5-0.5b": GPU | {
        "model.name": "", "batch_size": 256, "data.longest": 512, "agent.max_new_tokens": 256,
        "agent.learning_rate": 1e-6, "agent.updates_per_epoch": 4, "agent.micro_batches": 8,
    },
    "llama-3-8b": GPU | {
        "model.name": "", "batch_size": 256, "data.longest": 512, "agent.max_new_tokens": 512,
        "agent.learning_rate": 3e-6, "agent.lora_rank": 32, "agent.lora_alpha": 32.0, "agent.micro_batches": 64,
        "sharding_rules": ((".*", "fsdp"),), "resident_rules": ((".*", "fsdp"),),
    },
}


def text_config(model: str, data: str, method: str) -> ConfigDict:
    """A method on a set of text; a model without a name is one of the user's, --config.model.name=FOLDER."""
    config = rewarded(core_config(), method)
    config.task = "text"
    config.update(data_config())
    config.data.name = data
    config.reward.name = "numeric"
    config.reward.model = ""  # the folder of a run of experiments.reward_model, which judges in the place of the above
    config.num_steps = 200
    config.loop.update({"chunk": 1, "log_every": 1, "eval_every": 20, "eval_at_start": True})
    config.checkpoint.every = 20
    if "critic_learning_rate" in config.agent:
        config.agent.critic_learning_rate = 10 * MODELS[model]["agent.learning_rate"]
    config.update_from_flattened_dict(MODELS[model])
    return config


def arithmetic_config(method: str) -> ConfigDict:
    """The small calculator by a method, from its supervised start."""
    config = rewarded(calculator(), method)
    config.task = "arithmetic"
    config.start = ""  # a model.npz of preset `pretrain`; "" for the committed one
    config.batch_size = 256  # answers
    config.agent.update({
        "max_new_tokens": 5, "learning_rate": 3e-4, "warmup_steps": 20, "updates_per_epoch": 2,
    })
    config.num_seeds = 3
    config.num_steps = 400
    config.loop.update({"chunk": 1, "log_every": 25, "eval_every": 50, "eval_at_start": True})
    config.checkpoint.every = 200
    return config


def pretrain_config() -> ConfigDict:
    """The committed start: supervised learning that ends before the decoder calculates well."""
    config = calculator()
    config.task = "pretrain"
    config.agent = sft.default_config()
    config.decoder_seed = 0
    config.batch_size = 128
    config.agent.learning_rate = 3e-3
    config.agent.warmup_steps = 50
    config.num_steps = 1000
    config.loop.update({"chunk": 100, "log_every": 100, "eval_every": 500})
    return config


def calculator() -> ConfigDict:
    config = core_config()
    config.decoder = {
        "width": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 12, "hidden_width": 96,
        "context_length": 16,
    }
    config.data = {
        "largest": 99,  # number of a question
        "operators": "+-",  # of + - *
        "judged": 256,  # questions that are judged and never trained on
    }
    config.tensorboard = False
    return config


def rewarded(config: ConfigDict, method: str) -> ConfigDict:
    """With what all learning from rewards has."""
    config.agent = grpo.default_config(method)
    config.reward = {
        "name": "arithmetic",
        "workers": 0,  # processes that score; 0 scores in this one
        "deadline": 5.0,  # seconds of an answer there
    }
    config.overlap = 0  # batches that are scored ahead
    config.curriculum = curriculum.default_config()
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """Seconds: a few short answers."""
    config.num_seeds, config.num_steps, config.batch_size = 2, 8, 8
    config.data.largest, config.data.judged = 19, 16
    config.agent.warmup_steps = 2
    config.loop.update({"chunk": 2, "log_every": 2, "eval_every": 4})
    config.checkpoint.every = 4
    if config.task == "arithmetic":
        config.agent.samples, config.agent.updates_per_epoch = min(config.agent.samples, 4), 1
    return config
