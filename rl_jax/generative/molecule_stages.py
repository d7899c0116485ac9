"""What molecules are designed with, trained one after the other: generator, profile autoencoder, predictors, toxicity.

Born et al. 2021, iScience 24:102269 (PaccMann^RL) and MLST 2:025024 (PaccMann^RL on SARS-CoV-2). Each is a run of its
own that leaves `model.npz`; `load` reads it in the run that needs it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import evaluated
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.generative.molecule_policy import sample
from rl_jax.generative.pretraining import Pretraining, pretraining_program
from rl_jax.networks.model_file import load_model, save_model
from rl_jax.science import activities as sets
from rl_jax.science.activities import Activities
from rl_jax.science.molecule_vae import MoleculeConfig, init_molecule_vae, molecule_loss
from rl_jax.science.molecules import Vocabulary, canonical, read
from rl_jax.science.predictors import (
    FORMS,
    AttentionPredictor,
    BimodalPredictor,
    FingerprintPredictor,
    TowersPredictor,
    masked_cross_entropy,
    squared_error,
)
from rl_jax.science.profiles import ProfileVAE, profile_loss

OF_TOKENS = {"attention": AttentionPredictor, "bimodal": BimodalPredictor}  # predictors that read no fingerprint
HELD_OUT_MOLECULES = 1000  # of the generator's set
JUDGED_ROWS = 4000  # most pairs that a predictor is judged by, of each kind


def default_config() -> ConfigDict:
    """The fields that all stages of a paper share; sizes of the presets on a CPU, the authors' beside."""
    return ConfigDict(
        {
            "task": "policy",  # or "generator", "profile", "predictor", "toxicity"
            "activities": {
                "name": "ligands",  # or "proteins", of ChEMBL; "gdsc", "kiba", "davis" by path
                "path": "",
                "targets": 0,  # of ChEMBL, as many as that with the fewest activities; 0 for all
                "judged_targets": 10,  # of "ligands", held out
                "held_out": 0.2,  # share of the targets of a set by path
                "families": (),  # of proteins: regular expressions of names, all of which are held out
                "molecules": 0,  # most that the generator learns from; 0 for all
            },
            "molecules": {
                "representation": "selfies",  # or "smiles"
                "length": 50,  # tokens; authors 100
                "min_atoms": 5,  # fewer heavy atoms are a failure
            },
            "generator": {
                "width": 128, "num_layers": 1, "embedding": 32, "latent": 64,  # authors 512, 2, vocabulary, 256
                "stack_depth": 0, "stack_width": 50,  # authors 50 and 50; depth 0 for none
                "every_step": True,  # whether the latent is read at every token; authors only at the start
                "dropout": 0.0,  # authors 0.2
                "keep": 0.85,  # share of the decoder's input tokens
                "kl_growth": 0.003, "kl_max": 0.3,  # a step, and at most; authors 1
            },
            "profiles": {
                "features": (256, 128), "latent": 32,  # authors 1024-512-256-200, 128
                "masked": 0.2, "noise": 0.2, "kl_growth": 0.003, "kl_max": 1.0,
            },
            "predictor": {
                "form": "fingerprint",  # or "towers", "attention"; "bimodal" of proteins
                "role": "predictor",  # or "judge", which learns from other molecules
                "labels": "value",  # or "binder", of values up to binder_at
                "binder_at": -2.302585,  # ln of 0.1 micromol per litre
                "features": (256, 128),
                "amino_acids": 1024,  # of a protein that "bimodal" reads; the first ones
            },
            "models": {"generator": "", "profile": "", "predictor": "", "judge": "", "toxicity": ""},  # finished runs
            "pretraining": {
                "optimiser": "adam", "learning_rate": 1e-3, "max_grad_norm": 1.0, "decay": True, "ema": 0.99,
            },
        }
    )


def load_activities(config: ConfigDict) -> Activities:
    """The set that `config.activities` names.

    Raises:
      ValueError: the name is unknown, or a set that is read by path has none.
    """
    own, known = config.activities, ("ligands", "proteins", "gdsc", *sets.DEEPDTA)
    if own.name not in known:
        raise ValueError(unknown("config.activities.name", own.name, known))
    if own.name == "ligands":
        return sets.ligand_activities(own.judged_targets, own.targets)
    if own.name == "proteins":
        return sets.protein_activities(tuple(own.families), own.targets)
    if not own.path:
        raise ValueError(f"config.activities.name={own.name} is read from a folder: give --config.activities.path")
    if own.name == "gdsc":
        return sets.read_gdsc(Path(own.path), own.held_out)
    return sets.read_deepdta(Path(own.path), own.name, own.held_out)


