"""PaccMann^RL on SARS-CoV-2: which proteins nothing has seen, the reward of both parts, the verdicts by hand."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="rdkit is of the extra science")

from configs import paccmann_sars  # noqa: E402
from experiments.paccmann_sars import claims  # noqa: E402
from experiments.paccmann_sars.experiment import experiment  # noqa: E402
from rl_jax.generative.molecule_judging import evaluation  # noqa: E402
from rl_jax.generative.molecule_rewards import TERMS, Judges, judges_of, load_design  # noqa: E402
from rl_jax.generative.molecule_stages import inputs_of, predictor_of, shape_of  # noqa: E402
from rl_jax.networks.model_file import save_model  # noqa: E402
from rl_jax.reports.measures import Evaluations  # noqa: E402
from rl_jax.science import molecules  # noqa: E402
from rl_jax.science.activities import AMINO_ACIDS, DEEPDTA, amino_acids, chembl_proteins, drug_like  # noqa: E402
from tests.experiments.stages import take_two_steps  # noqa: E402


def config(preset="tiny", **fields):
    made = paccmann_sars.get_config(preset)
    made.update_from_flattened_dict(fields)
    return made


def test_each_held_out_protein_is_of_its_family_and_of_no_other():
    proteins = chembl_proteins()
    for name, (target, family) in paccmann_sars.HELD_OUT.items():
        found = [other for other, (_, own) in paccmann_sars.HELD_OUT.items() if re.search(own, proteins[target].name)]
        assert found == [name], proteins[target].name


def test_the_policy_learns_for_all_but_the_family_and_no_affinity_for_any_of_the_ten():
    own = config()
    design = load_design(own)
    names = {place: chembl_proteins()[name].name for place, name in enumerate(design.data.targets)}
    assert [design.data.targets[place] for place in design.judged] == ["CHEMBL2885"]
    left_out = {place for place, name in names.items() if "Carbonic" in name}
    assert left_out and set(design.trained) == set(names) - left_out
    unseen = design.data.rows("predictor")
    assert not design.data.held_out[design.data.target[unseen]].any()
    assert set(np.flatnonzero(design.data.held_out)) >= left_out
    own.judging.family = "Cyclooxygenase"
    with pytest.raises(ValueError, match="config.judging.family=.Cyclooxygenase. does not find"):
        load_design(own)


def test_alerts_stand_where_tox21_is_not_wanted():
    quinone, ethanol = molecules.read("O=C1C=CC(=O)C=C1"), molecules.read("CCO")
    assert TERMS["alerts"](quinone) == 0.0 and TERMS["alerts"](ethanol) == 1.0


def test_what_is_best_and_what_is_near_to_what_the_predictor_learned_from(monkeypatch):
    """A predictor that counts bits, on molecules of one text that is none, one that is written twice, and two more."""
    own = config(**{"judging.molecules": 5, "num_seeds": 1, "molecules.length": 50})
    design, (vocabulary, _) = load_design(own), shape_of(own)
    learned = design.data.smiles[design.data.molecule[design.data.rows("predictor")][0]]
    known = design.data.prints[np.unique(design.data.molecule[design.data.rows("predictor")])]
    written = vocabulary.encode(["CCCCO", learned, "", "CCCCO", "CCO"], 50)[:, 1:]
    monkeypatch.setattr("rl_jax.generative.molecule_judging.written_for",
                        lambda config, resident, params, places, *rest: dict.fromkeys(places, written))
    monkeypatch.setattr(molecules, "BEST", 2)
    bits = Judges(lambda resident, name, inputs, targets: inputs.sum(-1) - 10.0, lambda resident, prints: prints[:, 0])
    state = SimpleNamespace(params={"model": {"bias": np.zeros(1)}})
    found = evaluation(own, design, bits)(state, design.resident, None).outcomes
    prints = molecules.fingerprints(["CCCCO", learned, "CCO"])
    assert prints[1].sum() > prints[0].sum() > prints[2].sum()
    best = [molecules.read(text) for text in ("CCCCO", learned)]
    assert found["best_drug_likeness"].item() == pytest.approx(np.mean([molecules.drug_likeness(one) for one in best]))
    assert found["best_accessibility"].item() == pytest.approx(np.mean([molecules.accessibility(one) for one in best]))
    nearest = molecules.tanimoto(prints, known).max(1)
    assert nearest[1] == 1.0 and nearest[2] < 1.0
    assert found["nearest_learned"].item() == pytest.approx((2 * nearest[0] + nearest[1] + nearest[2]) / 4)
    assert found["harmless"].shape == (1, 1)


def test_the_toxicity_model_judges_arms_that_are_not_rewarded_by_it(tmp_path):
    own = config("tiny-affinity_only")
    assert not own.reward.toxicity and not load_design(own).resident["toxicity"]
    params = load_design(config()).resident["toxicity"]
    save_model(tmp_path / "model.npz", params, kind="toxicity", domain="tox21")
    own.models.toxicity = str(tmp_path)
    np.testing.assert_allclose(load_design(own).resident["toxicity"]["MLP_0"]["Dense_0"]["kernel"],
                               params["MLP_0"]["Dense_0"]["kernel"], atol=1e-3)  # saved in half precision


@pytest.mark.slow
def test_the_bimodal_model_reads_the_amino_acids_of_the_protein_that_is_asked_for():
    own = config(**{"predictor.form": "bimodal"})
    design = load_design(own)
    chosen, prints = np.array([0, 3]), design.data.prints[:1]
    inputs = inputs_of(own, design.data.smiles[:1] * 2, prints)
    found = judges_of(own, design.data).predict(design.resident, "predictor", inputs, chosen)
    codes = amino_acids([chembl_proteins()[design.data.targets[place]].sequence for place in chosen], 24)
    expected = predictor_of(own).apply({"params": design.resident["predictor"]}, inputs, codes)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0] != found[1]


def test_the_sign_test_and_the_increase_by_hand():
    assert claims.sign_test(7, 10) == pytest.approx(176 / 1024) and claims.sign_test(10, 10) == pytest.approx(1 / 1024)
    outcomes = {
        "effective": np.array([[[0.2]], [[0.3]]]), "swapped_effective": np.array([[[0.1]], [[0.25]]]),
        "predicted": np.array([[[0.0]], [[1.0]]]), "judged": np.array([[[0.0]], [[0.75]]]),
    }
    run = Evaluations(np.array([0, 1]), np.zeros(2), outcomes)
    assert claims.INCREASE.of(run).values == pytest.approx([0.5])
    assert claims.SURVIVES.of(run).values == pytest.approx([0.75])
    assert claims.SPECIFIC.of(run).values == pytest.approx([0.1 - 0.15])  # own gain less the other protein's


def test_claims_over_the_proteins_of_one_run_by_hand():
    outcomes = {name: np.zeros((2, 1, 4)) for name in claims.OF_A_PROTEIN}
    outcomes["predicted"][1], outcomes["judged"][1] = [1.0, 2.0, 3.0, -0.5], [1.0, 1.0, 0.0, 0.2]
    scores = SimpleNamespace(evaluations=lambda method, task: Evaluations(np.array([0, 1]), np.zeros(2), outcomes))
    gains = claims.share_that_gains("kiba").check(scores)
    assert (gains.value, gains.passed, gains.detail) == (0.75, True, "3 of 4, one-sided sign test p = 0.31")
    judged = claims.over_held_out(claims.SURVIVES, 0.5, "judged", "Half", None, "kiba").check(scores)
    assert judged.value == pytest.approx(2.2 / 5.5) and not judged.passed  # of means, not a mean of shares
    assert judged.interval[0] < judged.value < judged.interval[1]


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="unknown config.task 'affinities'"):
        experiment(config(task="affinities"))


def write_kiba(folder, proteins=12):
    """The files of KIBA that `read_deepdta` reads, of 30 molecules and made sequences and scores."""
    rng, molecules = np.random.default_rng(0), drug_like()[:30]
    sequences = {f"P{number}": "".join(rng.choice(list(AMINO_ACIDS), 40)) for number in range(proteins)}
    (folder / "ligands_can.txt").write_text(json.dumps({f"L{number}": one for number, one in enumerate(molecules)}))
    (folder / "proteins.txt").write_text(json.dumps(sequences))
    np.savetxt(folder / DEEPDTA["kiba"][0], rng.normal(12.1, 1.0, (len(molecules), proteins)))


@pytest.mark.slow
def test_presets_at_scale_take_two_steps_on_files_of_kiba(tmp_path):
    write_kiba(tmp_path)
    models = {name: claims.STAGES[name][2] for name in ("protein", "affinity", "judge", "toxicity")}
    take_two_steps(experiment, config, models, tmp_path)
