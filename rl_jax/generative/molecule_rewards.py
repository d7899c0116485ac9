"""What a policy that designs molecules reads, and how its molecules are rewarded.

Activities and frozen models (`load_design`), molecules of tokens with the terms of the reward that the host computes
(`read_all`), the predictors that say what a molecule is worth (`judges_of`, `effect_reward`). The papers: see
`molecule_design`.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import PyTree
from rl_jax.generative.molecule_policy import DECODER
from rl_jax.generative.molecule_stages import (
    inputs_of,
    load,
    load_activities,
    predictor_of,
    profile_vae,
    shape_of,
    targets_of,
    toxicity_predictor,
)
from rl_jax.science import molecules
from rl_jax.science.activities import Activities, chembl_proteins
from rl_jax.science.molecule_vae import init_molecule_vae

EFFECTS = ("sensitivity", "binding")
TERMS = {  # of the reward, computed on the host: about 1 is good
    "drug_likeness": molecules.drug_likeness,
    "accessibility": lambda molecule: (10.0 - molecules.accessibility(molecule)) / 9.0,
    "solubility": lambda molecule: float(np.clip(1.0 + molecules.solubility(molecule) / 10.0, 0.0, 1.0)),
    "alerts": lambda molecule: float(not molecules.alerts(molecule)),
}


class Design(NamedTuple):
    """All that a run reads.

    Attributes:
      data: the activities.
      resident: the generator "start", the "predictor", the "judge", "toxicity", the "target_inputs" [C, ...]
        that predictor and judge read, profiles or amino acids, and the "latents" [C, L] that the decoder starts from.
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
        "judge": load(config, "judge", fresh), "target_inputs": read,
        "latents": np.tile(np.asarray(mean), (1, shape.latent // config.profiles.latent)),
        "toxicity": load(config, "toxicity", lambda key: toxic.init(
            key, jnp.asarray(data.prints[:1]), none)["params"]) if judged_toxic else {},
    }
    return Design(data, resident, trained, judged)


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
        found = module.apply({"params": resident[name]}, inputs, resident["target_inputs"][targets])[:, 0]
        return found if config.predictor.labels == "binder" else low + (high - low) * found

    def harmless(resident: PyTree, prints: jax.Array) -> jax.Array:
        logits = toxic.apply({"params": resident["toxicity"]}, prints, jnp.zeros((len(prints), 0)))
        return jnp.all(logits <= 0.0, -1).astype(jnp.float32)

    return Judges(predict, harmless)
