"""Molecules of a policy judged on targets that nothing was trained on, and their picture.

By the predictor that rewards and by a second one, which learned from other molecules. The papers: see
`molecule_design`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.files import write_atomically
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run, gather
from rl_jax.core.program import Evaluation, Key, PyTree, TrainState
from rl_jax.generative.molecule_policy import sample
from rl_jax.generative.molecule_rewards import Design, Judges, Read, effect_reward, judges_of, read_all
from rl_jax.generative.molecule_stages import shape_of
from rl_jax.science import molecules
from rl_jax.science.activities import drug_like
from rl_jax.science.molecule_vae import MoleculeConfig

DRAWN = 4  # molecules of a target in the picture
GUARDED = 50  # molecules of a target whose QED, accessibility and alerts, the dearest of the guards, are computed


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
