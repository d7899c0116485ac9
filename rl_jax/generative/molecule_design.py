"""Molecules designed for a target: a decoder starts from the target's profile and is rewarded by what predictors say.

Born et al. 2021, iScience 24:102269 (PaccMann^RL: cell lines, sensitivity) and MLST 2:025024 (on SARS-CoV-2: proteins,
affinity and toxicity). Each step writes a batch for some training targets; the host turns tokens into molecules, and
the step rewards them by frozen predictors (`molecule_rewards`) and makes an update. All is judged on targets that
nothing was trained on (`molecule_judging`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, PyTree, TrainState, scored
from rl_jax.generative import molecule_policy
from rl_jax.generative.molecule_judging import evaluation, finish
from rl_jax.generative.molecule_policy import Written, reinforce, sample
from rl_jax.generative.molecule_rewards import Design, effect_reward, judges_of, load_design, read_all
from rl_jax.generative.molecule_stages import STAGES, shape_of, stage_experiment


def default_config() -> ConfigDict:
    """The fields of a policy: `policy` is the trainer's, `reward` and `judging` are described here."""
    return ConfigDict(
        {
            "policy": molecule_policy.default_config(),
            "targets_per_batch": 8,  # authors 1; a batch has batch_size molecules, as many of each
            "reward": {
                "effect": "sensitivity",  # or "binding"
                "threshold": 0.0,  # ln micromol per litre; a prediction above it is set to `inactive`
                "inactive": 10.0,
                "midpoint": 0.0,  # where sensitivity's reward is one half
                "toxicity": 0.0,  # weight of "no assay of Tox21 above one half"; authors 0.5 with binding
                "drug_likeness": 0.0, "accessibility": 0.0, "solubility": 0.0, "alerts": 0.0,  # weights
            },
            "judging": {
                "molecules": 200,  # of each held-out target; authors 1000 and 200
                "target": "",  # judged alone; "" for all that are held out
                "family": "",  # regex of proteins' names: they alone are left out of training, not all held out
                "potent": -2.302585,  # a known ligand counts as active up to this value
            },
        }
    )


def molecule_experiment(config: ConfigDict, headline: Metric) -> Experiment:
    """A stage of `config.task`, or "policy", which has that headline.

    Raises:
      ValueError, FileNotFoundError or MissingExtraError: a field names what does not exist, or RDKit is not there.
    """
    if config.task in STAGES:
        return stage_experiment(config)
    if config.task != "policy":
        raise ValueError(unknown("config.task", config.task, (*STAGES, "policy")))
    design = load_design(config)
    inputs = {"activities": config.activities.name, "path": config.activities.path, "models": dict(config.models)}
    return Experiment(lambda config: design_program(config, design), inputs, headline, finish(config, design))


def design_program(config: ConfigDict, design: Design) -> Program:
    """REINFORCE on the decoder; see the module."""
    _, shape = shape_of(config)
    training, judges, length = reinforce(config.policy, shape), judges_of(config, design.data), config.molecules.length
    group, trained = config.batch_size // config.targets_per_batch, jnp.asarray(design.trained)

    def init(key: Key, resident: PyTree) -> TrainState:
        del key
        return training.init(resident["start"])

    def step(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        del key
        batch = shard_batch(batch)
        predicted = judges.predict(resident, "predictor", batch["inputs"], batch["targets"])
        effect = effect_reward(predicted, config.reward)
        rewards, valid = effect + batch["terms"], batch["valid"]
        extra = {}
        if config.reward.toxicity:
            harmless = judges.harmless(resident, batch["prints"])
            rewards = rewards + config.reward.toxicity * harmless
            extra = {"reward/harmless": jnp.sum(harmless * valid) / jnp.maximum(jnp.sum(valid), 1.0)}
        written = Written(
            batch["states"], batch["actions"], batch["log_probs"], resident["latents"][batch["targets"]], rewards, valid
        )
        state, metrics = training.update(state, written, group)
        number = jnp.maximum(jnp.sum(valid), 1.0)
        return state, metrics | extra | {
            "reward/effect": jnp.sum(effect * valid) / number, "reward/predicted": jnp.sum(predicted * valid) / number,
        }

    @jax.jit
    def write(model: PyTree, latents: jax.Array, keys: Key) -> tuple[Any, jax.Array]:
        def one(model: PyTree, key: Key) -> tuple[Any, jax.Array]:
            target_key, sample_key = jax.random.split(key)
            chosen = jax.random.choice(target_key, trained, (config.targets_per_batch,), replace=False)
            targets = jnp.repeat(chosen, group)
            return sample(shape, model, latents[targets], length, config.policy.temperature, sample_key), targets

        return over_runs(one, default_seed_axis())(model, keys)

    def draw(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[Any, jax.Array]:
        del step
        return write(state.params["model"], resident["latents"], keys)

    def score(drawn: tuple[Any, np.ndarray]) -> tuple[PyTree, dict[str, float]]:
        trajectory, targets = drawn
        found = [read_all(config, tokens) for tokens in trajectory.final]
        states, actions, log_probs = (np.swapaxes(x, 1, 2) for x in trajectory[:3])
        unique = [len(set(one.smiles) - {""}) / max(sum(map(bool, one.smiles)), 1) for one in found]
        return {
            "states": states, "actions": actions, "log_probs": log_probs, "targets": targets,
            "inputs": np.stack([one.inputs for one in found]), "prints": np.stack([one.prints for one in found]),
            "terms": np.stack([one.terms for one in found]),
            "valid": np.asarray([[float(bool(text)) for text in one.smiles] for one in found], np.float32),
        }, {"reward/unique": float(np.mean(unique))}

    return Program(
        init, step, evaluation(config, design, judges), design.resident, scored(draw, score, config.overlap)
    )
