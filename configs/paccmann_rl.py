"""PaccMann^RL: molecules for a target's profile, by a generator, a profile autoencoder, predictors and REINFORCE.

    python -m experiments.paccmann_rl.train --config=configs/paccmann_rl.py:PRESET --workdir=DIR

Presets on ChEMBL's activities with ligand profiles, which stand in for cell lines (all need the extra `science`):
  generator           the molecules' autoencoder on 29,000 drug-like molecules.
  profile             the denoising autoencoder of profiles.
  predictor, judge    two predictors of ln IC50, from different molecules; toxicity: Tox21.
  quick, ours         REINFORCE with a leave-one-out baseline and masks, 3 seeds; config.models names the runs above.
  moving_average      the same with a moving average as baseline.
  official            as the authors' code: no baseline, no mask, temperature 0.7 in sampling alone, invalid dropped.
  balanced            ours with a reward for drug-likeness and accessibility too.
  paper/<stage>       the authors' networks on GDSC and CCLE, --config.activities.path=DIR; and so paper/ours, of their
                      lengths and rates.
  tiny, tiny-<stage>  seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.generative import molecule_recipes as recipes

ARMS = {
    "ours": {}, "moving_average": {"policy.baseline": "moving_average"},
    "official": recipes.OFFICIAL | {"policy.temperature": 0.7},
    "balanced": {"reward.drug_likeness": 0.5, "reward.accessibility": 0.5},
}
STAGES = {  # task, then dotted fields
    "generator": ("generator", recipes.GENERATOR), "profile": ("profile", recipes.PROFILES),
    "predictor": ("predictor", recipes.PREDICTOR), "judge": ("predictor", recipes.JUDGE),
    "toxicity": ("toxicity", recipes.TOXICITY),
}
# Authors' code: paccmann_chemistry, paccmann_omics, paccmann_predictor, paccmann_generator.
PAPER = recipes.PAPER | {
    "activities.name": "gdsc", "profiles.features": (1024, 512, 256, 200), "predictor.features": (1024, 512),
    "reward.midpoint": 0.0, "judging.molecules": 1000, "num_seeds": 3,
}
PAPER_STAGES = {
    "generator": recipes.PAPER_GENERATOR,
    "profile": {"num_steps": 20_000, "batch_size": 64, "pretraining.learning_rate": 3e-3},
    "predictor": {"num_steps": 10_000, "batch_size": 2048}, "judge": {"num_steps": 10_000, "batch_size": 2048},
    "policy": {"num_steps": 120, "batch_size": 256},
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {name: functools.partial(stage, name) for name in STAGES}
    presets |= {name: functools.partial(policy, name) for name in ARMS} | {"quick": lambda: policy("ours")}
    presets |= {f"tiny-{name}": lambda make=make: tiny(make()) for name, make in presets.items()}
    presets |= {"tiny": presets["tiny-ours"], "tiny-attention": lambda: tiny(stage("predictor"), True)}
    presets |= {f"paper/{name}": functools.partial(paper, name) for name in (*PAPER_STAGES, *ARMS) if name != "policy"}
    return from_preset("paccmann_rl", presets, preset)


def stage(name: str) -> ConfigDict:
    config = recipes.stage_config(*STAGES[name])
    config.checkpoint.every = 1000
    return config


def policy(arm: str) -> ConfigDict:
    config = recipes.policy_config({"num_seeds": 3, "num_steps": 300, "reward.midpoint": -2.0, **ARMS[arm]})
    config.checkpoint.every = 50
    return config


def paper(name: str) -> ConfigDict:
    known = name in ARMS
    config = policy(name) if known else stage(name)
    fields = PAPER | PAPER_STAGES["policy" if known else name]
    if known:
        fields |= {"policy.max_grad_norm": 0.1, "policy.learning_rate": 3e-4}
    config.update_from_flattened_dict(fields)
    return config


def tiny(config: ConfigDict, attention: bool = False) -> ConfigDict:
    config = recipes.tiny(config)
    config.activities.judged_targets = 2
    if attention:
        config.predictor.form = "attention"
    return config
