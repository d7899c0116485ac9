"""Every notebook runs from its first cell to its last, and is committed with what it showed."""

import ast
import os
from pathlib import Path

import nbclient
import nbformat
import pytest

from rl_jax.language import smollm2

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LANGUAGE = ROOT / "notebooks" / "language.ipynb"


def kinds(notebook) -> list[list[str]]:
    """What each code cell showed: text, figures, by kind."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown.append(sorted({kind for output in cell.outputs for kind in output.get("data", {"text": 0})}))
    return shown


def test_there_is_a_notebook_of_each_suite():
    suites = {
        "offline_rl", "effective_horizon", "dual_rl", "rlcm", "language", "reasoning", "off_policy_evaluation",
        "preferences", "model_based_control", "molecules",
    }
    assert {path.stem for path in NOTEBOOKS} >= suites


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "from top to bottom"
    for cell in committed.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", f"a warning was committed: {output.text[:80]}"
            assert str(Path.home()) not in str(output), "a path of one machine was committed"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_modules_of_a_notebook_have_what_it_imports(path):
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("rl_jax", "experiments", "configs"):
            names = [alias.name for alias in node.names]
            module = __import__(node.module, fromlist=names)  # imports those names that are modules
            assert [name for name in names if not hasattr(module, name)] == [], node.module


def assert_it_runs(path: Path, home: Path) -> None:
    """Runs a notebook in a home of its own, and compares the kinds of what each cell shows."""
    committed = nbformat.read(path, as_version=4)
    fresh = nbformat.from_dict(committed)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    own = {"HOME": str(home), "TMPDIR": str(home), "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    resources = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(fresh, timeout=500, kernel_name="python3", resources=resources)
    client.execute(env=os.environ | own)
    assert kinds(committed) == kinds(fresh)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_its_committed_copy_shows(path, tmp_path):
    # No data set that an earlier run left is found, none is left behind.
    assert_it_runs(path, tmp_path)


@pytest.mark.slow
def test_the_notebook_of_language_runs_with_the_model_that_its_committed_copy_shows(tmp_path):
    fetched = smollm2.location()
    if not fetched.is_file():
        pytest.skip("SmolLM2 was not fetched: `make smollm2`")
    link = tmp_path / fetched.relative_to(Path.home())
    link.parent.mkdir(parents=True)
    link.symlink_to(fetched)
    assert_it_runs(LANGUAGE, tmp_path)