def shape_of(config: ConfigDict) -> tuple[Vocabulary, MoleculeConfig]:
    """The vocabulary and the generator's shape."""
    vocabulary, own = Vocabulary(config.molecules.representation), config.generator
    fields = ("width", "num_layers", "embedding", "latent", "stack_depth", "stack_width", "every_step", "dropout")
    return vocabulary, MoleculeConfig(len(vocabulary.tokens), **{name: own[name] for name in fields})


def predictor_of(config: ConfigDict, outputs: int = 1) -> nn.Module:
    """The predictor of `config.predictor`, or with its features one of other outputs.

    Raises:
      ValueError: the form is unknown.
    """
    own = config.predictor
    if own.form not in FORMS:
        raise ValueError(unknown("config.predictor.form", own.form, FORMS))
    if own.form in OF_TOKENS:
        size = len(Vocabulary(config.molecules.representation).tokens)
        return OF_TOKENS[own.form](size, tuple(own.features), outputs)
    module = {"fingerprint": FingerprintPredictor, "towers": TowersPredictor}[own.form]
    return module(tuple(own.features), outputs)


def inputs_of(config: ConfigDict, smiles: Sequence[str], prints: np.ndarray) -> np.ndarray:
    """What the predictor reads of molecules: fingerprints uint8 [N, F], or tokens int32 [N, T] of canonical SMILES."""
    if config.predictor.form not in OF_TOKENS:
        return prints
    return Vocabulary(config.molecules.representation).encode(smiles, config.molecules.length)[:, 1:]


def targets_of(config: ConfigDict, data: Activities) -> np.ndarray:
    """What the predictor reads of targets: profiles float32 [C, P], or amino acids int32 [C, S].

    Raises:
      ValueError: amino acids are asked for, and the targets are no proteins.
    """
    if config.predictor.form != "bimodal":
        return data.profiles
    if not data.sequences:
        raise ValueError(
            f"config.predictor.form=bimodal reads amino acids, which config.activities.name={config.activities.name} "
            "has none of"
        )
    return sets.amino_acids(data.sequences, config.predictor.amino_acids)


def profile_vae(config: ConfigDict, size: int) -> ProfileVAE:
    return ProfileVAE(size, tuple(config.profiles.features), config.profiles.latent)


def load(config: ConfigDict, name: str, init: Callable[[Key], PyTree]) -> PyTree:
    """The parameters that the run in `config.models.NAME` has left, or fresh ones where none is named (a test)."""
    folder = config.models[name]
    if not folder:
        return jax.device_get(init(jax.random.key(0)))
    return load_model(Path(folder).expanduser() / "model.npz", name, domain_of(config, name), init)


def domain_of(config: ConfigDict, name: str) -> str:
    """What a model must have been made of to fit."""
    if name == "generator":
        return config.molecules.representation
    if name == "toxicity":
        return "tox21"
    return config.activities.name if name == "profile" else f"{config.activities.name} {config.predictor.labels}"


# The stages: each makes what is trained and says which outcome is shown


def generator_stage(config: ConfigDict) -> tuple[Pretraining, str]:
    """The molecules' autoencoder on drug-like molecules; 300 molecules written from the prior are judged."""
    vocabulary, shape = shape_of(config)
    every = sets.drug_like()
    count = min(config.activities.molecules or len(every), len(every) - HELD_OUT_MOLECULES)
    own, length = config.generator, config.molecules.length
    tokens = vocabulary.encode(every[:count], length)
    held_out = vocabulary.encode(every[-HELD_OUT_MOLECULES:][:count], length)
    known = set(every)

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        row_key, loss_key = jax.random.split(key)
        rows = shard_batch(sample_rows(resident["tokens"], row_key, config.batch_size, count))
        weight = jnp.minimum(own.kl_growth * step, own.kl_max)
        return molecule_loss(shape, params, rows, loss_key, kl_weight=weight, keep=own.keep)

    @evaluated
    def judged(params: PyTree, key: Key) -> tuple[Metrics, jax.Array]:
        loss_key, latent_key, sample_key = jax.random.split(key, 3)
        quiet = MoleculeConfig(**{**shape.__dict__, "dropout": 0.0})
        _, info = molecule_loss(quiet, params["model"], held_out, loss_key, kl_weight=1.0, keep=1.0)
        latents = jax.random.normal(latent_key, (300, shape.latent))
        return info, sample(shape, params["model"], latents, length, 1.0, sample_key).final

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found, (infos, written) = [], judged(state.params, key)
        for number in range(config.num_seeds):
            info = {name: value[number] for name, value in infos.items()}
            texts = [vocabulary.decode(row) for row in written[number]]
            good = [canonical(one) for text in texts if (one := read(text, config.molecules.min_atoms))]
            found.append({
                "cross_entropy": info["model/cross_entropy"], "kl": info["model/kl"],
                "token_accuracy": info["model/token_accuracy"], "validity": len(good) / len(texts),
                "uniqueness": len(set(good)) / max(len(good), 1),
                "novelty": len(set(good) - known) / max(len(set(good)), 1),
            })
        return Evaluation(outcomes={name: np.asarray([[one[name]] for one in found]) for name in found[0]})

    init = lambda key, resident: init_molecule_vae(shape, key)  # noqa: E731
    return Pretraining(init, loss, evaluate, {"tokens": tokens}), "cross_entropy"


