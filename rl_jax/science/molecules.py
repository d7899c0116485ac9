"""Molecules as tokens, fingerprints and numbers: what a generator writes, and what is counted about it.

RDKit and selfies do the chemistry; both are of the extra `science` and are imported where they are used. A molecule is
its canonical SMILES without stereochemistry, the same for all models: `canonical`.

Sources: SELFIES (Krenn et al. 2020, arXiv 1905.13741); Morgan fingerprints (Rogers and Hahn 2010); QED (Bickerton et
al. 2012); synthetic accessibility (Ertl and Schuffenhauer 2009); solubility (Delaney 2004, J. Chem. Inf. Comput. Sci.
44:1000, equation 1); alerts (Brenk et al. 2008; Baell and Holloway 2010), as RDKit has them.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Metric
from rl_jax.core.extras import require

PAD, START, STOP, UNKNOWN = range(4)
SPECIAL = ("[pad]", "[start]", "[stop]", "[unknown]")
# All tokens of the committed drug-like molecules, and those of the molecules with activities that are not rare.
SELFIES = (
    "[#Branch1]", "[#Branch2]", "[#C]", "[#N]", "[=Branch1]", "[=Branch2]", "[=C]", "[=N]", "[=O]", "[=Ring1]",
    "[=Ring2]", "[=S]", "[Br]", "[Branch1]", "[Branch2]", "[C]", "[Cl]", "[F]", "[N]", "[NH1]", "[O]", "[P]",
    "[Ring1]", "[Ring2]", "[S]", "[O-1]", "[N+1]", "[I]", "[=N+1]",
)
SMILES = tuple("()-#=+123456789BCFIHNOPScnops") + ("Br", "Cl", "[nH]", "[N+]", "[O-]")
ALPHABETS = {"selfies": SELFIES, "smiles": SMILES}
SMILES_TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|.")
FINGERPRINT_BITS = 1024
RADIUS = 2
# What stands beside every reward that molecules are written for.
VALIDITY = Metric("eval/validity", "validity")
UNIQUENESS = Metric("eval/uniqueness", "uniqueness")
NOVELTY = Metric("eval/novelty", "novelty")
QED = Metric("eval/drug_likeness", "QED")
SA = Metric("eval/accessibility", "synthetic accessibility", "lower")
DIVERSITY = Metric("eval/diversity", "Tanimoto diversity")
NEAREST = Metric("eval/nearest", "similarity to the nearest known active")
GUARDS = (VALIDITY, UNIQUENESS, NOVELTY, QED, SA, DIVERSITY, NEAREST)
# Of a reward that is predicted: what it likes best, and how far that is from what the predictor knows.
BEST = 10  # distinct molecules of a target, those of the best prediction
BEST_QED = Metric("eval/best_drug_likeness", f"QED of the {BEST} best")
BEST_SA = Metric("eval/best_accessibility", f"synthetic accessibility of the {BEST} best", "lower")
LEARNED = Metric("eval/nearest_learned", "similarity to the nearest molecule that the predictor learned from")
PREDICTED_GUARDS = (BEST_QED, BEST_SA, LEARNED)


def chemistry(module: str = "rdkit.Chem") -> ModuleType:
    """RDKit's module of that name, or selfies.

    Raises:
      MissingExtraError: it is not installed; the message names the extra `science`.
    """
    return require(module, "science")


class Vocabulary(NamedTuple):
    """The tokens of a representation, "selfies" or "smiles"; the first four are special."""

    representation: str

    @property
    def tokens(self) -> tuple[str, ...]:
        if self.representation not in ALPHABETS:
            raise ValueError(unknown("config.representation", self.representation, ALPHABETS))
        return SPECIAL + ALPHABETS[self.representation]

    def split(self, smiles: str) -> list[str]:
        """The tokens of a canonical SMILES in this representation; an unknown one where selfies cannot say it."""
        if self.representation == "smiles" or not smiles:
            return SMILES_TOKEN.findall(smiles)
        selfies = chemistry("selfies")
        try:
            return list(selfies.split_selfies(selfies.encoder(smiles)))
        except selfies.EncoderError:
            return [SPECIAL[UNKNOWN]]

    def encode(self, smiles: Iterable[str], length: int) -> np.ndarray:
        """Token numbers int32 [N, 1 + length]: the start, the molecule, the stop, and padding.

        A molecule that is longer is cut and has no stop; an unknown token is `UNKNOWN`.
        """
        number = {token: index for index, token in enumerate(self.tokens)}
        rows = [[number.get(token, UNKNOWN) for token in self.split(one)][:length] for one in smiles]
        filled = np.full((len(rows), 1 + length), PAD, np.int32)
        filled[:, 0] = START
        for row, own in zip(filled, rows, strict=True):
            own = (own + [STOP])[:length]
            row[1 : 1 + len(own)] = own
        return filled

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token numbers until the first stop, as SMILES that nothing has checked; special ones are left
        out."""
        names, found = self.tokens, []
        for token in tokens:
            if token == STOP:
                break
            if token >= len(SPECIAL):
                found.append(names[token])
        return "".join(found) if self.representation == "smiles" else chemistry("selfies").decoder("".join(found))


@functools.cache
def _quiet() -> None:
    """RDKit says nothing of each molecule that it cannot read."""
    chemistry("rdkit.RDLogger").DisableLog("rdApp.*")


