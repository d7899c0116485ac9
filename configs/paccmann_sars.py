"""PaccMann^RL on SARS-CoV-2: molecules for a protein that reinforcement learning has not seen, by its sequence.

    python -m experiments.paccmann_sars.train --config=configs/paccmann_sars.py:PRESET --workdir=DIR

Presets on ChEMBL's activities with proteins' sequences (all need the extra `science`):
  generator          the molecules' autoencoder on 29,000 drug-like molecules.
  protein            the autoencoder of the sequences' features.
  affinity, judge    two models of binding (below 0.1 micromol), from different molecules, none of ten whole families.
  toxicity           the 12 assays of Tox21.
  quick, ours/NAME   REINFORCE on all proteins but those of NAME's family, judged on NAME: one of HELD_OUT.
  official/NAME      as the authors' code: no baseline, no mask, temperature 1.4 in sampling alone, invalid dropped.
  affinity_only/NAME ours without the toxicity term.
  alerts/NAME        ours with RDKit's PAINS and Brenk alerts in the place of Tox21.
  paper/<stage>      the authors' sizes on KIBA, --config.activities.path=DIR; and so paper/ours.
  tiny, tiny-<stage> seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.generative import molecule_design, molecule_stages

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
OFFICIAL = {
    "policy.baseline": "none", "policy.mask_after_stop": False, "policy.match_temperature": False,
    "policy.temperature": 1.4, "policy.drop_invalid": True, "targets_per_batch": 1,
}
ARMS = {
    "ours": {}, "official": OFFICIAL, "affinity_only": {"reward.toxicity": 0.0},
    "alerts": {"reward.toxicity": 0.0, "reward.alerts": 0.5},
}
STAGES = {  # task, then dotted fields
    "generator": ("generator", {"num_steps": 4000, "batch_size": 64, "pretraining.learning_rate": 2e-3}),
    "protein": ("profile", {"num_steps": 1500, "batch_size": 64}),
    "affinity": ("predictor", {"num_steps": 2000, "batch_size": 256, "predictor.role": "predictor"}),
    "judge": ("predictor", {"num_steps": 2000, "batch_size": 256, "predictor.role": "judge", "seed": 1}),
    "toxicity": ("toxicity", {"num_steps": 1000, "batch_size": 256}),
}
# Authors' code: paccmann_sarscov2 and the parts that it drives; their protein features are a transformer's of 768.
PAPER = {
    "activities.name": "kiba", "activities.families": (), "predictor.binder_at": -12.1, "molecules.length": 100,
    "generator.width": 512, "generator.num_layers": 2, "generator.latent": 256, "generator.stack_depth": 50,
    "generator.every_step": False, "generator.dropout": 0.2, "generator.kl_max": 1.0, "profiles.features": (512, 256),
    "profiles.latent": 128, "predictor.form": "attention", "judging.potent": -12.1,
}
PAPER_STAGES = {
    "generator": {"num_steps": 6000, "batch_size": 256, "pretraining.learning_rate": 5e-4},
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
    presets |= {"tiny": presets["tiny-ours"]}
    presets |= {f"paper/{name}": functools.partial(paper, name) for name in (*PAPER_STAGES, "ours", "official")}
    return from_preset("paccmann_sars", presets, preset)


def base(fields: dict) -> ConfigDict:
    config = core_config()
    config.update(molecule_stages.default_config())
    config.update(molecule_design.default_config())
    config.overlap, config.tensorboard, config.batch_size, config.side_by_side = 0, False, 128, ()
    config.update_from_flattened_dict({
        "activities.name": "proteins", "activities.families": tuple(pattern for _, pattern in HELD_OUT.values()),
        "predictor.form": "towers", "predictor.labels": "binder", "predictor.features": (128, 128),
        "reward.effect": "binding", "reward.toxicity": 0.5, "judging.molecules": 300, **fields,
    })
    return config


def stage(name: str) -> ConfigDict:
    task, fields = STAGES[name]
    config = base({"task": task, **fields})
    config.loop.update({"chunk": 50, "log_every": 100, "eval_every": 0})
    config.checkpoint.every = 500
    return config


def policy(arm: str, name: str) -> ConfigDict:
    target, family = HELD_OUT[name]
    config = base({
        "num_steps": 200, "policy.learning_rate": 1e-3, "policy.max_grad_norm": 1.0, "judging.target": target,
        "judging.family": family, **ARMS[arm],
    })
    config.loop.update({"chunk": 1, "log_every": 10, "eval_every": 0, "eval_at_start": True})
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
    config.update_from_flattened_dict({
        "num_seeds": 2 if config.task == "policy" else 1, "num_steps": 4, "batch_size": 8, "targets_per_batch": min(
            config.targets_per_batch, 2), "activities.molecules": 64, "molecules.length": 20, "generator.width": 16,
        "generator.latent": 8, "profiles.features": (16,), "profiles.latent": 4, "predictor.features": (16,),
        "judging.molecules": 8, "loop.chunk": 1, "loop.log_every": 2, "checkpoint.every": 2,
        "activities.targets": 6, "activities.families": ("Carbonic", "Cyclooxygenase"), "molecules.min_atoms": 1,
    })
    if config.task == "policy":
        config.judging.target, config.judging.family = "CHEMBL2885", "Carbonic"
    return config
