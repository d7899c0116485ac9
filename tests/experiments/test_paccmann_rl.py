"""PaccMann^RL's experiment: what the host reads of tokens, what is judged, and one error for each bad setting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("rdkit", reason="rdkit is of the extra science")

from configs import paccmann_rl  # noqa: E402
from experiments.paccmann_rl.claims import SURVIVES, SWAPPED, lines_lowered  # noqa: E402
from experiments.paccmann_rl.experiment import experiment  # noqa: E402
from rl_jax.core.extras import MissingExtraError  # noqa: E402
from rl_jax.generative.molecule_rewards import judges_of, load_design, read_all  # noqa: E402
from rl_jax.generative.molecule_stages import load_activities, predictor_stage, shape_of  # noqa: E402
from rl_jax.reports.measures import Evaluations  # noqa: E402
from rl_jax.science.activities import drug_like  # noqa: E402
from rl_jax.science.molecules import STOP  # noqa: E402
from tests.experiments.stages import take_two_steps  # noqa: E402


def config(preset="tiny", **fields):
    made = paccmann_rl.get_config(preset)
    made.update_from_flattened_dict(fields)
    return made


def test_what_the_host_reads_of_tokens():
    own = config(**{"molecules.min_atoms": 5, "reward.drug_likeness": 1.0})
    vocabulary, _ = shape_of(own)
    tokens = vocabulary.encode(["c1ccccc1O", "C", "CCO"], 20)[:, 1:]
    tokens[1, 0] = STOP  # empty
    found = read_all(own, tokens)
    assert found.smiles == ["Oc1ccccc1", "", ""]  # the empty and the trivial one are failures
    assert found.prints[0].any() and not found.prints[1:].any() and found.terms[0] > 0.3 and not found.terms[1:].any()
    own.predictor.form = "attention"
    # The predictor reads the tokens of the canonical text, however the molecule was written.
    same = vocabulary.encode(["Oc1ccccc1"], 20)[:, 1:]
    np.testing.assert_array_equal(read_all(own, tokens).inputs[:1], same)


def test_a_profile_fills_the_latent_by_repetition():
    design = load_design(config())
    latents = design.resident["latents"]
    assert latents.shape == (6, 8)
    np.testing.assert_array_equal(latents[:, :4], latents[:, 4:])
    assert not set(design.trained) & set(design.judged) and len(design.judged) == 2


def test_predictions_undo_the_scale_that_predictors_learn_on():
    """A predictor that says what a pair's scaled value is predicts that pair's ln IC50."""
    own = config("tiny-predictor")
    data, stage = load_activities(own), predictor_stage(own)[0]
    rows = np.flatnonzero(data.rows("predictor"))[:3]
    params = jax.tree.map(jnp.zeros_like, stage.init(jax.random.key(0), stage.resident))
    bias = params["MLP_0"]["Dense_1"]["bias"]
    for row, scaled in zip(rows, stage.resident["rows"][2]):
        params["MLP_0"]["Dense_1"]["bias"] = bias + scaled
        resident = {"predictor": params, "target_inputs": jnp.asarray(data.profiles)}
        found = judges_of(own, data).predict(resident, "predictor", jnp.asarray(data.prints[:1]), jnp.array([0]))
        assert float(found[0]) == pytest.approx(float(data.values[row]), abs=1e-4)
    own.predictor.labels = "binder"  # a logit, of which nothing is to be undone
    found = judges_of(own, data).predict(resident, "predictor", jnp.asarray(data.prints[:1]), jnp.array([0]))
    assert float(found[0]) == pytest.approx(float(scaled))


def test_measures_by_hand():
    outcomes = {
        "predicted": np.array([[[0.0, 0.0]], [[-1.0, -0.2]]]), "judged": np.array([[[0.0, 0.0]], [[-0.3, -0.3]]]),
        "swapped": np.array([[[0.0, 0.0]], [[0.0, 0.0]]]),
    }
    run = Evaluations(np.array([0, 1]), np.zeros(2), outcomes)
    assert lines_lowered(0.5).of(run).values.tolist() == [1.0]
    assert lines_lowered(0.5, share=True).of(run).values.tolist() == [0.5]
    assert SURVIVES.of(run).values == pytest.approx([0.5]) and SWAPPED.of(run).values == pytest.approx([0.6])


@pytest.mark.parametrize("fields, message", [
    ({"task": "policies"}, "unknown config.task 'policies': did you mean policy"),
    ({"activities.name": "gdcs"}, "unknown config.activities.name 'gdcs': did you mean gdsc"),
    ({"activities.name": "gdsc"}, "config.activities.name=gdsc is read from a folder: give --config.activities.path"),
    ({"activities.name": "kiba", "activities.path": "nowhere"}, "ligands_can.txt is not there"),
    ({"reward.effect": "bind"}, "unknown config.reward.effect 'bind': did you mean binding"),
    ({"batch_size": 9}, "config.batch_size=9 is no multiple of config.targets_per_batch=2"),
    ({"profiles.latent": 3}, "config.generator.latent=8 is no multiple of config.profiles.latent=3"),
    ({"judging.target": "CHEMBL1"}, "config.judging.target='CHEMBL1' is no held-out target"),
    ({"predictor.form": "bimodal"}, "reads amino acids, which config.activities.name=ligands has none of"),
    ({"models.predictor": "nowhere"}, "nowhere/model.npz: no such model"),
    ({"predictor.form": "tower"}, "unknown config.predictor.form 'tower': did you mean towers"),
    ({"task": "predictor", "predictor.role": "juge"}, "unknown config.predictor.role 'juge': did you mean judge"),
    ({"molecules.representation": "smile"}, "unknown config.representation 'smile': did you mean smiles"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        experiment(config(**fields))


def test_without_rdkit_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("rl_jax.science.molecules.require", lambda module, extra: (_ for _ in ()).throw(
        MissingExtraError(f"{module} is not installed: pip install 'rl_jax[{extra}]'")))
    with pytest.raises(MissingExtraError, match=r"rl_jax\[science\]"):
        experiment(config(**{"activities.targets": 5}))


@pytest.mark.slow
def test_a_batch_is_scored_and_learnt_from():
    own = config(**{"batch_size": 8, "num_seeds": 1, "reward.accessibility": 0.1})
    program = experiment(own).program(own)
    state = jax.tree.map(lambda x: x[None], program.init(jax.random.key(0), program.resident))
    batch, metrics = program.feed.collect(state, program.resident, jax.random.split(jax.random.key(1), 1), 0)
    assert 0.0 <= metrics["reward/unique"] <= 1.0
    assert batch["states"].shape == batch["log_probs"].shape == (1, 8, 20) and batch["valid"].shape == (1, 8)
    assert (batch["targets"].reshape(2, 4) == batch["targets"].reshape(2, 4)[:, :1]).all()  # a target side by side
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), batch)
    after, info = jax.jit(program.step)(jax.tree.map(lambda x: x[0], state), program.resident, one, jax.random.key(0))
    assert np.isfinite(float(info["actor/loss"])) and float(info["actor/off_policy"]) < 1e-4
    outcomes = program.evaluate(state, program.resident, jax.random.key(2)).outcomes
    assert outcomes["predicted"].shape == (1, 2) and outcomes["predictions"].shape == (1, 16)
    again = program.evaluate(state, program.resident, jax.random.key(2)).outcomes
    np.testing.assert_array_equal(outcomes["predictions"], again["predictions"])


def write_gdsc(folder, lines=12):
    """The files that `read_gdsc` reads, of 30 molecules and made numbers."""
    rng, names, molecules = np.random.default_rng(0), [f"L{number}" for number in range(lines)], drug_like()[:30]
    table = lambda rows, head: "".join(",".join(map(str, row)) + "\n" for row in [head, *rows])  # noqa: E731
    ids = range(len(molecules))
    sensitivities = [[f"GDSC:{one}", *rng.normal(0.0, 2.0, lines).round(3)] for one in ids]
    (folder / "GDSC_IC50.csv").write_text(table(sensitivities, ["", *names]))
    (folder / "223drugs_pubchem_smiles.txt").write_text("".join(f"{one}\t{molecules[one]}\n" for one in ids))
    (folder / "drugs.csv").write_text(table([[one, one] for one in ids], ["drug_id", "PubCHEM"]))
    profiles = [[name, *rng.uniform(size=8).round(3)] for name in names]
    (folder / "profiles.csv").write_text(table(profiles, ["", *(f"G{gene}" for gene in range(8))]))


@pytest.mark.slow
def test_presets_at_scale_take_two_steps_on_files_of_gdsc(tmp_path):
    write_gdsc(tmp_path)
    models = {name: name for name in ("profile", "predictor", "judge")}
    take_two_steps(experiment, config, models, tmp_path)
