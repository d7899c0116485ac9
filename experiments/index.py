"""Writes experiments/README.md, the index of all papers, and the results in the README of each.

    python -m experiments.index

A paper's README begins with its title, one paragraph, the claim, and the picture that shows it. Between the lines
`<!-- results:PRESET -->` and `<!-- end -->` stands what experiments/<paper>/results/PRESET holds: the picture where it
is not above already, claims, tables, published numbers. These files are made by `python -m experiments.reproduce`;
`--report_only --outdir=experiments/<paper>/results/PRESET` makes them again from the scores.npz that is there.
`<!-- table:FOLDER -->` shows the table.md of a folder beside the README.
"""

import re
from pathlib import Path

from rl_jax.core.files import read_json
from rl_jax.reports.tables import NOTES

ROOT = Path(__file__).parent
MARKED = re.compile(r"<!-- (results|table):(\S+) -->\n.*?<!-- end -->", re.DOTALL)


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
    if len(MARKED.findall(text)) != len(re.findall("<!-- (?:results|table):", text)):
        raise ValueError(f"{folder / 'README.md'}: a <!-- results:PRESET --> has no <!-- end -->")
    return MARKED.sub(lambda match: _shown(folder, *match.groups(), text[: match.start()]), text)


def _shown(folder: Path, kind: str, name: str, above: str) -> str:
    table = folder / ("results" if kind == "results" else "") / name / "table.md"
    if not table.exists():
        raise ValueError(f"{folder / 'README.md'} shows {kind}:{name}, and {table} is not there")
    if kind == "table":
        return f"<!-- table:{name} -->\n\n{table.read_text().strip()}\n\n<!-- end -->"
    return _results(table.parent, name, above)


def _results(where: Path, preset: str, above: str) -> str:
    page = (where / "table.md").read_text().split(f"\n{NOTES}\n")[0].split("\n", 1)[1].strip()
    files = f"results/{preset}"
    drawn = [name for name in read_json(where / "report.json")["files"] if name.endswith(".png")]
    return "\n\n".join([
        f"<!-- results:{preset} -->",
        *(f"![{preset}]({files}/{name})" for name in drawn[:1] if f"({files}/{name})" not in above),
        re.sub(r"^## ", "#### ", page, flags=re.MULTILINE),
        f"Notes and every seed: [table.md]({files}/table.md). The record: [scores.npz]({files}/scores.npz).",
        "<!-- end -->",
    ])


def main() -> None:
    for folder in papers():
        (folder / "README.md").write_text(with_results(folder))
    (ROOT / "README.md").write_text(index())


if __name__ == "__main__":
    main()
