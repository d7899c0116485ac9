"""What molecules do to targets: pairs of a molecule and a profile with a number, and how they are split.

The committed set (data/SOURCE.md) is of ChEMBL: 164 proteins with at least 100 activities each. It stands in for cell
lines, whose sensitivities (GDSC) and profiles (CCLE) are read from a folder; affinities in DeepDTA's form (KIBA, Davis)
too. All numbers are such that less is more potent: the natural logarithm of a concentration in micromol per litre, so
that 0 is 1 micromol; KIBA's score, of which more is stronger, is negated.

A split is by the molecule for what two predictors learn, so that a judge has seen none of the molecules of the
predictor that it judges, and by the target for what all of them are tested on.
"""

import collections
import csv
import functools
import io
import json
import lzma
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_jax.core.files import read_text
from rl_jax.science.molecules import canonical, fingerprints, read

DATA = Path(__file__).parent / "data"
PARTS = 5  # of molecules: one part makes the targets' ligand profiles, two each teach predictor and judge
ROLES = {"predictor": (1, 2), "judge": (3, 4)}
PROFILE_BITS = 256
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
HASHED = 512  # bins of 3-mers


class Activities(NamedTuple):
    """R measured pairs of N molecules and C targets.

    Attributes:
      smiles: [N], canonical.
      prints: uint8 [N, F], their fingerprints.
      targets: [C], names.
      profiles: float32 [C, P], see `standardised`.
      molecule, target: int32 [R].
      values: float32 [R], less is more potent.
      held_out: bool [C], the targets that no model is trained on.
      part: int32 [N], in 0..4; the molecules' split.
      sequences: [C], the targets' amino acids where they are proteins; else none.
    """

    smiles: list[str]
    prints: np.ndarray
    targets: list[str]
    profiles: np.ndarray
    molecule: np.ndarray
    target: np.ndarray
    values: np.ndarray
    held_out: np.ndarray
    part: np.ndarray
    sequences: Sequence[str] = ()

    def rows(self, role: str) -> np.ndarray:
        """Which pairs teach the "predictor" or the "judge", bool [R]."""
        return np.isin(self.part[self.molecule], ROLES[role]) & ~self.held_out[self.target]

    @property
    def scale(self) -> tuple[float, float]:
        """The least and the largest value of the pairs that are not held out, by which predictors scale to [0, 1]."""
        known = self.values[~self.held_out[self.target]]
        return float(known.min()), float(known.max())


def part_of(smiles: str) -> int:
    """The part of a molecule, by its text alone: the same in every set."""
    return zlib.crc32(smiles.encode()) % PARTS


