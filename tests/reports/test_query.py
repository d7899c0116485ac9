"""Open RL Benchmark's query: filters, tables, curves and manifest, against closed forms and by its binary."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from rl_jax.data.scores import normalized_score
from rl_jax.reports.compare import Cell, Group, common_grid, improvements, make_cells, total_interval
from rl_jax.reports.filters import parse, select
from rl_jax.reports.query import Query, answer
from rl_jax.reports.scan import scan
from tests.reports.run_folders import SCORE, start, write_run

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = ROOT / "experiments" / "open_rl_benchmark" / "imported"
NAN = float("nan")
BOTH = ("agent.name=iql&cl=IQL", "agent.name=bc&cl=BC")
FILES = {"table.md", "table.csv", "curves.png", "wall.png", "manifest.json"}


def agent(name, **fields):
    return {"agent": {"name": name, **fields}}


@pytest.fixture
def tree(tmp_path):
    """IQL and BC on two tasks: a folder of 3 seeds each, straight lines of score by step."""
    root = tmp_path / "runs"
    t = np.arange(1, 11)[:, None]
    for name, slope in (("iql", 4.0), ("bc", 2.0)):
        for task, shift in (("hopper-medium", 0.0), ("walker2d-medium", 10.0)):
            values = shift + slope * t + np.asarray([[0.0, 1.0, 5.0]])
            config = agent(name) | {"dataset": {"name": task}}
            write_run(root / f"{name}-{task}", values, config=config)
    return root


def ask(root, *filters, out="out", x=(), **fields):
    """Answers a query beside `root`, without figures where they are not what is tested."""
    filters, out = filters or BOTH, Path(root).parent / out
    return answer(Query([str(root)], filters, out=str(out), x=x, repetitions=100, **fields))


def rows(out):
    import pandas

    return pandas.read_csv(Path(out) / "table.csv").set_index(["task", "filter"])


def manifest(out):
    return json.loads((Path(out) / "manifest.json").read_text())


# Filters


def names(root, text):
    return [member.name for member in select(scan([root]), parse(text))]


def test_all_conditions_hold(tmp_path):
    """The authors' offline mode drops the conditions before the user's, and finds nothing for two tags."""
    for name in ("iql", "bc"):
        for tag in (["v1", "wide"], ["v2", "wide"], ["v1"]):
            folder = write_run(tmp_path / f"{name}-{'-'.join(tag)}", [[1.0, 2.0]], config=agent(name))
            (folder / "run.json").write_text(json.dumps({"tag": tag}))
    assert names(tmp_path, "agent.name=iql&tag=v1&seed=1") == ["iql-v1#1", "iql-v1-wide#1"]
    assert names(tmp_path, "seed=1&tag=v1&agent.name=iql") == ["iql-v1#1", "iql-v1-wide#1"]
    assert names(tmp_path, "tag=v1&tag=wide&column=0") == ["bc-v1-wide#0", "iql-v1-wide#0"]
    assert len(names(tmp_path, "tag=v1,v2")) == 12 and len(names(tmp_path, "cl=all")) == 12
    apart = "no run meets all conditions; of 12 runs they hold apart: tag for 8, tag for 4, run for 2"
    with pytest.raises(ValueError, match=apart):
        names(tmp_path, "tag=v1&tag=v2&run=bc-v1")


@pytest.mark.parametrize(
    "condition, found",
    [
        ("run=a", ["a"]), ("run=?", ["a", "b"]), ("run=a,b", ["a", "b"]), ("agent.rate=1e-3", ["a"]),
        ("agent.rate=0.001", ["a"]), ("agent.rate=0.00*", ["a", "b"]), ("agent.wide=true", ["a"]),
        ("agent.wide=False", ["b"]), ("agent.dims=128", ["b"]), ("dataset.name=hopper-*", ["a", "b"]),
        ("git.revision=abc*", ["a"]), ("state=failed", ["b"]), ("agent.note=x%26y%2Cz", ["a"]),
        ("last_step=100", ["a", "b"]), ("library:=mine&library=rl_jax", ["a", "b"]),
    ],
)
def test_a_condition(tmp_path, condition, found):
    config = agent("iql", rate=0.001, wide=True, dims=[256, 256], note="x&y,z")
    write_run(tmp_path / "a", [[1.0]], config=config, starts=[start(revision="abcdef", end={"state": "finished"})])
    config = agent("iql", rate=0.002, wide=False, dims=[256, 128], note="z")
    write_run(tmp_path / "b", [[1.0]], config=config, starts=[start(end={"state": "failed"})])
    if ":=" in condition:
        with pytest.raises(ValueError):
            names(tmp_path, condition)  # what is said of a run takes the place of what it said
        condition = condition.replace("=rl_jax", "=mine")
    assert [name.removesuffix("#0") for name in names(tmp_path, condition)] == found


@pytest.mark.parametrize(
    "text, message",
    [
        ("agent.name", "'agent.name' is not FIELD=VALUE"),
        ("agent.name=&cl=x", "'agent.name=' is not FIELD=VALUE"),
        ("agent.name=iql&&cl=x", "'' is not FIELD=VALUE"),
        ("cl=x&cl=y", "cl stands twice"),
        ("agent.nam=iql", "unknown field 'agent.nam': did you mean agent.name"),
        ("agent.name=iqll", "unknown agent.name 'iqll': did you mean iql"),
        ("agent.name=sac", "unknown agent.name 'sac': known are bc, iql"),
        ("agent.name=iql&metric=eval/normalised_score", f"'eval/normalised_score': did you mean {SCORE}"),
        ("agent.name=iql&by=env", "iql-hopper-medium#0 has no env"),
    ],
)
def test_what_cannot_be_is_named_with_the_near_names(tree, text, message):
    with pytest.raises(ValueError) as info:
        ask(tree, text)
    assert message in str(info.value)
    assert not (tree.parent / "out").exists()


def test_two_filters_of_one_name_and_no_runs_at_all(tree, tmp_path):
    with pytest.raises(ValueError, match="two filters are called 'x': give cl="):
        ask(tree, "agent.name=iql&cl=x", "agent.name=bc&cl=x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there is no run under the roots"):
        ask(tmp_path / "empty")
    write_run(tmp_path / "silent" / "run", np.zeros((0, 1)))
    with pytest.raises(ValueError, match="its runs have logged nothing yet"):
        ask(tmp_path / "silent", "cl=x")


# Tables


@pytest.mark.parametrize("last", [1, 3, 10])
def test_the_mean_of_the_last_values_is_the_closed_form(tree, last):
    ask(tree, last=last)
    table = rows(tree.parent / "out")
    for label, slope in (("IQL", 4.0), ("BC", 2.0)):
        for task, shift in (("hopper-medium", 0.0), ("walker2d-medium", 10.0)):
            # Values t = 10, 9, ... of a straight line; seeds stand 0, 1 and 5 above it.
            cell = table.loc[task, label]
            assert cell["mean"] == pytest.approx(shift + slope * (10 - (last - 1) / 2) + 2.0, rel=1e-14)
            assert cell["std"] == pytest.approx(np.sqrt((4 + 1 + 9) / 2), rel=1e-12), "ddof = 1"
            assert (cell["runs"], cell["first_end"], cell["last_end"]) == (3, 1000, 1000)
    text = (tree.parent / "out" / "table.md").read_text()
    assert "ddof = 1" in text and ("last logged value" if last == 1 else f"last {last} logged values") in text
    kept = manifest(tree.parent / "out")["statistics"]
    assert (kept["values_in_mean"], kept["ddof"]) == (last, 1)


def test_a_copied_tree_gives_the_same_bits(tree, tmp_path):
    ask(tree, last=2)
    shutil.copytree(tree, tmp_path / "elsewhere" / "copied")
    ask(tmp_path / "elsewhere" / "copied", last=2)
    for name in ("table.md", "table.csv"):
        assert (tmp_path / "elsewhere" / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    one, other = manifest(tmp_path / "out"), manifest(tmp_path / "elsewhere" / "out")
    assert one.pop("query") != other.pop("query"), "they name their roots"
    assert one == other
    # So does the table that Parquet kept of it.
    ask(tree, last=2, parquet=str(tmp_path / "kept.parquet"))
    ask(tmp_path / "kept.parquet", last=2, out="from_parquet")
    for name in ("table.md", "table.csv"):
        assert (tmp_path / "from_parquet" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_seed_that_is_gone_is_gone_everywhere(tmp_path):
    root = tmp_path / "runs"
    for seed in range(3):
        write_run(root / f"seed{seed}", [[float(seed + 1)]], seed=seed)
    ask(root, "cl=all")
    before, table = manifest(tmp_path / "out"), rows(tmp_path / "out")
    assert [run["run"] for run in before["filters"][0]["runs"]] == ["seed0#0", "seed1#0", "seed2#0"]
    assert [run["value"] for run in before["filters"][0]["runs"]] == [1.0, 2.0, 3.0]
    shutil.rmtree(root / "seed2")
    ask(root, "cl=all")
    assert [run["run"] for run in manifest(tmp_path / "out")["filters"][0]["runs"]] == ["seed0#0", "seed1#0"]
    after = rows(tmp_path / "out").loc["hopper-medium", "all"]
    assert (table.loc["hopper-medium", "all"]["mean"], after["mean"]) == (2.0, 1.5)
    assert (table.loc["hopper-medium", "all"]["runs"], after["runs"]) == (3, 2)
    assert "| hopper-medium | 1.500 ± 0.707 (2) |" in (tmp_path / "out" / "table.md").read_text()


def test_what_a_second_pass_replaced_is_neither_in_the_table_nor_in_the_curve(tmp_path):
    root = tmp_path / "runs"
    write_run(root / "run", [[1.0], [2.0], [3.0], [7.0]], steps=[100, 200, 300, 200])
    ask(root, "cl=x", last=10, x=("step",))
    assert rows(tmp_path / "out").loc["hopper-medium", "x"]["mean"] == 4.0
    kept = manifest(tmp_path / "out")
    assert "run#0: its steps go back from 300 to 200: 2 earlier values" in " ".join(kept["remarks"])
    assert kept["grids"]["curves.png"] == {"hopper-medium": {"x": {"begin": 100.0, "end": 200.0, "points": 2}}}


def test_failed_runs_are_counted_and_said(tmp_path):
    root = tmp_path / "runs"
    write_run(root / "good", [[1.0, 3.0]] * 10, config={"num_seeds": 2})
    failed = {"state": "failed", "step": 300, "error": "NonFiniteError: x"}
    write_run(root / "short", [[5.0]] * 3, seed=2, starts=[start(end=failed)])
    write_run(root / "silent", np.zeros((0, 1)), seed=3, starts=[start(end=failed | {"step": 0})])
    write_run(root / "again", [[7.0]] * 10, seed=1, config=agent("iql", expectile=0.9))
    ask(root, "cl=IQL", last=5)
    table = rows(tmp_path / "out").loc["hopper-medium", "IQL"]
    assert (table["runs"], table["mean"], table["without_value"]) == (4, 4.0, 1)
    assert (table["first_end"], table["last_end"]) == (300, 1000)
    said = "\n".join(manifest(tmp_path / "out")["remarks"])
    for part in (
        "1 of 5 runs logged no value and are not in the mean: silent#0 (failed)",
        "in the mean and not finished: short failed at step 300",
        "the runs end at different steps, 300 to 1000",
        "a run has 3 of the 5 values asked for",
        "several runs have the seed 1",
        "the runs differ in agent.expectile: 0.9, absent",
    ):
        assert part in said and part in (tmp_path / "out" / "table.md").read_text(), part
    records = {run["run"]: run for run in manifest(tmp_path / "out")["filters"][0]["runs"]}
    assert records["silent#0"]["state"] == "failed" and records["silent#0"]["value"] is None
    assert records["short#0"]["last_step"] == 300 and records["short#0"]["values_in_mean"] == 3
    # And who asks for finished runs gets those.
    assert ask(root, "state=finished&cl=IQL")["runs"] == {"IQL": 3}


def test_a_value_that_is_not_finite_is_not_left_out(tmp_path):
    write_run(tmp_path / "runs" / "a", [[1.0, 2.0], [3.0, NAN]])
    assert np.isnan(ask(tmp_path / "runs", "cl=x")["mean"]["x"]["hopper-medium"])
    assert "the last value is not finite: a#1" in (tmp_path / "out" / "table.md").read_text()
    assert "a value on hopper-medium is not finite" in (tmp_path / "out" / "table.md").read_text()


def test_a_metric_that_all_columns_share_counts_once(tmp_path):
    lines = [{"step": 100, "time/updates_per_s": 7.0}]
    for seed in (0, 3):
        write_run(tmp_path / "runs" / f"s{seed}", [[1.0, 2.0, 3.0]], seed=seed, lines=lines)
    ask(tmp_path / "runs", "cl=x", metric="time/updates_per_s")
    assert rows(tmp_path / "out").loc["hopper-medium", "x"]["runs"] == 2


# Aggregates


def cells_of(**scores):
    """label -> values [S, T] as cells."""
    made = {}
    for label, values in scores.items():
        for task, column in enumerate(np.asarray(values, np.float64).T):
            made[f"task{task}", label] = Cell(f"task{task}", label, (), (), column, np.ones(len(column), int))
    return made


@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (2, 1), (10, 6)])
def test_the_iqm_is_that_of_rliable_and_of_its_definition(shape):
    metrics = pytest.importorskip("rliable.metrics")
    scores = np.random.default_rng(sum(shape)).normal(50, 20, shape)
    total = total_interval(cells_of(x=scores), "x", comparable=True, repetitions=2000)
    ordered = np.sort(scores, axis=None)
    cut = ordered.size // 4
    assert total.value == pytest.approx(ordered[cut : ordered.size - cut].mean(), rel=1e-12)
    assert total.value == pytest.approx(metrics.aggregate_iqm(scores), rel=1e-12)
    assert total.low <= total.value <= total.high


def test_the_interval_is_that_of_resampling_each_task_apart():
    scores = np.random.default_rng(1).normal([20.0, 60.0, 90.0], 5.0, (8, 3))
    total = total_interval(cells_of(x=scores), "x", comparable=True, repetitions=2000)
    draws = np.random.default_rng(2).integers(8, size=(20_000, 8, 3))
    resampled = np.sort(scores[draws, np.arange(3)].reshape(20_000, -1), axis=1)[:, 6:-6].mean(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert [total.low, total.high] == pytest.approx([low, high], abs=0.05 * (high - low))


def test_a_clear_winner_wins_by_both_statistics():
    rng = np.random.default_rng(0)
    cells = cells_of(good=rng.normal(60, 5, (5, 3)), bad=rng.normal(40, 5, (5, 3)))
    good, bad = (total_interval(cells, label, comparable=True, repetitions=500) for label in ("good", "bad"))
    (pair, chance), = improvements(cells, ["good", "bad"], 500).items()
    assert pair == ("good", "bad") and good.low > bad.high and chance.low > 0.5
    pairs = [
        (cells[f"task{t}", "good"].values[:, None] > cells[f"task{t}", "bad"].values[None]).mean() for t in range(3)
    ]
    assert chance.value == pytest.approx(np.mean(pairs), rel=1e-12)


def test_why_there_is_no_aggregate(tree):
    shutil.rmtree(tree / "bc-hopper-medium")
    write_run(tree / "more", [[1.0]], seed=9)
    out = ask(tree, "agent.name=iql&cl=IQL", "agent.name=bc&cl=BC", "run=iql*&seed=0&cl=one")
    text = (tree.parent / "out" / "table.md").read_text()
    assert "IQL: no IQM of all runs: the tasks have different numbers of runs (4 on hopper-medium, 3 on walker" in text
    assert "BC: no IQM of all runs: no run on hopper-medium" in text and "one run a task has no interval" in text
    assert out["iqm"] == {"IQL": None, "BC": None, "one": None} and "P(" not in text


def test_returns_of_several_tasks_need_a_scale(tree):
    out = ask(tree, "agent.name=iql&cl=IQL", "agent.name=bc&cl=BC")
    assert out["iqm"]["IQL"]["value"] == pytest.approx(np.sort(np.r_[40, 41, 45, 50, 51, 55])[1:-1].mean())
    for path in tree.glob("*/metrics.jsonl"):
        path.write_text(path.read_text().replace(SCORE, "eval/return"))
    assert ask(tree, metric="eval/return")["iqm"] == {"IQL": None, "BC": None}
    assert "every task has its own scale: give --normalize" in (tree.parent / "out" / "table.md").read_text()


def test_constants_of_a_normalisation_are_kept_and_can_be_given_again(tree):
    ask(tree, normalize="minmax")
    kept = manifest(tree.parent / "out")["normalisation"]
    # Over all runs shown: BC's lowest final value is 0, IQL's highest 100.
    assert kept == {"hopper-medium": [20.0, 45.0], "walker2d-medium": [30.0, 55.0]}
    first = ask(tree, normalize="minmax")["mean"]["IQL"]
    assert first == pytest.approx({"hopper-medium": 88.0, "walker2d-medium": 88.0})
    # With fewer runs shown minmax gives other scores, the kept constants the same ones.
    alone = ask(tree, "agent.name=iql&cl=IQL", normalize="minmax", out="alone")["mean"]["IQL"]
    assert alone == pytest.approx({"hopper-medium": 40.0, "walker2d-medium": 40.0})
    path = str(tree.parent / "out" / "manifest.json")
    again = ask(tree, "agent.name=iql&cl=IQL", normalize=path, out="again")
    assert again["mean"]["IQL"] == first and manifest(tree.parent / "again")["normalisation"] == kept
    constants = tree.parent / "constants.json"
    constants.write_text('{"hopper-medium": [0, 50]}')
    with pytest.raises(ValueError, match="unknown task of the normalisation 'walker2d-medium'"):
        ask(tree, normalize=str(constants))
    for text, message in (('{"hopper-medium": 3}', "hopper-medium is 3: give"), ("[1]", "give"), ("{", "is damaged")):
        constants.write_text(text)
        with pytest.raises(ValueError, match=f"constants.json.*{message}"):
            ask(tree, normalize=str(constants))
    with pytest.raises(ValueError, match="neither one of none, reference, minmax nor a JSON file"):
        ask(tree, normalize="maxmin")
    with pytest.raises(ValueError, match="normalising hopper-medium needs two values"):
        ask(tree, "run=iql-hopper*&seed=0&cl=x", normalize="minmax")


def test_reference_is_the_normalised_score_of_the_task(tree):
    mean = ask(tree, normalize="reference")["mean"]["IQL"]
    hopper, walker = normalized_score("Hopper-v4", 42.0), normalized_score("Walker2d-v4", 52.0)
    assert mean == pytest.approx({"hopper-medium": hopper, "walker2d-medium": walker}, rel=1e-12)


# Curves


def line(x, slope=2.0, shift=1.0):
    x = np.asarray(x, np.float64)
    return x, slope * x + shift


def test_curves_of_one_grid_keep_their_values():
    x, y = np.asarray([10, 20, 40]), np.asarray([3.0, -1.0, 7.5])
    grid, values = common_grid([(x, y), (x, 2 * y)])
    np.testing.assert_array_equal(grid, x)
    np.testing.assert_array_equal(values, np.stack([y, 2 * y], 1))


def test_curves_end_with_the_shortest_and_begin_with_the_latest():
    curves = [line(np.arange(0, 101, 10)), line(np.arange(5, 61, 5), slope=-1.0), line(np.arange(0, 1001, 25))]
    grid, values = common_grid(curves)
    assert grid[0] == 5 and grid[-1] == 60, "nothing is extrapolated"
    assert set(grid) == set(np.arange(5, 61, 5))
    # Straight lines: interpolation between a run's own points is exact.
    np.testing.assert_allclose(values, np.stack([2 * grid + 1, -grid + 1, 2 * grid + 1], 1), rtol=1e-14)
    fine, _ = common_grid([line(np.arange(5001)), line(np.arange(4001))], points=100)
    assert len(fine) == 100 and fine[0] == 0 and fine[-1] == 4000


def test_curves_that_cannot_be_laid_together():
    grid, values = common_grid([line([0, 10]), line([20, 30])])
    assert len(grid) == 0 and values.shape == (0, 2)
    grid, values = common_grid([(np.arange(4), np.asarray([1.0, 2.0, NAN, 4.0])), line(np.arange(4))])
    assert grid.tolist() == [0, 1], "a curve ends before a value that is not finite"
    grid, values = common_grid([(np.asarray([2, 1, 2]), np.asarray([4.0, 1.0, 8.0]))])
    assert values[:, 0].tolist() == [1.0, 6.0], "several values of one step count with their mean"


def test_the_figures_show_what_the_manifest_says(tree, monkeypatch):
    from matplotlib.figure import Figure

    lines = [{"step": s, "system/cpu_percent": 50.0 + s, "time/wall_seconds": s / 10} for s in (100, 200)]
    write_run(tree / "short", [[1.0, 2.0]] * 4, config=agent("iql"), seed=3, lines=lines)
    figures = {}
    save = Figure.savefig

    def keep(self, path, **arguments):
        figures[Path(path.name).name.split(".png")[0].lstrip(".") + ".png"] = self
        save(self, path, **arguments)

    monkeypatch.setattr(Figure, "savefig", keep)
    ask(tree, x=["step", "wall"])
    out = tree.parent / "out"
    kept = manifest(out)["grids"]
    hopper, walker = figures["curves.png"].axes[:2]
    iql, bc = (drawn.get_xydata() for drawn in hopper.lines)
    assert iql[-1, 0] == 400 and bc[-1, 0] == 1000, "IQL's curve ends with its shortest run"
    np.testing.assert_allclose(iql[:, 1], [(3 * 4 * t + 6 + 1 + 2) / 5 for t in range(1, 5)])
    assert kept["curves.png"]["hopper-medium"]["IQL"] == {"begin": 100.0, "end": 400.0, "points": 4}
    np.testing.assert_allclose(figures["wall.png"].axes[0].lines[0].get_xdata(), [10, 20, 30, 40])
    assert figures["wall.png"].axes[1].get_xlabel() == "wall-clock seconds"
    assert (hopper.get_title(), walker.get_title()) == ("hopper-medium", "walker2d-medium")
    system = figures["system.png"].axes[0]
    assert system.get_title() == "system/cpu_percent"
    np.testing.assert_allclose(system.lines[0].get_xydata(), [[10, 150], [20, 250]])
    # A later query leaves no figure of an earlier one.
    ask(tree, "agent.name=bc&cl=BC", x=["step"])
    assert {path.name for path in out.iterdir()} == FILES - {"wall.png"}


# Other libraries


def test_library_against_library(tmp_path):
    """Ours, CORL's by TensorBoard and a third's by W&B: three metrics' names, one table."""
    root = tmp_path / "runs"
    write_run(root / "ours", [[10.0, 20.0], [30.0, 50.0]])
    for seed, end in enumerate((44.0, 46.0)):
        writer = SummaryWriter(str(root / "corl" / f"iql-{seed}"))
        for step, value in ((100, 1.0), (200, end)):
            writer.add_scalar("d4rl_normalized_score", value, step, walltime=2e9 + step)
        writer.close()
    (root / "corl" / "run.json").write_text('{"library": "CORL", "task": "hopper-medium", "run_name": "iql-{seed}"}')
    (root / "third.csv").write_text('"Step","quick-wolf - score","shy-owl - score"\n100,1,2\n200,7,9\n')
    ask(
        root, "library=rl_jax&cl=ours", "library=CORL&metric=d4rl_normalized_score&cl=CORL",
        "run=quick-*,shy-*&task:=hopper-medium&metric=score&cl=third", x=["wall"],
    )
    table = rows(tmp_path / "out").loc["hopper-medium"]
    assert table["mean"].to_dict() == {"ours": 40.0, "CORL": 45.0, "third": 8.0}
    assert table["runs"].tolist() == [2, 2, 2]
    assert manifest(tmp_path / "out")["remarks"] == []
    assert manifest(tmp_path / "out")["grids"]["wall.png"]["hopper-medium"].keys() == {"ours"} | {"CORL"}
    assert not (tmp_path / "out" / "system.png").exists()


