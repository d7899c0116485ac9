"""Molecules designed for a target: a decoder starts from the target's profile and is rewarded by what predictors say.

Born et al. 2021, iScience 24:102269 (PaccMann^RL: cell lines, sensitivity) and MLST 2:025024 (on SARS-CoV-2: proteins,
affinity and toxicity). Each step writes a batch for some training targets; the host turns tokens into molecules, and
the step rewards them by frozen predictors and makes an update. All is judged on targets that nothing was trained on,
by the predictor that rewards and by a second one, which learned from other molecules.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.files import write_atomically
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run, gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState, scored
from rl_jax.generative import molecule_policy
from rl_jax.generative.molecule_policy import DECODER, Written, reinforce, sample
from rl_jax.generative.molecule_stages import (
    STAGES,
    inputs_of,
    load,
    load_activities,
    predictor_of,
    profile_vae,
    shape_of,
    stage_experiment,
    targets_of,
    toxicity_predictor,
)
from rl_jax.science import molecules
from rl_jax.science.activities import Activities, chembl_proteins, drug_like
from rl_jax.science.molecule_vae import MoleculeConfig, init_molecule_vae

EFFECTS = ("sensitivity", "binding")
TERMS = {  # of the reward, computed on the host: about 1 is good
    "drug_likeness": molecules.drug_likeness,
    "accessibility": lambda molecule: (10.0 - molecules.accessibility(molecule)) / 9.0,
    "solubility": lambda molecule: float(np.clip(1.0 + molecules.solubility(molecule) / 10.0, 0.0, 1.0)),
    "alerts": lambda molecule: float(not molecules.alerts(molecule)),
}
DRAWN = 4  # molecules of a target in the picture
GUARDED = 50  # molecules of a target whose QED, accessibility and alerts, the dearest of the guards, are computed


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


def effect_reward(predicted: jax.Array, config: ConfigDict) -> jax.Array:
    """What a prediction is worth, [B], in [0, 1].

    Sensitivity: 1 / (1 + exp(lmp - midpoint)) with lmp the predicted ln IC50, set to `inactive` from the threshold on:
    the authors' code with a midpoint of 0. Binding: the probability of a logit.
    """
    if config.effect == "binding":
        return jax.nn.sigmoid(predicted)
    lmp = jnp.where(predicted >= config.threshold, config.inactive, predicted)
    return jax.nn.sigmoid(config.midpoint - lmp)


class Read(NamedTuple):
    """What the host finds in N texts of molecules.

    Attributes:
      smiles: [N], canonical; "" where the text is no molecule.
      inputs: of the predictor, [N, ...]; zeros there.
      prints: uint8 [N, F]; zeros there.
      terms: float32 [N], the weighted sum of the host's terms of the reward.
    """

    smiles: list[str]
    inputs: np.ndarray
    prints: np.ndarray
    terms: np.ndarray


def read_all(config: ConfigDict, tokens: np.ndarray) -> Read:
    """Reads molecules of tokens int32 [N, T]."""
    vocabulary, _ = shape_of(config)
    weights = {name: config.reward[name] for name in TERMS if config.reward[name]}
    smiles, prints = [], np.zeros((len(tokens), molecules.FINGERPRINT_BITS), np.uint8)
    terms = np.zeros(len(tokens), np.float32)
    for number, row in enumerate(tokens):
        found = molecules.read(vocabulary.decode(row), config.molecules.min_atoms)
        smiles.append("" if found is None else molecules.canonical(found))
        if found is not None:
            prints[number] = molecules.fingerprint(found)
            terms[number] = sum(weight * TERMS[name](found) for name, weight in weights.items())
    return Read(smiles, inputs_of(config, smiles, prints), prints, terms)


class Design(NamedTuple):
    """All that a run reads.

    Attributes:
      data: the activities.
      resident: the generator "start", the "predictor", the "judge", "toxicity", the targets' "profiles" [C, P], or
        amino acids, that predictor and judge read, and the "latents" [C, L] that the decoder starts from.
      trained, judged: numbers of targets.
    """

    data: Activities
    resident: PyTree
    trained: np.ndarray
    judged: np.ndarray


def load_design(config: ConfigDict) -> Design:
    """Reads activities and models of a configuration.

    Raises:
      ValueError: a field names what does not exist, or numbers do not divide.
    """
    data, (_, shape) = load_activities(config), shape_of(config)
    if config.reward.effect not in EFFECTS:
        raise ValueError(unknown("config.reward.effect", config.reward.effect, EFFECTS))
    if config.batch_size % config.targets_per_batch:
        raise ValueError(
            f"config.batch_size={config.batch_size} is no multiple of config.targets_per_batch="
            f"{config.targets_per_batch}"
        )
    if shape.latent % config.profiles.latent:
        raise ValueError(
            f"config.generator.latent={shape.latent} is no multiple of config.profiles.latent="
            f"{config.profiles.latent}: a profile's code is repeated until it fills the decoder's latent"
        )
    judged = np.flatnonzero(data.held_out)
    if config.judging.target:
        if config.judging.target not in data.targets or not data.held_out[data.targets.index(config.judging.target)]:
            raise ValueError(f"config.judging.target={config.judging.target!r} is no held-out target of the data set")
        judged = np.asarray([data.targets.index(config.judging.target)])
    trained = np.flatnonzero(~data.held_out)
    if config.judging.family:  # leave one family out: the policy may learn for all others
        names = [chembl_proteins()[name].name if name in chembl_proteins() else name for name in data.targets]
        left_out = np.asarray([re.search(config.judging.family, name) is not None for name in names])
        if not left_out[judged].all():
            raise ValueError(f"config.judging.family={config.judging.family!r} does not find config.judging.target")
        trained = np.flatnonzero(~left_out)
    autoencoder, module = profile_vae(config, data.profiles.shape[1]), predictor_of(config)
    toxic, profiles = toxicity_predictor(config.predictor.features), jnp.asarray(data.profiles)
    one = inputs_of(config, data.smiles[:1], data.prints[:1])
    read = targets_of(config, data)
    fresh = lambda key: module.init(key, jnp.asarray(one), jnp.asarray(read[:1]))["params"]  # noqa: E731
    none, judged_toxic = jnp.zeros((1, 0)), config.reward.toxicity or config.models.toxicity
    code = load(config, "profile", lambda key: autoencoder.init(key, profiles[:1])["params"])
    mean, _ = autoencoder.apply({"params": code}, profiles, method="encode")  # the mean, as the authors
    start = load(config, "generator", lambda key: init_molecule_vae(shape, key))
    resident = {
        "start": {name: start[name] for name in DECODER}, "predictor": load(config, "predictor", fresh),
        "judge": load(config, "judge", fresh), "profiles": read,
        "latents": np.tile(np.asarray(mean), (1, shape.latent // config.profiles.latent)),
        "toxicity": load(config, "toxicity", lambda key: toxic.init(
            key, jnp.asarray(data.prints[:1]), none)["params"]) if judged_toxic else {},
    }
    return Design(data, resident, trained, judged)


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


class Judges(NamedTuple):
    """Frozen predictors as functions of the resident.

    Attributes:
      predict: (resident, "predictor" or "judge", inputs [N, ...], targets [N]) -> [N], ln micromol per litre or logits.
      harmless: (resident, prints [N, F]) -> [N], 1 where no assay's probability is above one half.
    """

    predict: Callable[[PyTree, str, jax.Array, jax.Array], jax.Array]
    harmless: Callable[[PyTree, jax.Array], jax.Array]


def judges_of(config: ConfigDict, data: Activities) -> Judges:
    module, toxic, (low, high) = predictor_of(config), toxicity_predictor(config.predictor.features), data.scale

    def predict(resident: PyTree, name: str, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        found = module.apply({"params": resident[name]}, inputs, resident["profiles"][targets])[:, 0]
        return found if config.predictor.labels == "binder" else low + (high - low) * found

    def harmless(resident: PyTree, prints: jax.Array) -> jax.Array:
        logits = toxic.apply({"params": resident["toxicity"]}, prints, jnp.zeros((len(prints), 0)))
        return jnp.all(logits <= 0.0, -1).astype(jnp.float32)

    return Judges(predict, harmless)


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


def evaluation(
    config: ConfigDict, design: Design, judges: Judges
) -> Callable[[TrainState, PyTree, Key], Evaluation]:
    """Molecules for each judged target, and what they are worth. Outcomes, [S, targets] where nothing else is said:

      predicted, judged: the mean prediction of the predictor and of the judge over the valid molecules.
      reward: the mean of what the prediction is worth, the same for all arms.
      effective, judged_effective: the share predicted below 0 (1 micromol), or above 0 (a binder).
      swapped, swapped_effective: the predictor's mean and share for the molecules written for another held-out target.
      validity, uniqueness, novelty, drug_likeness, accessibility, diversity, alerts: guards, as in `science.molecules`.
      nearest: the mean similarity to the nearest known active ligand of the target; swapped_nearest, that of the
        other target's molecules.
      best_drug_likeness, best_accessibility: means over the `molecules.BEST` different molecules of the best
        predictions.
      nearest_learned: the mean similarity to the nearest molecule that the predictor learned from.
      harmless: the share that no assay of Tox21 calls toxic, where that is a part of the reward or a model is named.
      predictions [S, targets * molecules]: target by target; the target's mean where a text is no molecule.
    """
    sign = 1.0 if config.reward.effect == "binding" else -1.0
    count, data, known = config.judging.molecules, design.data, set(drug_like())
    others = np.flatnonzero(data.held_out)
    # Half way around the ring of held-out targets: of families, whose names are near, another one.
    following = {place: others[(number + len(others) // 2) % len(others)] for number, place in enumerate(others)}
    places = sorted({*design.judged, *(following[place] for place in design.judged)})
    ligands = {
        place: data.prints[np.unique(data.molecule[(data.target == place) & (data.values <= config.judging.potent)])]
        for place in design.judged
    }
    learned = data.prints[np.unique(data.molecule[data.rows("predictor")])]
    predict = jax.jit(judges.predict, static_argnums=1)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        runs, (model, resident) = [], gather((state.params["model"], resident))
        for number in range(config.num_seeds):
            params = jax.tree.map(lambda x: x[number], model)
            written = written_for(config, resident, params, places, count, key)  # chance is the same for all runs
            read_for = {place: read_all(config, tokens) for place, tokens in written.items()}
            runs.append([measured(resident, place, read_for) for place in design.judged])
        names = [name for name in runs[0][0] if name != "predictions"]
        outcomes = {name: np.asarray([[one[name] for one in run] for run in runs]) for name in names}
        rows = [np.concatenate([one["predictions"] for one in run]) for run in runs]
        return Evaluation(outcomes=outcomes | {"predictions": np.stack(rows)})

    def measured(resident: PyTree, place: int, read_for: Mapping[int, Read]) -> dict[str, Any]:
        own, swapped = read_for[place], read_for[following[place]]
        good = np.asarray([bool(text) for text in own.smiles])
        there = np.asarray([bool(text) for text in swapped.smiles])
        at = jnp.full(count, place)
        predicted, judged = (np.asarray(predict(resident, name, own.inputs, at)) for name in ("predictor", "judge"))
        other = np.asarray(predict(resident, "predictor", swapped.inputs, at))[there]
        texts = [text for text in own.smiles if text]
        found = [molecules.read(text) for text in texts[:GUARDED]]
        worth = {text: value for text, value in zip(own.smiles, sign * predicted, strict=True) if text}
        best = [molecules.read(text) for text in sorted(worth, key=worth.__getitem__, reverse=True)[: molecules.BEST]]
        mean = lambda x: float(np.mean(x)) if len(x) else 0.0  # noqa: E731
        near = lambda prints, them: mean(molecules.tanimoto(prints, them).max(1)) if len(  # noqa: E731
            prints) and len(them) else 0.0
        own_values = {
            "predicted": mean(predicted[good]), "judged": mean(judged[good]), "swapped": mean(other),
            "reward": mean(np.asarray(effect_reward(jnp.asarray(predicted), config.reward))[good]),
            "effective": mean(sign * predicted[good] > 0), "judged_effective": mean(sign * judged[good] > 0),
            "swapped_effective": mean(sign * other > 0), "validity": mean(good),
            "uniqueness": len(set(texts)) / max(len(texts), 1),
            "novelty": len(set(texts) - known) / max(len(set(texts)), 1),
            "drug_likeness": mean([molecules.drug_likeness(one) for one in found]),
            "accessibility": mean([molecules.accessibility(one) for one in found]),
            "alerts": mean([float(bool(molecules.alerts(one))) for one in found]),
            "diversity": molecules.diversity(own.prints[good]),
            "best_drug_likeness": mean([molecules.drug_likeness(one) for one in best]),
            "best_accessibility": mean([molecules.accessibility(one) for one in best]),
            "nearest": near(own.prints[good], ligands[place]),
            "swapped_nearest": near(swapped.prints[there], ligands[place]),
            "nearest_learned": near(own.prints[good], learned),
            "predictions": np.where(good, predicted, mean(predicted[good])),
        }
        if resident["toxicity"]:
            own_values["harmless"] = mean(np.asarray(judges.harmless(resident, own.prints))[good])
        return own_values

    return evaluate


def written_for(
    config: ConfigDict, resident: PyTree, params: PyTree, places: Sequence[int], count: int, key: Key
) -> dict[int, np.ndarray]:
    """Tokens int32 [count, T] of molecules for each of some targets; a target's depend on the key and its number."""
    _, shape = shape_of(config)
    draw = _writer(shape, config.molecules.length, count)
    return {
        place: np.asarray(draw(params, resident["latents"][place], config.policy.temperature,
                               jax.random.fold_in(key, place))) for place in places
    }


