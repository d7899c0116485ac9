"""Molecules: tokens there and back, what counts as one, fingerprints and scores against RDKit's numbers and by hand."""

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="rdkit is of the extra science")
pytest.importorskip("selfies", reason="selfies is of the extra science")

from rl_jax.core.extras import MissingExtraError  # noqa: E402
from rl_jax.science import molecules  # noqa: E402
from rl_jax.science.activities import drug_like  # noqa: E402
from rl_jax.science.molecules import PAD, START, STOP, UNKNOWN, Vocabulary  # noqa: E402

ASPIRIN, BENZENE, PAPAIN = "CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1", "[Pt]"


@pytest.mark.parametrize("representation", ["selfies", "smiles"])
def test_tokens_lead_back_to_the_molecule(representation):
    vocabulary, texts = Vocabulary(representation), drug_like()[:40]
    rows = vocabulary.encode(texts, 60)
    assert rows.shape == (40, 61) and (rows[:, 0] == START).all() and not (rows == UNKNOWN).any()
    assert ((rows == STOP).sum(1) == 1).all() and (rows[rows.cumsum(1) > rows.sum(1)[:, None]].size == 0)
    assert [molecules.canonical(molecules.read(vocabulary.decode(row[1:]))) for row in rows] == texts
    cut = vocabulary.encode(texts[:1], 3)
    assert cut.shape == (1, 4) and STOP not in cut and PAD not in cut
    assert UNKNOWN in vocabulary.encode([PAPAIN], 5)


def test_an_unknown_representation_is_named():
    with pytest.raises(ValueError, match="unknown config.representation 'smile': did you mean smiles"):
        _ = Vocabulary("smile").tokens


def test_empty_trivial_and_broken_texts_are_failures():
    assert molecules.read("") is None and molecules.read("C1CC") is None and molecules.read("CC.O") is None
    assert molecules.read("C") is not None and molecules.read("C", min_atoms=5) is None
    assert molecules.read(ASPIRIN, min_atoms=5).GetNumHeavyAtoms() == 13
    # One molecule has one text, whatever its stereochemistry and its order are.
    assert molecules.canonical(molecules.read("C[C@H](N)O")) == molecules.canonical(molecules.read("OC(C)N"))


def test_fingerprints_similarity_and_diversity():
    from rdkit import DataStructs
    from rdkit.Chem import MolFromSmiles, rdFingerprintGenerator

    texts = [ASPIRIN, BENZENE, "CCO"]
    prints = molecules.fingerprints(texts)
    assert prints.shape == (3, 1024) and prints.dtype == np.uint8
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    theirs = [generator.GetFingerprint(MolFromSmiles(text)) for text in texts]
    expected = [DataStructs.BulkTanimotoSimilarity(one, theirs) for one in theirs]
    np.testing.assert_allclose(molecules.tanimoto(prints, prints), expected, atol=1e-6)
    assert molecules.diversity(prints) == pytest.approx(1.0 - np.mean([expected[0][1], expected[0][2], expected[1][2]]))
    assert molecules.diversity(prints[:1]) == 0.0 and molecules.diversity(prints[[0, 0]]) == 0.0
    with pytest.raises(ValueError, match="molecule 1 is 'nothing': RDKit reads no molecule"):
        molecules.fingerprints([ASPIRIN, "nothing"])


def test_scores():
    aspirin, benzene = molecules.read(ASPIRIN), molecules.read(BENZENE)
    assert molecules.drug_likeness(aspirin) == pytest.approx(0.550, abs=0.002)  # Bickerton et al., as RDKit documents
    assert 1.0 <= molecules.accessibility(benzene) <= molecules.accessibility(aspirin) < 2.0
    # Delaney's equation by hand: cLogP 1.6866, MW 78.114, no rotatable bond, all atoms aromatic; measured -1.64.
    assert molecules.solubility(benzene) == pytest.approx(0.16 - 0.63 * 1.6866 - 0.0062 * 78.114 - 0.74, abs=1e-3)
    assert molecules.alerts(molecules.read("O=C1C=CC(=O)C=C1")) and not molecules.alerts(benzene)


# (measured log10 of mol per litre, SMILES): Delaney 2004, table of the supplement.
MEASURED = [(-0.77, "OCC1OC(OCC2OC(OC(C#N)c3ccccc3)C(O)C(O)C2O)C(O)C(O)C1O"), (-3.3, "Cc1occc1C(=O)Nc1ccccc1"),
            (-1.64, BENZENE), (1.1, "CCO"), (-8.057, "c1ccc2c(c1)ccc1c2ccc2c1ccc1ccccc12")]


def test_the_solubility_of_known_molecules():
    found = [molecules.solubility(molecules.read(text)) for _, text in MEASURED]
    assert np.corrcoef(found, [value for value, _ in MEASURED])[0, 1] > 0.9


def test_a_missing_package_names_the_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("rl_jax.core.extras.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"rdkit.Chem is not installed: pip install 'rl_jax\[science\]'"):
        molecules.chemistry()


def test_a_picture_is_drawn(tmp_path):
    molecules.draw([[ASPIRIN], [BENZENE, "CCO"]], tmp_path / "m.png", [["a"], ["b", "c"]])
    assert (tmp_path / "m.png").read_bytes()[:4] == b"\x89PNG"