def standardised(profiles: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Profiles [C, P] with zero mean and unit deviation over those that are known, bool [C]; constant columns are 0.

    Numbers are clipped to 3 deviations: of a held-out target a rare column may lie far outside, where a predictor says
    anything.
    """
    mean, deviation = profiles[known].mean(0), profiles[known].std(0)
    scaled = (profiles - mean) / np.where(deviation > 1e-6, deviation, np.inf)
    return np.clip(scaled, -3.0, 3.0).astype(np.float32)


def _fingerprints_of(smiles: Iterable[str]) -> dict[str, np.ndarray]:
    ordered = sorted(smiles)
    return dict(zip(ordered, fingerprints(ordered), strict=True))


def _assembled(
    pairs: Sequence[tuple[str, str, float]], profiles: Mapping[str, np.ndarray], held_out: Sequence[str],
    prints: Mapping[str, np.ndarray] | None = None, sequences: Mapping[str, str] | None = None,
) -> Activities:
    smiles, targets = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    numbers = {text: number for number, text in enumerate(smiles)}
    places = {name: place for place, name in enumerate(targets)}
    out, prints = np.isin(targets, list(held_out)), prints or _fingerprints_of(smiles)
    return Activities(
        smiles, np.stack([prints[text] for text in smiles]), targets,
        standardised(np.stack([profiles[name] for name in targets]), ~out),
        np.asarray([numbers[pair[0]] for pair in pairs], np.int32),
        np.asarray([places[pair[1]] for pair in pairs], np.int32),
        np.asarray([pair[2] for pair in pairs], np.float32), out, np.asarray([part_of(text) for text in smiles]),
        tuple(sequences[name] for name in targets) if sequences else (),
    )


# ChEMBL: the committed activities


@functools.cache
def chembl_pairs() -> list[tuple[str, str, float]]:
    """(canonical SMILES, target, ln of micromol per litre) of the committed activities: (6 - pChEMBL) ln 10."""
    rows = csv.DictReader(io.StringIO(lzma.decompress((DATA / "activities.csv.xz").read_bytes()).decode()))
    return [(row["smiles"], row["target"], (6.0 - float(row["pchembl"])) * math.log(10.0)) for row in rows]


class Protein(NamedTuple):
    """A target of ChEMBL: its UniProt accession, its name and its amino acids."""

    uniprot: str
    name: str
    sequence: str


@functools.cache
def chembl_proteins() -> dict[str, Protein]:
    """The committed targets by their ChEMBL numbers."""
    rows = csv.DictReader(io.StringIO(lzma.decompress((DATA / "proteins.csv.xz").read_bytes()).decode()))
    return {row["target"]: Protein(row["uniprot"], row["name"], row["sequence"]) for row in rows}


def _of_fewest(targets: int) -> list[tuple[str, str, float]]:
    """The pairs of so many targets, those with the fewest of them; of all where it is 0."""
    counts = collections.Counter(pair[1] for pair in chembl_pairs())
    chosen = set(sorted(counts, key=lambda name: (counts[name], name))[: targets or None])
    return [pair for pair in chembl_pairs() if pair[1] in chosen]


@functools.cache
def ligand_activities(held_out: int, targets: int = 0) -> Activities:
    """ChEMBL with ligand profiles: how often each of 256 hashed substructures occurs in the more potent half of a
    target's ligands of one part of the molecules, which teaches no predictor. They stand in for gene expression.

    Args:
      held_out: how many targets are held out, chosen by their names alone.
      targets: as many as that, of those with the fewest activities; 0 for all.
    """
    pairs, by_target = _of_fewest(targets), {}
    prints = _fingerprints_of({pair[0] for pair in pairs})
    for smiles, target, value in pairs:
        if part_of(smiles) == 0:
            by_target.setdefault(target, []).append((value, smiles))
    profiles = {}
    for target, own in by_target.items():
        potent = np.stack([prints[smiles] for _, smiles in sorted(own)[: -(-len(own) // 2)]])
        profiles[target] = potent.reshape(len(potent), -1, PROFILE_BITS).any(1).mean(0)
    out = sorted(profiles, key=lambda name: zlib.crc32(name.encode()))[:held_out]
    return _assembled([pair for pair in pairs if pair[1] in profiles], profiles, out, prints)


# Proteins


def protein_features(sequence: str) -> np.ndarray:
    """Shares of the 20 amino acids, then how many 3-mers fall into each of 512 hashed bins, as logarithms; [532].

    Raises:
      ValueError: the sequence has fewer than 3 letters.
    """
    if len(sequence) < 3:
        raise ValueError(f"sequence {sequence!r}: give at least 3 amino acids")
    counts = np.zeros(HASHED)
    for start in range(len(sequence) - 2):
        counts[zlib.crc32(sequence[start : start + 3].encode()) % HASHED] += 1
    shares = np.asarray([sequence.count(letter) / len(sequence) for letter in AMINO_ACIDS])
    return np.concatenate([shares, np.log1p(1000.0 * counts / len(sequence))]).astype(np.float32)


def amino_acids(sequences: Sequence[str], length: int) -> np.ndarray:
    """The first `length` letters of each sequence, int32 [C, length]: 1 to 20, 21 for another letter, 0 for none."""
    codes = np.zeros((len(sequences), length), np.int32)
    for row, sequence in zip(codes, sequences, strict=True):
        own = [AMINO_ACIDS.find(letter) + 1 or len(AMINO_ACIDS) + 1 for letter in sequence[:length]]
        row[: len(own)] = own
    return codes


def _of_proteins(
    pairs: Sequence[tuple[str, str, float]], sequences: Mapping[str, str], held_out: Sequence[str]
) -> Activities:
    features = {name: protein_features(sequence) for name, sequence in sequences.items()}
    return _assembled(pairs, features, held_out, sequences=sequences)


@functools.cache
def protein_activities(held_out: tuple[str, ...], targets: int = 0) -> Activities:
    """ChEMBL with features of the proteins' sequences.

    Args:
      held_out: regular expressions of the names of whole families, none of which teaches anything: homologues are
        near duplicates.
      targets: as many as that, of those with the fewest activities; 0 for all.

    Raises:
      ValueError: an expression finds no protein.
    """
    pairs = _of_fewest(targets)
    proteins = {name: chembl_proteins()[name] for name in sorted({pair[1] for pair in pairs})}
    for pattern in held_out:
        if not any(re.search(pattern, own.name) for own in proteins.values()):
            raise ValueError(f"config.activities.families: {pattern!r} is in no name of {DATA / 'proteins.csv.xz'}")
    out = [name for name, own in proteins.items() if any(re.search(pattern, own.name) for pattern in held_out)]
    return _of_proteins(pairs, {name: own.sequence for name, own in proteins.items()}, out)


# Sets that others have, by path


def read_gdsc(folder: Path, held_out: float) -> Activities:
    """GDSC's sensitivities with CCLE's profiles, as DeepCDR keeps them.

    Files: GDSC_IC50.csv (a row a drug "GDSC:<id>", a column a cell line, ln IC50 in micromol per litre),
    223drugs_pubchem_smiles.txt (PubChem number, tab, SMILES), drugs.csv with columns drug_id and PubCHEM (DeepCDR's
    `1.Drug_list...csv`) and profiles.csv (a row a cell line, such as its methylation).

    Args:
      held_out: the share of the cell lines that is held out, chosen by their names.

    Raises:
      FileNotFoundError: a file is not there.
      ValueError: no pair has a drug's structure and a line's profile.
    """
    folder = Path(folder).expanduser()
    texts = {}
    for name in ("GDSC_IC50.csv", "223drugs_pubchem_smiles.txt", "drugs.csv", "profiles.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is not there: see read_gdsc in rl_jax/science/activities.py")
        texts[name] = read_text(folder / name)
    structures = dict(line.split("\t")[:2] for line in texts["223drugs_pubchem_smiles.txt"].splitlines() if line)
    pubchem = {row["drug_id"]: row["PubCHEM"] for row in csv.DictReader(io.StringIO(texts["drugs.csv"]))}
    profiles = {
        row[0]: np.asarray([float(x) if x else 0.0 for x in row[1:]])
        for row in list(csv.reader(io.StringIO(texts["profiles.csv"])))[1:]
    }
    sensitivities = list(csv.reader(io.StringIO(texts["GDSC_IC50.csv"])))
    lines, pairs = sensitivities[0][1:], []
    for row in sensitivities[1:]:
        molecule = read(structures.get(pubchem.get(row[0].removeprefix("GDSC:"), ""), "").strip())
        if molecule is not None:
            text = canonical(molecule)
            pairs += [
                (text, line, float(value)) for line, value in zip(lines, row[1:], strict=True)
                if value not in ("", "NA", "nan") and line in profiles
            ]
    if not pairs:
        raise ValueError(f"{folder}: no sensitivity has both a drug's structure and a cell line's profile")
    names = sorted({pair[1] for pair in pairs}, key=lambda name: zlib.crc32(name.encode()))
    return _assembled(pairs, profiles, names[: math.ceil(held_out * len(names))])


DEEPDTA = {  # matrix of affinities, and what makes a number of which less is stronger
    "kiba": ("kiba_binding_affinity_v2.txt", lambda x: -x),
    "davis": ("drug-target_interaction_affinities_Kd__Davis_et_al.2011v1.txt", lambda nanomol: np.log(nanomol / 1e3)),
}


def read_deepdta(folder: Path, kind: str, held_out: float) -> Activities:
    """Affinities as DeepDTA keeps them: ligands_can.txt, proteins.txt (JSON) and a matrix as text; never its pickles.

    Raises:
      FileNotFoundError: a file is not there.
      ValueError: the matrix is not of as many ligands and proteins.
    """
    folder = Path(folder).expanduser()
    matrix, potency = DEEPDTA[kind]
    for name in ("ligands_can.txt", "proteins.txt", matrix):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is not there: fetch data/{kind} of github.com/hkmztrk/DeepDTA")
    ligands, proteins = (json.loads(read_text(folder / name)) for name in ("ligands_can.txt", "proteins.txt"))
    values = np.loadtxt(folder / matrix, ndmin=2)
    if values.shape != (len(ligands), len(proteins)):
        raise ValueError(f"{folder / matrix} is {values.shape}, of {len(ligands)} ligands and {len(proteins)} proteins")
    pairs = []
    for text, row in zip(ligands.values(), values):
        molecule = read(text)
        if molecule is not None:
            own = canonical(molecule)
            pairs += [(own, name, float(potency(x))) for name, x in zip(proteins, row) if np.isfinite(x)]
    names = sorted(proteins, key=lambda name: zlib.crc32(name.encode()))
    return _of_proteins(pairs, proteins, names[: math.ceil(held_out * len(names))])


# Toxicity and molecules alone


class Toxicity(NamedTuple):
    """Tox21: fingerprints uint8 [N, F] and labels float32 [N, 12], NaN where there is none."""

    prints: np.ndarray
    labels: np.ndarray
    assays: tuple[str, ...]


@functools.cache
def tox21() -> Toxicity:
    """The committed Tox21 set; molecules that RDKit cannot read are left out."""
    import gzip

    rows = list(csv.DictReader(io.StringIO(gzip.decompress((DATA / "tox21.csv.gz").read_bytes()).decode())))
    assays = tuple(name for name in rows[0] if name not in ("mol_id", "smiles"))
    read_rows = [(molecule, row) for row in rows if (molecule := read(max(row["smiles"].split("."), key=len)))]
    labels = [[float(row[name]) if row[name] else np.nan for name in assays] for _, row in read_rows]
    prints = fingerprints(canonical(molecule) for molecule, _ in read_rows)
    return Toxicity(prints, np.asarray(labels, np.float32), assays)


@functools.cache
def drug_like() -> list[str]:
    """30,000 canonical SMILES of MOSES's training set."""
    return lzma.decompress((DATA / "moses.txt.xz").read_bytes()).decode().split()
