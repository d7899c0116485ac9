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
from rl_jax.generative.molecule_design import TERMS, load_design  # noqa: E402
from rl_jax.reports.measures import Evaluations  # noqa: E402
from rl_jax.science import molecules  # noqa: E402
from rl_jax.science.activities import AMINO_ACIDS, DEEPDTA, chembl_proteins, drug_like  # noqa: E402
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