def read(smiles: str, min_atoms: int = 1) -> Any | None:
    """RDKit's molecule, or None where the text is none, or one of several parts or of fewer heavy atoms.

    SELFIES are never wrong, but may be empty or trivial: `min_atoms` makes these failures too.
    """
    _quiet()
    molecule = chemistry().MolFromSmiles(smiles) if smiles and "." not in smiles else None
    return molecule if molecule is not None and molecule.GetNumHeavyAtoms() >= min_atoms else None


def canonical(molecule: Any) -> str:
    """The one SMILES of a molecule, without stereochemistry."""
    return chemistry().MolToSmiles(molecule, isomericSmiles=False)


@functools.cache
def _morgan() -> Any:
    generator = chemistry("rdkit.Chem.rdFingerprintGenerator")
    return generator.GetMorganGenerator(radius=RADIUS, fpSize=FINGERPRINT_BITS)


def fingerprint(molecule: Any) -> np.ndarray:
    """The Morgan fingerprint, uint8 [1024] of 0 and 1."""
    return _morgan().GetFingerprintAsNumPy(molecule)


def fingerprints(smiles: Iterable[str]) -> np.ndarray:
    """Fingerprints of SMILES, uint8 [N, 1024].

    Raises:
      ValueError: one of them is no molecule; the message names it.
    """
    found = []
    for number, text in enumerate(smiles):
        molecule = chemistry().MolFromSmiles(text)
        if molecule is None:
            raise ValueError(f"molecule {number} is {text!r}: RDKit reads no molecule in it")
        found.append(fingerprint(molecule))
    return np.stack(found) if found else np.zeros((0, FINGERPRINT_BITS), np.uint8)


def tanimoto(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Shared bits over all bits of two sets of fingerprints [N, F] and [M, F], float32 [N, M]; 0 where none is set."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    shared = one @ other.T
    return shared / np.maximum(one.sum(1)[:, None] + other.sum(1)[None] - shared, 1.0)


def diversity(prints: np.ndarray) -> float:
    """1 - the mean Tanimoto similarity of the pairs of different rows of fingerprints [N, F]; 0 for fewer than two."""
    count = len(prints)
    if count < 2:
        return 0.0
    similar = tanimoto(prints, prints)
    return float(1.0 - (similar.sum() - np.trace(similar)) / (count * (count - 1)))


def drug_likeness(molecule: Any) -> float:
    """QED, in [0, 1]."""
    return float(chemistry("rdkit.Chem.QED").qed(molecule))


@functools.cache
def _accessibility() -> ModuleType:
    """RDKit's script, which lies outside its package."""
    import importlib.util

    file = Path(chemistry("rdkit.RDConfig").RDContribDir) / "SA_Score" / "sascorer.py"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: install RDKit from its wheel, pip install 'rl_jax[science]'")
    spec = importlib.util.spec_from_file_location("rdkit_sascorer", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accessibility(molecule: Any) -> float:
    """The synthetic accessibility score, from 1 (easy to make) to 10."""
    return float(_accessibility().calculateScore(molecule))


def solubility(molecule: Any) -> float:
    """Delaney's estimate of the log10 of the solubility in mol per litre.

    0.16 - 0.63 cLogP - 0.0062 MW + 0.066 rotatable bonds - 0.74 share of aromatic atoms.
    """
    descriptors = chemistry("rdkit.Chem.Descriptors")
    log_p = chemistry("rdkit.Chem.Crippen").MolLogP(molecule)
    rotatable = chemistry("rdkit.Chem.rdMolDescriptors").CalcNumRotatableBonds(molecule)
    aromatic = sum(atom.GetIsAromatic() for atom in molecule.GetAtoms()) / max(molecule.GetNumHeavyAtoms(), 1)
    return float(0.16 - 0.63 * log_p - 0.0062 * descriptors.MolWt(molecule) + 0.066 * rotatable - 0.74 * aromatic)


@functools.cache
def _alerts() -> Any:
    catalog = chemistry("rdkit.Chem.FilterCatalog")
    parameters = catalog.FilterCatalogParams()
    for name in ("PAINS", "BRENK"):
        parameters.AddCatalog(getattr(catalog.FilterCatalogParams.FilterCatalogs, name))
    return catalog.FilterCatalog(parameters)


def alerts(molecule: Any) -> list[str]:
    """The names of the PAINS and Brenk alerts that a molecule has."""
    return [match.GetDescription() for match in _alerts().GetMatches(molecule)]


def draw(rows: Sequence[Sequence[str]], path: Path, titles: Sequence[Sequence[str]]) -> None:
    """Writes a PNG of molecules, a row of SMILES each, with a title below each."""
    drawing = chemistry("rdkit.Chem.Draw")
    columns = max(len(row) for row in rows)
    cells = [(read(one), title) for row, own in zip(rows, titles) for one, title in
             [*zip(row, own, strict=True), *[("", "")] * (columns - len(row))]]
    image = drawing.MolsToGridImage(
        [cell[0] for cell in cells], molsPerRow=columns, subImgSize=(260, 200), legends=[cell[1] for cell in cells],
        returnPNG=False,  # a picture that can be saved, in notebooks too
    )
    image.save(path)
