"""Writes experiments/README.md, the index of all papers, from the README of each paper's folder.

    python -m experiments.index

A paper's README begins with its title and one paragraph, the claim.
"""

from pathlib import Path

ROOT = Path(__file__).parent


def papers() -> list[Path]:
    """The folders of all papers, in alphabetical order: some have another binary than train.py."""
    return sorted({path.parent for name in ("train.py", "README.md") for path in ROOT.glob(f"*/{name}")})


def index() -> str:
    """The text of the index.

    Raises:
      ValueError: a paper has no README, or one that does not begin with a title and a paragraph.
    """
    rows = []
    for folder in papers():
        readme = folder / "README.md"
        if not readme.exists():
            raise ValueError(f"{readme} is missing: it begins with a title and the claim in one paragraph")
        blocks = readme.read_text().split("\n\n")
        if len(blocks) < 2 or not blocks[0].startswith("# "):
            raise ValueError(f"{readme} does not begin with a title and a paragraph")
        claim = " ".join(blocks[1].split())
        rows.append(f"| [{blocks[0][2:].strip()}]({folder.name}/README.md) | {claim} |")
    return "\n".join(
        ["# Papers", "", "Made by `python -m experiments.index`.", "", "| paper | claim |", "| --- | --- |", *rows, ""]
    )


if __name__ == "__main__":
    (ROOT / "README.md").write_text(index())
