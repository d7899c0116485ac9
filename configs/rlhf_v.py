"""RLHF-V: preferences from corrections of the wrong segments alone, and dense DPO.

    python -m experiments.rlhf_v.train --config=configs/rlhf_v.py:PRESET --workdir=DIR

Presets, for scenes that are described without pixels (5 seeds, seconds to a minute on a CPU core each); all but the
first start from --config.start=DIR, a finished run of it, seed by seed:
  quick, sft         supervised learning of a demonstrator that hallucinates 3 of 10 values.
  ranking            DPO on two of the model's own descriptions, the one of fewer errors over the other.
  correction         DPO on one of them, with its wrong values corrected over as it was: gamma 1.
  ddpo               dense DPO on the same pairs: what was corrected weighs gamma = 5 times as much, beta is 0.5.
  ddpo-released      as the authors' script has it: gamma 1.1, beta 0.1, sums that are not normalised, matches of less
                     than 3 tokens changed, insertions and deletions not.
  ddpo-nll, ranking-nll   beside the likelihood of the chosen, weight 0.1.
  wide/<preset>      the same of a wider model that is trained for longer, with batches of 64 pairs, a rate of 3e-5 and
                     a beta of 8: of a mean over 17 tokens, it is what 0.5 is of their sum.
  tiny-<arm>         seconds: what the tests run; from a fresh decoder where no start is given.

gsm8k/<arm>, without rankings and sft, corrects one number of a worked solution of GSM8K, for stories260k;
--config.model.name=RUN starts from a run of experiments.sft on gsm8k, as it should; start is not used. smollm2/<arm>
is the same for SmolLM2 by adapters, for a GPU; --config.model.name=FOLDER takes another model.
--config.pairs.kept is n, the pairs; --config.pairs.gamma and --config.agent.beta are the paper's.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import dpo, sft
from rl_jax.language.own_answers import judge_config
from rl_jax.language.presets import language_config

NLL = {"agent.likelihood_weight": 0.1}
RANKING = {"pairs.kind": "rankings", "pairs.gamma": 1.0}
RELEASED = {
    "pairs.gamma": 1.1, "pairs.normalised": False, "pairs.shortest": 3, "pairs.one_sided": False, "agent.beta": 0.1,
}
ARMS = {
    "ranking": RANKING, "correction": {"pairs.gamma": 1.0}, "ddpo": {}, "ddpo-released": RELEASED, "ddpo-nll": NLL,
    "ranking-nll": RANKING | NLL,
}
OF_TEXTS = tuple(name for name in ARMS if not name.startswith("ranking"))
TINY_ARMS = ("sft", "ranking", "ddpo")


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {name: functools.partial(on_scenes, name) for name in ("sft", *ARMS)}
    presets |= {f"wide/{name}": lambda name=name: wide(on_scenes(name)) for name in ("sft", *ARMS)}
    presets |= {"quick": presets["sft"], "tiny": lambda: tiny(on_scenes("sft"))}
    presets |= {f"tiny-{name}": lambda name=name: tiny(on_scenes(name)) for name in ("sft", *ARMS)}
    presets |= {f"gsm8k/{name}": functools.partial(on_text, name, "stories260k") for name in OF_TEXTS}
    presets |= {f"smollm2/{name}": functools.partial(on_text, name, "smollm2") for name in OF_TEXTS}
    presets |= {f"tiny-gsm8k-{name}": lambda name=name: tiny(on_text(name, "stories260k")) for name in OF_TEXTS}
    return from_preset("rlhf_v", presets, preset)


def on_scenes(name: str) -> ConfigDict:
    config = core_config()
    config.stage, config.domain = "preferences", "scenes"  # or "texts"
    config.start = ""  # a finished run of supervised learning; "" for a fresh decoder
    config.decoder = {
        "width": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 12, "hidden_width": 96,
        "context_length": 26,
    }
    config.data = {
        "size": 16_000,  # described scenes of supervised learning
        "noise": 0.3,  # share of their values that are wrong
        "judged": 1000,  # fresh scenes
        "seed": 0,  # of the descriptions, which all seeds of a run learn
    }
    config.judge = judge_config(max_new_tokens=18)  # a description has 17 tokens
    config.judge.samples, config.judge.at_once = 1, 1000
    config.tensorboard = False
    config.num_seeds = 5
    if name == "sft":
        config.stage, config.agent = "sft", sft.default_config()
        config.batch_size, config.num_steps = 32, 2000
        config.agent.learning_rate, config.agent.warmup_steps, config.agent.decay = 4e-3, 50, True
        config.loop.update({"chunk": 200, "log_every": 200, "eval_every": 0})
        config.checkpoint.every = 0
        return config
    with_pairs(config, name)
    config.batch_size, config.num_steps = 16, 400
    config.agent.learning_rate = 1e-4
    config.loop.update({"chunk": 50, "log_every": 50, "eval_every": 50, "eval_at_start": True})
    config.checkpoint.every = 200
    return config


def wide(config: ConfigDict) -> ConfigDict:
    """A wider model that learns descriptions for longer, and then from larger batches at a lower rate and higher beta.
    """
    config.decoder.update({"width": 64, "head_dim": 16, "hidden_width": 128})
    if config.stage == "sft":
        config.num_steps, config.agent.learning_rate = 4000, 2e-3
    else:
        config.batch_size, config.agent.learning_rate, config.agent.beta = 64, 3e-5, 8.0
    return config


def with_pairs(config: ConfigDict, name: str) -> None:
    """With what is compared, and how much what was corrected weighs."""
    config.agent = dpo.default_config()
    config.agent.score, config.agent.beta = "weighted", 0.5
    config.pairs = {
        "kind": "corrections",  # or "rankings"
        "kept": 200,  # n
        "judged": 256,  # pairs of either kind to judge by
        "seed": 31,
        "gamma": 5.0,  # how much a token that was corrected weighs; 1 is plain DPO
        "normalised": True,  # whether a score is divided by the sum of its weights
        "shortest": 1, "one_sided": True,  # as language.spans.changes has them
    }
    config.update_from_flattened_dict(ARMS[name])


def on_text(name: str, model: str) -> ConfigDict:
    config = language_config(model, "gsm8k", dpo.default_config())
    config.stage, config.domain, config.start = "preferences", "texts", ""
    with_pairs(config, name)
    config.pairs.kept, config.pairs.judged = 0, 0  # all that are short enough
    config.pairs.most = 4  # numbers of a solution, each corrupted in a pair of its own; 0 for all
    config.agent.learning_rate, config.agent.decay, config.agent.warmup_steps = 3e-5, False, 0
    config.tensorboard = False
    if model == "stories260k":
        config.num_seeds, config.batch_size, config.num_steps = 3, 8, 60
        config.data.longest = 224
        config.loop.update({"chunk": 15, "log_every": 15, "eval_every": 30})
        config.checkpoint.every = 30
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    fields = {
        "num_seeds": 2, "num_steps": 8, "batch_size": 8, "agent.learning_rate": 1e-3, "agent.warmup_steps": 0,
        "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 4, "checkpoint.every": 4,
    }
    if config.domain == "scenes":
        fields |= {
            "data.size": 64, "data.judged": 16, "decoder.width": 16, "decoder.num_layers": 1, "decoder.num_heads": 2,
            "decoder.num_kv_heads": 2, "decoder.head_dim": 8, "decoder.hidden_width": 16, "judge.at_once": 16,
        }
    else:
        fields |= {"num_steps": 2, "data.longest": 208, "pairs.most": 1, "loop.chunk": 1, "loop.eval_every": 2}
    if config.stage == "preferences":
        fields |= {"pairs.kept": 16, "pairs.judged": 16}
    config.update_from_flattened_dict(fields)
    return config
