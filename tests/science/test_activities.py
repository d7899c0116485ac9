"""Activities: splits, profiles and sets by path, on the committed data and on small made files."""

import hashlib
import json
import math

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="rdkit is of the extra science")

from rl_jax.science import activities as sets  # noqa: E402


def test_every_file_has_its_source():
    table = (sets.DATA / "SOURCE.md").read_text()
    files = [path for path in sets.DATA.iterdir() if path.suffix in (".xz", ".gz")]
    assert len(files) == 4
    for path in files:
        assert f"| {path.name} | {hashlib.sha256(path.read_bytes()).hexdigest()} |" in table, path.name


def test_predictor_and_judge_share_no_molecule_and_see_no_held_out_target():
    data = sets.ligand_activities(2, 6)
    assert len(data.targets) == 6 and data.held_out.sum() == 2
    rows = {role: data.rows(role) for role in ("predictor", "judge")}
    molecules = {role: set(data.molecule[own]) for role, own in rows.items()}
    assert molecules["predictor"] and molecules["judge"] and not molecules["predictor"] & molecules["judge"]
    assert not data.held_out[data.target[rows["predictor"] | rows["judge"]]].any()
    # Nor the molecules that profiles are made of.
    used = np.isin(data.part, (1, 2, 3, 4))
    assert used[data.molecule[rows["predictor"]]].all() and (data.part == 0).any()


def test_profiles_are_scaled_by_what_is_known():
    profiles, known = np.array([[0.0, 1.0], [2.0, 1.0], [9.0, 3.0]]), np.array([True, True, False])
    np.testing.assert_allclose(sets.standardised(profiles, known), [[-1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])


def test_amino_acids_are_numbered_cut_and_padded():
    assert sets.amino_acids(["ACX", "YYYYYY", ""], 4).tolist() == [[1, 2, 21, 0], [20] * 4, [0] * 4]


def test_units_are_the_natural_logarithm_of_micromol():
    values = {target: value for _, target, value in sets.chembl_pairs()}
    assert all(abs(value / math.log(10.0)) <= 5.001 for value in values.values())  # pChEMBL from 4 to 11
    low, high = sets.ligand_activities(2, 6).scale
    assert low < 0.0 < high  # 1 micromol lies inside


def test_protein_features_by_hand():
    features = sets.protein_features("AAAC")
    assert features.shape == (532,) and features[0] == pytest.approx(0.75) and features[1] == pytest.approx(0.25)
    assert np.expm1(features[20:]).sum() == pytest.approx(1000.0 * 2 / 4, rel=1e-4)  # AAA and AAC, of 4 letters
    with pytest.raises(ValueError, match="sequence 'AA': give at least 3"):
        sets.protein_features("AA")


def test_families_are_held_out_whole():
    data = sets.protein_activities(("[Cc]yclooxygenase|kinase",), 6)
    proteins = sets.chembl_proteins()
    assert 0 < data.held_out.sum() < 6
    for name, out in zip(data.targets, data.held_out):
        assert out == any(word in proteins[name].name for word in ("kinase", "yclooxygenase"))
    with pytest.raises(ValueError, match="'spike' is in no name"):
        sets.protein_activities(("spike",), 6)


def write_gdsc(folder):
    (folder / "GDSC_IC50.csv").write_text('"","L1","L2","L3"\n"GDSC:1",NA,0.5,-1.25\n"GDSC:2",2.0,nan,1.0\n'
                                          '"GDSC:3",1.0,1.0,1.0\n')
    (folder / "223drugs_pubchem_smiles.txt").write_text("11\tCCO\n12\tc1ccccc1O\n")
    (folder / "drugs.csv").write_text("drug_id,Name,PubCHEM\n1,one,11\n2,two,12\n3,three,none\n")
    (folder / "profiles.csv").write_text(",G1,G2\nL1,0.1,1.0\nL2,0.3,\nL3,0.5,2.0\n")


def test_gdsc_by_path(tmp_path):
    write_gdsc(tmp_path)
    data = sets.read_gdsc(tmp_path, 0.4)
    pairs = {(data.smiles[m], data.targets[t]): float(v)
             for m, t, v in zip(data.molecule, data.target, data.values, strict=True)}
    assert pairs == {("CCO", "L2"): 0.5, ("CCO", "L3"): -1.25, ("Oc1ccccc1", "L1"): 2.0, ("Oc1ccccc1", "L3"): 1.0}
    assert data.held_out.sum() == 2 and data.profiles.shape == (3, 2)
    (tmp_path / "drugs.csv").unlink()
    with pytest.raises(FileNotFoundError, match="drugs.csv is not there"):
        sets.read_gdsc(tmp_path, 0.4)


def test_gdsc_without_a_pair_is_named(tmp_path):
    write_gdsc(tmp_path)
    (tmp_path / "profiles.csv").write_text(",G1\nL9,1.0\n")
    with pytest.raises(ValueError, match="no sensitivity has both"):
        sets.read_gdsc(tmp_path, 0.4)


@pytest.mark.parametrize("kind, number, expected", [("kiba", 12.0, -12.0), ("davis", 1000.0, 0.0)])
def test_deepdta_by_path(tmp_path, kind, number, expected):
    (tmp_path / "ligands_can.txt").write_text(json.dumps({"a": "CCO", "b": "CCN"}))
    (tmp_path / "proteins.txt").write_text(json.dumps({"P": "MKVLA", "Q": "AAACD"}))
    matrix = tmp_path / sets.DEEPDTA[kind][0]
    matrix.write_text(f"{number}\tnan\n100.0\t10.0\n")
    data = sets.read_deepdta(tmp_path, kind, 0.5)
    assert len(data.values) == 3 and data.held_out.sum() == 1
    assert float(data.values[0]) == pytest.approx(expected, abs=1e-6)
    matrix.write_text("1.0 2.0\n")
    with pytest.raises(ValueError, match=r"\(1, 2\), of 2 ligands and 2 proteins"):
        sets.read_deepdta(tmp_path, kind, 0.5)


@pytest.mark.slow
def test_tox21_has_gaps_and_twelve_assays():
    data = sets.tox21()
    assert data.labels.shape == (len(data.prints), 12) and len(data.assays) == 12 and len(data.prints) > 7500
    assert 0.05 < np.isnan(data.labels).mean() < 0.5
