"""Every notebook runs from its first cell to its last, and is committed with what it showed."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def kinds(notebook) -> list[list[str]]:
    """What each code cell showed: text, figures, by kind."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown.append(sorted({kind for output in cell.outputs for kind in output.get("data", {"text": 0})}))
    return shown


def test_there_is_a_notebook_of_the_offline_suite():
    assert [path.name for path in NOTEBOOKS if path.name == "offline_rl.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_its_committed_copy_shows(path, tmp_path):
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    fresh = nbformat.from_dict(committed)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # A home of its own: no data set that an earlier run left is found, none is left behind.
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    resources = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(fresh, timeout=500, kernel_name="python3", resources=resources)
    client.execute(env=os.environ | own)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "committed as it ran, from top to bottom"
    assert kinds(committed) == kinds(fresh)
    for cell in committed.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", f"a warning was committed: {output.text[:80]}"
            assert str(Path.home()) not in str(output), "a path of one machine was committed"