def test_the_imported_tables_are_their_sources():
    """The means that SOURCE.md of the policies and of the histories states."""
    runs = scan([IMPORTED])
    assert len(runs) == 75 + 6

    def means(text, last):
        one = parse(text)
        cells = make_cells([Group(one, select(runs, one), "eval/return", "task")], last)
        return {task: round(cell.mean) for (task, _), cell in cells.items()}

    for name, expected in {"a2c": 799, "sac": 1108, "ppo": 2438, "trpo": 3470}.items():
        assert means(f"agent.name={name}&task=Hopper-v4", 10) == {"Hopper-v4": expected}
    assert means("agent.name=tqc&task=HalfCheetah-v4", 10) == {"HalfCheetah-v4": 12137}
    ends = means("agent.name=TRPO&task=Hopper-v4,Walker2d-v4,HalfCheetah-v4,Ant-v4", 1)
    assert ends == {"Hopper-v4": 3728, "Walker2d-v4": 5410, "HalfCheetah-v4": 4162, "Ant-v4": 3850}
    history = next(run for run in runs if run.name.endswith("TRPO__Hopper-v4")).find("eval/return", 0)
    assert dict(zip(history.steps.tolist(), history.values.round().tolist()))[40] == 2697.0


# The binary


def binary(*args, cwd=ROOT):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments.open_rl_benchmark.query", *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_the_binary_answers_with_files_and_one_json_line(tree, tmp_path):
    done = binary(
        "--root=runs", "--filters=agent.name=iql&cl=IQL", "--filters=agent.name=bc&cl=BC", "--last=3", "--out=report",
        "--parquet=report/long.parquet", cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (said,) = map(json.loads, done.stdout.splitlines())
    assert said["runs"] == {"IQL": 6, "BC": 6} and said["rows"] == 4 * 3 * 10 and said["remarks"] == 0
    assert said["mean"]["IQL"]["hopper-medium"] == pytest.approx(38.0)
    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES | {"long.parquet"}
    for name in ("curves.png", "wall.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
    assert "| hopper-medium | 38.00 ± 2.65 (3) | 20.00 ± 2.65 (3) |" in done.stderr
    assert {"rl_jax", "numpy", "pyarrow"} <= manifest(tmp_path / "report")["versions"].keys()


def test_bad_input_is_one_clear_line(tree, tmp_path):
    done = binary("--filters=agent.name=iqll", "--out=report", cwd=tmp_path)
    assert done.returncode == 1 and "did you mean iql" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and not (tmp_path / "report").exists()


def test_lower_may_be_better():
    cells = cells_of(a=[[1.0], [2.0]], b=[[3.0], [4.0]])
    (one,) = improvements(cells, ["a", "b"], 100).values()
    (other,) = improvements(cells, ["a", "b"], 100, "lower").values()
    assert (one.value, other.value) == (0.0, 1.0)


def test_the_table_that_the_readme_shows_of_imported_runs_is_made_from_them(tmp_path):
    filters = [
        f"library={library}&task=Hopper*,HalfC*,Walker*&cl={label}"
        for library, label in (("imitation", "imitation TRPO"), ("rl-trained-agents&agent.name=trpo", "SB3 TRPO"))
    ]
    answer(Query([str(IMPORTED)], filters, "eval/return", normalize="reference", last=3, x=(), out=str(tmp_path)))
    shown = IMPORTED.parent / "example" / "imported" / "table.md"
    assert (tmp_path / "table.md").read_text() == shown.read_text(), "make it again with the command of the README"
