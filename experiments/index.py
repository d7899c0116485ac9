"""Writes experiments/README.md, the index of all papers, and the results in the README of each.

    python -m experiments.index

A paper's README begins with its title and one paragraph, the claim. Between the lines `<!-- results:PRESET -->` and
`<!-- end -->` stands what experiments/<paper>/results/PRESET holds: picture, claims, tables, published numbers. Those
files are made by `python -m experiments.reproduce --paper=PAPER --preset=PRESET`; they can be made again from their
scores.npz with --report_only --outdir=experiments/PAPER/results/PRESET.
"""

import json
import re
from pathlib import Path

from rl_jax.reports.tables import NOTES

ROOT = Path(__file__).parent
RESULTS = re.compile(r"<!-- results:(\S+) -->\n.*?<!-- end -->", re.DOTALL)


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


def with_results(folder: Path) -> str:
    """The text of a paper's README with the results between its markers made anew.

    Raises:
      ValueError: a marker names a preset that has no results, or has no end.
    """
    text = (folder / "README.md").read_text()
    found = RESULTS.findall(text)
    if len(found) != text.count("<!-- results:"):
        raise ValueError(f"{folder / 'README.md'}: a <!-- results:PRESET --> has no <!-- end -->")
    return RESULTS.sub(lambda match: _results(folder, match[1]), text)


def _results(folder: Path, preset: str) -> str:
    where = folder / "results" / preset
    if not (where / "table.md").exists():
        raise ValueError(f"{folder / 'README.md'} shows results of {preset!r}, and {where}/table.md is not there")
    page = (where / "table.md").read_text().split(f"\n{NOTES}\n")[0].split("\n", 1)[1].strip()
    files = f"results/{preset}"
    drawn = [name for name in json.loads((where / "report.json").read_text())["files"] if name.endswith(".png")]
    return "\n\n".join([
        f"<!-- results:{preset} -->",
        *(f"![{preset}]({files}/{name})" for name in drawn[:1]),
        re.sub(r"^## ", "#### ", page, flags=re.MULTILINE),
        f"Notes and each seed's scores are in [table.md]({files}/table.md), the record is [scores.npz]({files}/scores.npz).",
        "<!-- end -->",
    ])


def main() -> None:
    for folder in papers():
        (folder / "README.md").write_text(with_results(folder))
    (ROOT / "README.md").write_text(index())


if __name__ == "__main__":
    main()