def profile_stage(config: ConfigDict) -> tuple[Pretraining, str]:
    """The profiles' denoising autoencoder, on the targets that are not held out; judged on the others."""
    data, own = load_activities(config), config.profiles
    module = profile_vae(config, data.profiles.shape[1])
    train, held_out = data.profiles[~data.held_out], data.profiles[data.held_out]

    def init(key: Key, resident: PyTree) -> PyTree:
        return module.init(key, jnp.asarray(held_out[:1]))["params"]

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        row_key, loss_key = jax.random.split(key)
        rows = shard_batch(sample_rows(resident, row_key, config.batch_size, len(train)))
        weight = jnp.minimum(own.kl_growth * step, own.kl_max)
        return profile_loss(module, params, rows, loss_key, kl_weight=weight, masked=own.masked, noise=own.noise)

    @evaluated
    def rebuilt(params: PyTree) -> jax.Array:
        return module.apply({"params": params["model"]}, held_out)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        errors = np.square(rebuilt(state.params) - held_out).sum(-1)
        return Evaluation(outcomes={"unexplained": errors / np.square(held_out).sum(-1).mean()})

    return Pretraining(init, loss, evaluate, train), "unexplained"


def correlation_within(predicted: np.ndarray, values: np.ndarray, groups: np.ndarray) -> float:
    """Pearson's r of predictions and values, each less its group's mean, over groups of at least two; NaN for none.

    With groups of a molecule it says what the profile adds: a predictor that knows the molecule alone has 0.
    """
    _, at, counts = np.unique(groups, return_inverse=True, return_counts=True)
    centred = [x - (np.bincount(at, x) / counts)[at] for x in (predicted.astype(np.float64), values.astype(np.float64))]
    x, y = (one[counts[at] > 1] for one in centred)
    return float(x @ y / np.sqrt((x @ x) * (y @ y))) if len(x) and x.any() and y.any() else float("nan")


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties counting a half; NaN where there is but one kind."""
    from scipy.stats import rankdata

    positive = labels > 0.5
    pairs = positive.sum() * (~positive).sum()
    if not pairs:
        return float("nan")
    ranks = rankdata(scores)[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(ranks / pairs)


def predictor_stage(config: ConfigDict) -> tuple[Pretraining, str]:
    """Activity from molecule and profile; judged on targets that nobody has seen, and, of the others, on molecules that
    it has not seen."""
    data, own = load_activities(config), config.predictor
    if own.role not in sets.ROLES:
        raise ValueError(unknown("config.predictor.role", own.role, sets.ROLES))
    if own.labels not in ("value", "binder"):
        raise ValueError(unknown("config.predictor.labels", own.labels, ("value", "binder")))
    module, (low, high) = predictor_of(config), data.scale
    inputs, profiles = inputs_of(config, data.smiles, data.prints), targets_of(config, data)
    binder = own.labels == "binder"
    targets = (data.values <= own.binder_at) if binder else (data.values - low) / (high - low)
    train = data.rows(own.role)
    seen = ~np.isin(data.part[data.molecule], (0, *sets.ROLES[own.role])) & ~data.held_out[data.target]
    cold = data.held_out[data.target]
    judged = {name: np.random.default_rng(0).permutation(np.flatnonzero(kind))[:JUDGED_ROWS]
              for name, kind in {"": cold, "seen_": seen}.items()}
    resident = {
        "inputs": inputs, "profiles": profiles,
        "rows": tuple(x[train] for x in (data.molecule, data.target, targets.astype(np.float32))),
    }

    def predict(params: PyTree, resident: PyTree, molecules: jax.Array, places: jax.Array) -> jax.Array:
        return module.apply({"params": params}, resident["inputs"][molecules], resident["profiles"][places])[:, 0]

    def init(key: Key, resident: PyTree) -> PyTree:
        return module.init(key, jnp.asarray(inputs[:1]), jnp.asarray(profiles[:1]))["params"]

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        rows = shard_batch(sample_rows(resident["rows"], key, config.batch_size, int(train.sum())))
        predicted = predict(params, resident, rows[0], rows[1])
        return (masked_cross_entropy if binder else squared_error)(predicted, rows[2])

    @evaluated
    def of_all_runs(params: PyTree, resident: PyTree, molecules: jax.Array, places: jax.Array) -> jax.Array:
        return predict(params["model"], resident, molecules, places)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        outcomes: dict[str, np.ndarray] = {}
        for name, rows in judged.items():
            molecule, target, value = data.molecule[rows], data.target[rows], targets[rows].astype(np.float32)
            predicted = of_all_runs(state.params, resident, molecule, target)
            columns = {
                "correlation": lambda x: [np.corrcoef(x, value)[0, 1]],
                "within_target": lambda x: [correlation_within(x, value, target)],
                "within_molecule": lambda x: [correlation_within(x, value, molecule)],
            }
            if binder:
                columns["auc"] = lambda x: [area_under_curve(x, value)]
                columns["auc_within_target"] = lambda x: [np.nanmean([
                    area_under_curve(x[target == place], value[target == place]) for place in np.unique(target)
                ])]
            outcomes |= {name + column: np.asarray([of(x) for x in predicted]) for column, of in columns.items()}
        return Evaluation(outcomes=outcomes)

    return Pretraining(init, loss, evaluate, resident), "auc" if binder else "correlation"


def toxicity_predictor(features: Sequence[int]) -> FingerprintPredictor:
    """Of the 12 assays of Tox21; it reads no profile."""
    return FingerprintPredictor(tuple(features), 12)


def toxicity_stage(config: ConfigDict) -> tuple[Pretraining, str]:
    """Tox21 from fingerprints; one molecule in ten is held out."""
    data, module = sets.tox21(), toxicity_predictor(config.predictor.features)
    held_out = np.arange(len(data.labels)) % 10 == 0
    nothing = lambda x: jnp.zeros((len(x), 0))  # noqa: E731
    resident = {"prints": data.prints[~held_out], "labels": data.labels[~held_out]}
    prints, labels = data.prints[held_out], data.labels[held_out]
    known = np.isfinite(labels)

    def init(key: Key, resident: PyTree) -> PyTree:
        return module.init(key, jnp.asarray(data.prints[:1]), nothing(data.prints[:1]))["params"]

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        rows = shard_batch(sample_rows(resident, key, config.batch_size, int((~held_out).sum())))
        logits = module.apply({"params": params}, rows["prints"], nothing(rows["prints"]))
        return masked_cross_entropy(logits, rows["labels"])

    @evaluated
    def logits_of(params: PyTree) -> jax.Array:
        return module.apply({"params": params["model"]}, prints, nothing(prints))

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        return Evaluation(outcomes={"auc": np.asarray([
            [area_under_curve(logits[known[:, i], i], labels[known[:, i], i]) for i in range(12)]
            for logits in logits_of(state.params)
        ])})

    return Pretraining(init, loss, evaluate, resident), "auc"


STAGES = {
    "generator": generator_stage, "profile": profile_stage, "predictor": predictor_stage, "toxicity": toxicity_stage,
}
HEADLINES = {
    "cross_entropy": Metric("eval/cross_entropy", "cross-entropy of a held-out molecule", "lower", "nats"),
    "unexplained": Metric("eval/unexplained", "unexplained share of held-out profiles", "lower"),
    "correlation": Metric("eval/correlation", "correlation on held-out targets"),
    "auc": Metric("eval/auc", "area under the curve, held out"),
}


def stage_experiment(config: ConfigDict) -> Experiment:
    """One of the stages before the policy; writes model.npz, the moving average of the first run's parameters."""
    made, outcome = STAGES[config.task](config)

    def program(config: ConfigDict) -> Program:
        return pretraining_program(config, made)

    def finish(result: Result, workdir: Path) -> Mapping[str, Any]:
        kind = config.predictor.role if config.task == "predictor" else config.task
        file = workdir / "model.npz"
        save_model(file, first_run(result.state.target_params["model"]), kind=kind, domain=domain_of(config, kind))
        return {"model": str(file)}

    inputs = {"activities": config.activities.name, "path": config.activities.path}
    return Experiment(program, inputs, HEADLINES[outcome], finish)
