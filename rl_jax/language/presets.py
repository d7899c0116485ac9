"""Configurations of runs that train on text, by the model that they start from."""

from ml_collections import ConfigDict

from rl_jax.core.config import core_config
from rl_jax.language.experiments import data_config

# By model, dotted fields: a tiny one is trained whole, a real one by adapters.
MODELS = {
    "stories260k": {"batch_size": 16, "data.longest": 256, "agent.learning_rate": 1e-3},
    "smollm2": {
        "batch_size": 16, "data.longest": 512, "agent.learning_rate": 2e-4, "agent.lora_rank": 16, "agent.remat": True,
        "agent.micro_batches": 4,
    },
}


def language_config(model: str, data: str, agent: ConfigDict) -> ConfigDict:
    """A trainer's configuration for a model of `MODELS` on a set of text."""
    config = core_config()
    config.agent = agent
    config.batch_size = 16  # rows of SFT, pairs of the others
    config.update(data_config())
    config.num_steps = 500
    config.loop.chunk, config.loop.log_every, config.loop.eval_every = 25, 25, 100
    config.loop.eval_at_start = True
    config.checkpoint.every = 250
    config.agent.warmup_steps = 20
    config.agent.decay = True
    config.update_from_flattened_dict(MODELS[model] | {"model.name": model, "data.name": data})
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """Seconds: a few short documents, in micro-batches."""
    config.update_from_flattened_dict({
        "num_steps": 6, "batch_size": 8, "data.longest": 192, "data.most": 24, "agent.micro_batches": 2,
        "agent.warmup_steps": 2, "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 3, "checkpoint.every": 3,
    })
    return config