@functools.cache
def _writer(shape: MoleculeConfig, length: int, count: int) -> Callable[..., jax.Array]:
    """One compiled sampler a shape."""

    def write(params: PyTree, latent: jax.Array, temperature: float, key: Key) -> jax.Array:
        latents = jnp.broadcast_to(latent, (count, len(latent)))
        return sample(shape, params, latents, length, temperature, key).final

    return jax.jit(write)


def finish(config: ConfigDict, design: Design) -> Callable[[Result, Path], dict[str, Any]]:
    """Draws molecules before and after for the first judged targets, and lists all of them.

    molecules.png has two rows a target, before and after; molecules.csv the SMILES with the predictions.
    """

    def write(result: Result, workdir: Path) -> dict[str, Any]:
        if jax.process_count() > 1:
            return {}
        judges, lines, rows, titles = judges_of(config, design.data), ["target,stage,smiles,predicted,judged"], [], []
        models = {"before": gather(result.resident["start"]), "after": first_run(result.state.params["model"])}
        resident, count = gather(result.resident), max(2 * DRAWN, 16)
        for number, place in enumerate(design.judged):
            for stage, params in models.items():
                tokens = written_for(config, resident, params, [place], count, jax.random.key(0))[place]
                found, at = read_all(config, tokens), jnp.full(count, place)
                names = ("predictor", "judge")
                values = [np.asarray(judges.predict(resident, name, found.inputs, at)) for name in names]
                good = [i for i, text in enumerate(found.smiles) if text]
                lines += [
                    f"{design.data.targets[place]},{stage},{found.smiles[i]},{values[0][i]:.3f},{values[1][i]:.3f}"
                    for i in good
                ]
                if number < 3:
                    rows.append([found.smiles[i] for i in good[:DRAWN]])
                    titles.append([f"{design.data.targets[place]} {stage}: {values[0][i]:.1f}" for i in good[:DRAWN]])
        write_atomically(workdir / "molecules.csv", "\n".join(lines) + "\n")
        molecules.draw(rows, workdir / "molecules.png", titles)
        return {"molecules": str(workdir / "molecules.png")}

    return write
