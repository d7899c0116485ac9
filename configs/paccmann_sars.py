"""PaccMann^RL on SARS-CoV-2: molecules for a protein that reinforcement learning has not seen, by its sequence.

    python -m experiments.paccmann_sars.train --config=configs/paccmann_sars.py:PRESET --workdir=DIR

Presets on ChEMBL's activities with proteins' sequences (all need the extra `science`):
  generator          the molecules' autoencoder on 29,000 drug-like molecules.
  protein            the autoencoder of the sequences' features.
  affinity, judge    two models of binding (below 0.1 micromol), from different molecules, none of ten whole families.
  bimodal-affinity   the first by attention, of a molecule's tokens by the amino acids and of these by the tokens.
  toxicity           the 12 assays of Tox21.
  quick, ours/NAME   REINFORCE on all proteins but those of NAME's family, judged on NAME: one of HELD_OUT.
  official/NAME      as the authors' code: no baseline, no mask, temperature 1.4 in sampling alone, invalid dropped.
  affinity_only/NAME ours without the toxicity term.
  alerts/NAME        ours with RDKit's PAINS and Brenk alerts in the place of Tox21.
  paper/<stage>      the authors' generator on KIBA, --config.activities.path=DIR; and so paper/ours, of their lengths
                     and rates.
  tiny, tiny-<stage> seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.generative import molecule_recipes as recipes

# A protein of ten families, and what finds its family in the names.
HELD_OUT = {
    "factor-x": ("CHEMBL244", "Coagulation|Thrombin|Plasminogen|Urokinase"),
    "mmp13": ("CHEMBL280", "Matrix metalloproteinase"),
    "hdac1": ("CHEMBL325", "Histone deacetylase"),
    "ppar-gamma": ("CHEMBL235", "Peroxisome"),
    "nnos": ("CHEMBL3568", "[Nn]itric.oxide synthase"),
    "mu-opioid": ("CHEMBL233", "opioid|Nociceptin"),
    "pi3k-alpha": ("CHEMBL4005", "PI3-kinase|mTOR"),
    "h3": ("CHEMBL264", "Histamine"),
    "mc4": ("CHEMBL259", "Melanocortin"),
    "a2a": ("CHEMBL251", "Adenosine"),
}
ARMS = {
    "ours": {}, "official": recipes.OFFICIAL | {"policy.temperature": 1.4}, "affinity_only": {"reward.toxicity": 0.0},
    "alerts": {"reward.toxicity": 0.0, "reward.alerts": 0.5},
}
STAGES = {  # task, then dotted fields
    "generator": ("generator", recipes.GENERATOR), "protein": ("profile", recipes.PROFILES),
    "affinity": ("predictor", recipes.PREDICTOR), "judge": ("predictor", recipes.JUDGE),
    "toxicity": ("toxicity", recipes.TOXICITY),
}
PROTEINS = {
    "activities.name": "proteins", "activities.families": tuple(pattern for _, pattern in HELD_OUT.values()),
    "predictor.form": "towers", "predictor.labels": "binder", "predictor.features": (128, 128),
    "reward.effect": "binding", "reward.toxicity": 0.5, "judging.molecules": 300,
}
# Authors' code: paccmann_sarscov2 and the parts that it drives; their protein features are a transformer's of 768.
PAPER = recipes.PAPER | {
    "activities.name": "kiba", "activities.families": (), "predictor.binder_at": -12.1, "predictor.form": "bimodal",
    "profiles.features": (512, 256), "judging.potent": -12.1,
}
PAPER_STAGES = {
    "generator": recipes.PAPER_GENERATOR,
    "protein": {"num_steps": 5000, "batch_size": 64, "pretraining.learning_rate": 3e-3},
    "affinity": {"num_steps": 20_000, "batch_size": 512}, "judge": {"num_steps": 20_000, "batch_size": 512},
    "toxicity": {"num_steps": 5000, "batch_size": 256},
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {name: functools.partial(stage, name) for name in STAGES}
    presets |= {f"{arm}/{name}": functools.partial(policy, arm, name) for arm in ARMS for name in HELD_OUT}
    presets |= {"quick": lambda: policy("ours", "factor-x")}
    tiny_ones = {name: functools.partial(stage, name) for name in STAGES}
    tiny_ones |= {arm: functools.partial(policy, arm, "factor-x") for arm in ARMS}
    presets |= {f"tiny-{name}": lambda make=make: tiny(make()) for name, make in tiny_ones.items()}
    presets |= {"tiny": presets["tiny-ours"], "bimodal-affinity": bimodal_affinity}
    presets |= {f"paper/{name}": functools.partial(paper, name) for name in (*PAPER_STAGES, "ours", "official")}
    return from_preset("paccmann_sars", presets, preset)


def stage(name: str) -> ConfigDict:
    task, fields = STAGES[name]
    config = recipes.stage_config(task, PROTEINS | fields)
    config.checkpoint.every = 500
    return config


def bimodal_affinity() -> ConfigDict:
    config = stage("affinity")
    config.update_from_flattened_dict({"predictor.form": "bimodal", "predictor.features": (20,)})
    return config


def policy(arm: str, name: str) -> ConfigDict:
    target, family = HELD_OUT[name]
    config = recipes.policy_config(
        PROTEINS | {"num_steps": 200, "judging.target": target, "judging.family": family} | ARMS[arm]
    )
    config.checkpoint.every = 100
    return config


def paper(name: str) -> ConfigDict:
    if name in PAPER_STAGES:
        config, fields = stage(name), PAPER_STAGES[name]
    else:
        config = policy(name, "factor-x")
        fields = {"num_steps": 40, "policy.learning_rate": 5e-6, "policy.weight_decay": 1e-4,
                  "policy.max_grad_norm": 0.1, "judging.target": "", "judging.family": "", "judging.molecules": 200}
    config.update_from_flattened_dict(PAPER | fields)
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config = recipes.tiny(config)
    config.activities.families = ("Carbonic", "Cyclooxygenase")
    if config.task == "policy":
        config.judging.target, config.judging.family = "CHEMBL2885", "Carbonic"
    return config
