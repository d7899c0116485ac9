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
  paper/<stage>       the authors' sizes on GDSC and CCLE, --config.activities.path=DIR; and so paper/ours.
  tiny, tiny-<stage>  seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.generative import molecule_design, molecule_stages

OFFICIAL = {
    "policy.baseline": "none", "policy.mask_after_stop": False, "policy.match_temperature": False,
    "policy.temperature": 0.7, "policy.drop_invalid": True, "targets_per_batch": 1,
}
ARMS = {
    "ours": {}, "moving_average": {"policy.baseline": "moving_average"}, "official": OFFICIAL,
    "balanced": {"reward.drug_likeness": 0.5, "reward.accessibility": 0.5},
}
STAGES = {  # task, then dotted fields
    "generator": ("generator", {"num_steps": 4000, "batch_size": 64, "pretraining.learning_rate": 2e-3}),
    "profile": ("profile", {"num_steps": 1500, "batch_size": 64}),
    "predictor": ("predictor", {"num_steps": 2000, "batch_size": 256, "predictor.role": "predictor"}),
    "judge": ("predictor", {"num_steps": 2000, "batch_size": 256, "predictor.role": "judge", "seed": 1}),
    "toxicity": ("toxicity", {"num_steps": 1000, "batch_size": 256}),
}
# Authors' code: paccmann_chemistry, paccmann_omics, paccmann_predictor, paccmann_generator.
PAPER = {
    "activities.name": "gdsc", "molecules.length": 100, "generator.width": 512,
    "generator.num_layers": 2, "generator.latent": 256, "generator.stack_depth": 50, "generator.every_step": False,
    "generator.dropout": 0.2, "generator.kl_max": 1.0, "profiles.features": (1024, 512, 256, 200),
    "profiles.latent": 128, "predictor.form": "attention", "predictor.features": (1024, 512), "reward.midpoint": 0.0,
    "judging.molecules": 1000, "num_seeds": 3,
}
PAPER_STAGES = {
    "generator": {"num_steps": 6000, "batch_size": 256, "pretraining.learning_rate": 5e-4},
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


def base(fields: dict) -> ConfigDict:
    config = core_config()
    config.update(molecule_stages.default_config())
    config.update(molecule_design.default_config())
    config.overlap, config.tensorboard, config.batch_size = 0, False, 128
    config.side_by_side = ()
    config.update_from_flattened_dict(fields)
    return config


def stage(name: str) -> ConfigDict:
    task, fields = STAGES[name]
    config = base({"task": task, **fields})
    config.loop.update({"chunk": 50, "log_every": 100, "eval_every": 0})
    config.checkpoint.every = 1000
    return config


def policy(arm: str) -> ConfigDict:
    config = base({
        "num_seeds": 3, "num_steps": 300, "policy.learning_rate": 1e-3, "policy.max_grad_norm": 1.0,
        "reward.midpoint": -2.0, **ARMS[arm],
    })
    config.loop.update({"chunk": 1, "log_every": 10, "eval_every": 0, "eval_at_start": True})
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
    config.update_from_flattened_dict({
        "num_seeds": 2 if config.task == "policy" else 1, "num_steps": 4, "batch_size": 8, "targets_per_batch": min(
            config.targets_per_batch, 2), "activities.molecules": 64, "molecules.length": 20, "generator.width": 16,
        "generator.latent": 8, "profiles.features": (16,), "profiles.latent": 4, "predictor.features": (16,),
        "judging.molecules": 8, "loop.chunk": 1, "loop.log_every": 2, "checkpoint.every": 2,
        "activities.judged_targets": 2, "activities.targets": 6, "molecules.min_atoms": 1,
    })
    if attention:
        config.predictor.form = "attention"
    return config
