"""Runs as data: what a scan finds and says of them, other trackers' files, the long table and its Parquet file."""

import csv
import json
import math
import struct

import numpy as np
import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboardX.record_writer import masked_crc32c

from rl_jax.core import loop
from rl_jax.core.experiment import Metric
from rl_jax.core.metrics import read_metrics
from rl_jax.core.program import Evaluation
from rl_jax.reports.runs import COLUMNS, long_table, read_table, write_table
from rl_jax.reports.scan import scan
from tests.core import toys
from tests.reports.run_folders import SCORE, start, write_run

NAN = float("nan")


def one(root):
    (run,) = scan([root])
    return run


# Folders of core.loop


def test_a_run_of_the_loop_describes_itself(tmp_path):
    outcomes = {"score": np.asarray([[1.0], [2.0]])}
    experiment = toys.experiment(
        evaluate=lambda state, resident, key: Evaluation(outcomes={"score": outcomes["score"] * int(state.step)})
    )._replace(inputs={"checksum": "abc"}, headline=Metric("eval/score", "score"))
    fields = {"num_seeds": 2, "seed": 7, "loop.eval_every": 10, "mesh.data": 1, "mesh.seed": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", lambda **sizes: loop_mesh())
        loop.run(experiment, toys.config(**fields), tmp_path / "some" / "run")
    run = one(tmp_path)
    said = run.attributes
    assert run.name == "some/run" and [column["seed"] for column in run.columns] == [7, 8]
    assert (said["library"], said["state"], said["last_step"], said["num_steps"]) == ("rl_jax", "finished", 20, 20)
    assert said["loop.eval_every"] == 10 and said["inputs.checksum"] == "abc" and said["devices.platform"] == "cpu"
    (begun,) = json.loads((tmp_path / "some/run/provenance.json").read_text())["starts"]
    assert said["git.revision"] == begun["git"]["revision"] and said["packages.jax"] == begun["packages"]["jax"]
    assert said["command"] == " ".join(begun["command"]) and said["machine.cores"] == begun["machine"]["cores"]
    lines = read_metrics(tmp_path / "some/run/metrics.jsonl")
    for column in (0, 1):
        score = run.find("eval/score", column)
        assert score.steps.tolist() == [10, 20] and score.values.tolist() == [10 * (column + 1), 20 * (column + 1)]
        assert score.wall_seconds.tolist() == [x["time/wall_seconds"] for x in lines if "eval/score" in x]
        loss = run.find("loss", column)
        assert loss.values.tolist() == [line["loss"][column] for line in lines if "loss" in line]
    load = run.find("system/memory_gb", 1)
    assert load.column is None and load.values.tolist() == [x["system/memory_gb"] for x in lines if "loss" in x]
    assert ("time/wall_seconds", None) not in run.series, "it is the clock of every row, not a metric"


def loop_mesh():
    import jax

    from rl_jax.core.mesh import make_mesh

    return make_mesh(seed=1, data=1, model=1, devices=jax.devices()[:1])


@pytest.mark.parametrize(
    "ends, state",
    [
        ([{"state": "finished", "step": 200}], "finished"),
        ([{"state": "preempted", "step": 100}], "preempted"),
        ([{"state": "preempted", "step": 100}, {"state": "finished", "step": 200}], "finished"),
        ([{"state": "failed", "step": 150, "error": "NonFiniteError: loss"}], "failed"),
        ([None], "running"),
        ([{"state": "preempted", "step": 100}, None], "running"),
    ],
)
def test_the_state_is_that_of_the_last_start(tmp_path, ends, state):
    starts = [start(**({"end": end} if end else {})) for end in ends]
    write_run(tmp_path / "run", [[1.0], [2.0]], starts=starts, config={"num_steps": 300})
    said = one(tmp_path).attributes
    assert said["state"] == state and said["last_step"] == 200 and said["starts"] == len(ends)
    assert said.get("error") == ("NonFiniteError: loss" if state == "failed" else None)


def test_a_run_of_a_release_without_ends_is_finished_at_its_last_step(tmp_path):
    write_run(tmp_path / "whole", [[1.0], [2.0]], starts=[start()])
    write_run(tmp_path / "half", [[1.0], [2.0]], starts=[start()], config={"num_steps": 300})
    assert {run.name: run.attributes["state"] for run in scan([tmp_path])} == {"whole": "finished", "half": "running"}


def test_what_changed_between_starts_is_said_and_an_idle_start_is_not_one(tmp_path):
    starts = [start(revision="a"), start(100, revision="b"), start(200, revision="c")]
    write_run(tmp_path / "run", [[1.0], [2.0]], starts=starts)
    said = one(tmp_path).attributes
    assert said["git.revision"] == "a -> b" and said["packages.jax"] == "0.10.2"


def test_a_run_that_logged_nothing_is_there(tmp_path):
    folder = write_run(tmp_path / "run", np.zeros((0, 2)), starts=[start(end={"state": "failed", "step": 0})])
    for _ in range(2):
        run = one(tmp_path)
        assert run.series == {} and len(run.columns) == 2
        assert run.attributes["state"] == "failed" and run.attributes["last_step"] == 0
        (folder / "metrics.jsonl").unlink(missing_ok=True)


def test_swept_fields_belong_to_their_columns(tmp_path):
    runs = [{"seed": seed, "agent.expectile": x} for x in (0.5, 0.9) for seed in (3, 4)]
    config = {"num_seeds": 2, "seed": 3, "agent": {"name": "iql", "expectile": 0.7}}
    write_run(tmp_path / "run", [[1.0, 2.0, 3.0, 4.0]], config=config, starts=[start(runs=runs)])
    run = one(tmp_path)
    assert [dict(column) for column in run.columns] == runs and "agent.expectile" not in run.attributes
    table = long_table([run])
    rows = table.select(["seed", "agent.expectile", "value"]).to_pydict()
    assert rows == {"seed": [3, 4, 3, 4], "agent.expectile": [0.5, 0.5, 0.9, 0.9], "value": [1.0, 2.0, 3.0, 4.0]}


def test_nulls_are_not_finite_and_a_line_in_the_making_is_passed_over(tmp_path):
    folder = write_run(tmp_path / "run", [[1.0, NAN], [3.0, 4.0]])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 300, "eval/norm')
    run = one(tmp_path)
    np.testing.assert_array_equal(run.find(SCORE, 1).values, [NAN, 4.0])
    assert run.attributes["last_step"] == 200


@pytest.mark.parametrize(
    "line, message",
    [
        ("nonsense\n", "line 2: not a JSON object with a step"),
        ('{"loss": 1}\n', "line 2: not a JSON object with a step"),
        ('{"step": 200, "loss": [1, 2, 3]}\n', "step 200: loss has 3 values and the run's config says 2"),
        ('{"step": 200, "loss": "low"}\n', "step 200: loss is 'low', not a number"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    folder = write_run(tmp_path / "run", [[1.0, 2.0]])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line + '{"step": 300}\n')
    with pytest.raises(ValueError, match=message) as info:
        one(tmp_path).series
    assert str(folder) in str(info.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("config.json", b"{", "is damaged"),
        ("config.json", b"[" * 100_000, "is damaged"),
        ("config.json", b"\xff{}", "is not text in UTF-8"),
        ("config.json", b"[]", "is not a JSON object"),
        ("config.json", b'{"num_seeds": 1, "num_steps": 1}', "seed is missing"),
        ("config.json", b'{"seed": "0", "num_seeds": 1, "num_steps": 1}', "seed is '0', not a whole number"),
        ("config.json", b'{"seed": 0, "num_seeds": 1000000000000, "num_steps": 1}', "num_seeds is 1000000000000"),
        ("config.json", b'{"seed": 0, "num_seeds": 0, "num_steps": 1}', "num_seeds is 0"),
        ("provenance.json", b"{}", "starts is missing"),
        ("provenance.json", b'{"starts": []}', "it names no start"),
        ("provenance.json", b'{"starts": [3]}', "a start is 3, not an object"),
        ("provenance.json", json.dumps({"starts": [start(command="x")]}).encode(), "command is 'x', not a list"),
        ("provenance.json", json.dumps({"starts": [start(end=3)]}).encode(), "end is 3, not an object"),
        ("provenance.json", json.dumps({"starts": [start(runs=[{}])]}).encode(), "seed is missing"),
        ("run.json", b'{"run_name": 3}', "run_name is 3, not a text"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, name, content, message):
    (write_run(tmp_path / "run", [[1.0]]) / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"run/{name}.*{message}"):
        scan([tmp_path])


# What a run.json adds


def test_notes_hold_for_the_folders_below_and_the_nearer_one_wins(tmp_path):
    write_run(tmp_path / "a" / "one", [[1.0]])
    write_run(tmp_path / "b" / "two", [[1.0]])
    (tmp_path / "run.json").write_text('{"tag": ["v1", "wide"], "team": {"name": "x"}}')
    (tmp_path / "b" / "run.json").write_text('{"tag": "v2", "task": "mine"}')
    first, second = (run.attributes for run in scan([tmp_path]))
    assert (first["tag"], first["task"], first["team.name"]) == (["v1", "wide"], "hopper-medium", "x")
    assert (second["tag"], second["task"], second["team.name"]) == ("v2", "mine", "x")


@pytest.mark.parametrize(
    "notes, message",
    [
        ('{"library": "CORL"}', "says library is 'CORL' and the run recorded 'rl_jax'"),
        ('{"agent": {"name": "td3"}}', "says agent.name is 'td3' and the run recorded 'iql'"),
        ('{"seed": 5}', "says seed is 5 and the run recorded 0"),
        ('{"metric": "x"}', "'metric' is a name of the table itself"),
        ("[]", "is not a JSON object"),
        ("{", "is damaged"),
    ],
)
def test_notes_may_not_contradict_a_run(tmp_path, notes, message):
    write_run(tmp_path / "run", [[1.0]])
    (tmp_path / "run.json").write_text(notes)
    with pytest.raises(ValueError, match=message):
        scan([tmp_path])


def test_notes_without_runs_are_an_error(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "run.json").write_text('{"library": "CORL"}')
    (tmp_path / "export" / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="export/run.json describes runs, and there are none"):
        scan([tmp_path])


def test_roots_that_overlap_count_once_and_two_runs_of_one_name_are_an_error(tmp_path):
    write_run(tmp_path / "a" / "run", [[1.0]])
    write_run(tmp_path / "b" / "run", [[2.0]])
    assert [run.name for run in scan([tmp_path, tmp_path / "a"])] == ["a/run", "b/run"]
    with pytest.raises(ValueError, match="two runs are called run: .*a/run and .*b/run; scan a folder above both"):
        scan([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match="--root=nowhere: there is no such"):
        scan(["nowhere"])


# TensorBoard


def board(folder, points, *, purge=None, suffix="", tag="charts/return", begin=1000.0):
    writer = SummaryWriter(str(folder), purge_step=purge, filename_suffix=suffix)
    for step, value in points:
        writer.add_scalar(tag, value, step, walltime=begin + step)
    writer.close()


def record(event):
    data = event.SerializeToString()
    header = struct.pack("<Q", len(data))
    return header + struct.pack("<I", masked_crc32c(header)) + data + struct.pack("<I", masked_crc32c(data))


def test_event_files_of_tensorboard(tmp_path):
    folder = tmp_path / "sac__Hopper-v4__3"
    board(folder, [(0, 1.0), (5, 2.0), (5, 4.0), (10, float("inf"))])
    (tmp_path / "run.json").write_text('{"library": "CleanRL", "run_name": "{agent.name}__{task}__{seed}"}')
    run = one(tmp_path)
    assert run.name == folder.name and run.columns == ({"seed": 3},)
    assert run.attributes == {"library": "CleanRL", "agent.name": "sac", "task": "Hopper-v4", "source": "tensorboard"}
    series = run.find("charts/return", 0)
    assert series.steps.tolist() == [0, 5, 5, 10]
    np.testing.assert_array_equal(series.values, [1, 2, 4, NAN])
    # tensorboardX writes a file's first event, its version, at the present: the clock starts with the earliest one.
    assert np.diff(series.wall_seconds).tolist() == [5, 0, 5]


@pytest.mark.parametrize("purge", [10, None])
def test_what_a_restart_writes_again_replaces_what_was_there(tmp_path, purge):
    board(tmp_path / "run", [(0, 1.0), (10, 2.0), (20, 3.0)], suffix=".a")
    first = next((tmp_path / "run").iterdir())
    first.rename(first.with_name("events.out.tfevents.1.host.a"))
    board(tmp_path / "run", [(10, 7.0), (15, 8.0)], suffix=".b", purge=purge)
    series = one(tmp_path).find("charts/return", 0)
    assert series.steps.tolist() == [0, 10, 15] and series.values.tolist() == [1.0, 7.0, 8.0]


def boards(folder, *files, **kwargs):
    """Event files that are called by their numbers."""
    for number, points in enumerate(files):
        board(folder, points, suffix=".new", **kwargs)
        path = next(path for path in folder.iterdir() if path.name.endswith(".new"))
        path.rename(path.with_name(f"events.out.tfevents.{number}"))


def test_steps_that_go_back_leave_a_remark(tmp_path):
    board(tmp_path / "back", [(0, 1.0), (10, 2.0), (20, 3.0), (10, 7.0)])
    boards(tmp_path / "on", [(0, 1.0), (10, 2.0), (20, 3.0)], [(20, 5.0)])
    back, on = (run.find("charts/return", 0) for run in scan([tmp_path]))
    assert back.steps.tolist() == [0, 10] and back.values.tolist() == [1.0, 7.0]
    assert back.remarks == ("its steps go back from 20 to 10: 2 earlier values of charts/return are replaced",)
    assert on.steps.tolist() == [0, 10, 20] and on.values.tolist() == [1.0, 2.0, 5.0]
    (remark,) = on.remarks
    assert remark.startswith("events.out.tfevents.1 begins at step 20 again (two runs need a folder each): 1 earlier")


def test_event_files_that_begin_anew_are_runs_of_their_own(tmp_path, caplog):
    """Of three seeds the third logs its first episode later, as runs do whose episodes end by chance."""
    lates = enumerate((0, 0, 5))
    seeds = [[(late + 10 * i, 100.0 * seed + i) for i in range(20)] for seed, late in lates]
    boards(tmp_path / "two", *seeds, [])
    runs = scan([tmp_path])
    assert [run.name for run in runs] == ["two", "two (2)", "two (3)"]
    found = [run.find("charts/return", 0) for run in runs]
    assert [series.values.tolist() for series in found] == [[value for _, value in seed] for seed in seeds]
    assert [series.remarks for series in found] == [()] * 3 and "are read as 3 runs" in caplog.text
    boards(tmp_path / "one", [(0, 1.0), (10, 2.0)])
    board(tmp_path / "one", [(0, 3.0)], tag="losses/critic", suffix=".z")  # other metrics are of the same run
    assert set(scan([tmp_path / "one"])[0].series) == {("charts/return", 0), ("losses/critic", 0)}


def test_a_file_that_goes_on_with_one_of_two_runs_is_an_error(tmp_path):
    start, rest = [(0, 1.0), (10, 2.0)], [(10, 3.0), (20, 4.0)]
    boards(tmp_path / "two", start, start, rest)
    with pytest.raises(ValueError, match="two/events.out.tfevents.2 goes on with one of 2 runs .*: move the files"):
        scan([tmp_path])


def test_tensors_of_tensorflow_2_are_numbers_and_others_are_passed_over(tmp_path):
    tensors = [
        TensorProto(dtype=1, tensor_content=struct.pack("<f", 1.5)),
        TensorProto(dtype=1, float_val=[2.5]),
        TensorProto(dtype=2, tensor_content=struct.pack("<d", 0.1)),
        TensorProto(dtype=7, string_val=[b"text"]),
        TensorProto(dtype=1, float_val=[1, 2], tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=2)])),
    ]
    events = [
        Event(wall_time=50 + step, step=step, summary=Summary(value=[Summary.Value(tag="loss", tensor=tensor)]))
        for step, tensor in enumerate(tensors)
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.out.tfevents.1.host").write_bytes(b"".join(map(record, events)))
    series = one(tmp_path).find("loss", 0)
    assert series.values.tolist() == [1.5, 2.5, 0.1] and series.wall_seconds.tolist() == [0, 1, 2]


def test_a_record_that_is_cut_off_is_passed_over_and_a_damaged_one_is_named(tmp_path):
    values = [Summary.Value(tag="x", simple_value=step) for step in (1, 2)]
    events = [Event(wall_time=step, step=step, summary=Summary(value=[x])) for step, x in enumerate(values, start=1)]
    raw = record(events[0]) + record(events[1])
    path = tmp_path / "run" / "events.out.tfevents.1.host"
    path.parent.mkdir()
    path.write_bytes(raw[:-5])
    assert one(tmp_path).find("x", 0).steps.tolist() == [1]
    at = len(record(events[0]))
    path.write_bytes(raw[:at] + b"\x01" + raw[at + 1 :])
    with pytest.raises(ValueError, match=f"tfevents.1.host, byte {at}: damaged"):
        one(tmp_path).series
    path.write_bytes(raw[:-6] + bytes([raw[-6] ^ 1]) + raw[-5:])
    with pytest.raises(ValueError, match=f"tfevents.1.host, byte {at}: damaged, the checksum"):
        one(tmp_path).series


# Weights & Biases


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def test_charts_of_weights_and_biases(tmp_path):
    """One file a metric, several runs in each, as the web page exports them."""
    for metric, base in (("d4rl_normalized_score", 10), ("critic_loss", 0.5)):
        header = ["Step"]
        for seed in (0, 1):
            name = f"TD3-BC - hopper-medium-v2-{seed} - {metric}"
            header += [name, f"{name}__MIN", f"{name}__MAX"]
        rows = [[step, *[base + step] * 3, *([base] * 3 if step < 200 else [""] * 3)] for step in (100, 200)]
        write_csv(tmp_path / "corl" / f"wandb_export_{metric}.csv", [header, *rows])
    notes = {"library": "CORL", "run_name": "{agent.name} - {task}-{seed}"}
    (tmp_path / "corl" / "run.json").write_text(json.dumps(notes))
    first, second = scan([tmp_path])
    assert first.name == "corl/TD3-BC - hopper-medium-v2-0" and second.columns == ({"seed": 1},)
    assert first.attributes == {
        "library": "CORL", "agent.name": "TD3-BC", "task": "hopper-medium-v2", "source": "wandb"
    }
    score = first.find("d4rl_normalized_score", 0)
    assert score.steps.tolist() == [100, 200] and score.values.tolist() == [110.0, 210.0]
    assert second.find("d4rl_normalized_score", 0).values.tolist() == [10.0], "an empty cell is no value"
    assert second.find("critic_loss", 0).values.tolist() == [0.5]
    assert np.isnan(score.wall_seconds).all(), "a chart does not say it"


@pytest.mark.parametrize(
    "header, cell, notes, message",
    [
        ("Relative Time (Wall)", "1", {}, "its x-axis is 'Relative Time \\(Wall\\)', not 'Step'"),
        ("Step", "high", {}, "line 2: a cell is not a number"),
        ("Step", "1", {"run_name": "{agent.name}__{seed}"}, "the run 'ppo-1' does not read as '{agent.name}__{seed}'"),
        ("Step", "1", {"run_name": "{seed}-1"}, "the run 'ppo-1' does not read as '{seed}-1'"),
        ("Step", "1", {"seed": "first"}, "a run.json says its seed is 'first', not a whole number"),
        ("Step", "1", {"step_field": "global_step"}, "its x-axis is 'Step', not 'global_step'"),
    ],
)
def test_a_chart_that_cannot_be_used(tmp_path, header, cell, notes, message):
    write_csv(tmp_path / "chart.csv", [[header, "ppo-1 - loss"], [1, cell]])
    (tmp_path / "run.json").write_text(json.dumps({"library": "x"} | notes))
    with pytest.raises(ValueError, match=message):
        scan([tmp_path])


def test_two_runs_of_one_name_in_a_chart_are_two_runs(tmp_path):
    header = ["Step", *["bc - loss", "bc - loss__MIN", "bc - loss__MAX"] * 2, "td3 - loss"]
    write_csv(tmp_path / "chart.csv", [header, [1, *[10] * 3, *[90] * 3, 5], [2, *[""] * 3, *[94] * 3, 6]])
    (tmp_path / "run.json").write_text('{"run_name": "{agent.name}"}')
    runs = scan([tmp_path])
    assert [(run.name, run.attributes["agent.name"]) for run in runs] == [
        ("bc", "bc"), ("bc (2)", "bc"), ("td3", "td3")
    ]
    assert [run.find("loss", 0).values.tolist() for run in runs] == [[10.0], [90.0, 94.0], [5.0, 6.0]]


def test_two_charts_of_one_metric_are_an_error(tmp_path):
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, [["Step", "ppo-1 - loss"], [1, 2]])
    with pytest.raises(ValueError, match="a.csv and .*b.csv both have loss of ppo-1"):
        scan([tmp_path])


HISTORY = [
    {"_step": 0, "_runtime": 1.5, "_timestamp": 900.0, "loss": 2.0, "global_step": 0, "note": "start"},
    {"_step": 1, "_runtime": 2.5, "_timestamp": 902.0, "eval/return": "NaN", "global_step": 256, "media": {"a": 1}},
    {"_step": 2, "_runtime": 4.0, "_timestamp": 903.0, "loss": 1.0, "eval/return": None, "global_step": 512},
]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("step_field", ["_step", "global_step"])
def test_histories_of_weights_and_biases(tmp_path, kind, step_field):
    path = tmp_path / f"ppo.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in HISTORY))
    elif kind == "json":
        path.write_text(json.dumps(HISTORY))
    else:
        names = list(dict.fromkeys(name for row in HISTORY for name in row))
        write_csv(path, [names, *([row.get(name, "") for name in names] for row in HISTORY)])
    (tmp_path / "run.json").write_text(json.dumps({"library": "x", "step_field": step_field, "seed": 4}))
    run = one(tmp_path)
    assert run.name == "ppo" and run.columns == ({"seed": 4},) and "step_field" not in run.attributes
    loss, score = run.find("loss", 0), run.find("eval/return", 0)
    assert loss.steps.tolist() == ([0, 2] if step_field == "_step" else [0, 512])
    assert loss.values.tolist() == [2.0, 1.0] and loss.wall_seconds.tolist() == [1.5, 4.0]
    assert len(score.values) == 1 and math.isnan(score.values[0]), "a NaN was logged; an empty cell is no value"
    assert {metric for metric, _ in run.series} - {"global_step"} == {"loss", "eval/return"}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_history_keeps_fractions_of_steps_replaces_what_is_done_again_and_splits_at_line_feeds(tmp_path, kind):
    rows = [(0, 0.0, "a\u2028b"), (0.25, 1.0, ""), (0.5, 2.0, "\x85"), (0.25, 5.0, "")]
    if kind == "csv":
        write_csv(tmp_path / "a.csv", [("_step", "loss", "note"), *rows])
    else:
        named = (dict(zip(("_step", "loss", "note"), row, strict=True)) for row in rows)
        lines = [json.dumps(row, ensure_ascii=False) for row in named]
        (tmp_path / "a.jsonl").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    run = one(tmp_path)
    write_table([run], tmp_path / "table.parquet")
    for found in (run, *read_table(tmp_path / "table.parquet")):
        loss = found.find("loss", 0)
        assert loss.steps.tolist() == [0.0, 0.25] and loss.values.tolist() == [0.0, 5.0]
        assert loss.remarks == ("its steps go back from 0.5 to 0.25: 2 earlier values of loss are replaced",)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", '[{"_step": 0}, {"_st', "line 1: not JSON"),
        ("a.jsonl", '{"_step": 0\n{"_step": 1}\n', "line 1: not JSON"),
        ("a.jsonl", '{"_step": 0}\n[1]\n', "line 2: not an object"),
        ("a.jsonl", '{"_step": 0}\n{"_step": Infinity}\n', "line 2: _step is inf, and steps are finite"),
        ("a.csv", "_step,loss\n1,2,3\n", "line 2: has more cells than the header"),
        ("a.csv", "_step,loss,loss\n1,2,3\n", "two columns are called 'loss'"),
        ("a.csv", "Step,a - loss\n1,2,3\n", "line 2: has more cells than the header"),
    ],
)
def test_a_damaged_history_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        scan([tmp_path])


def test_a_history_without_a_runtime_counts_from_its_first_row(tmp_path):
    rows = [{name: value for name, value in row.items() if name != "_runtime"} for row in HISTORY]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert one(tmp_path).find("loss", 0).wall_seconds.tolist() == [0.0, 3.0]


def test_other_files_are_no_runs(tmp_path):
    write_run(tmp_path / "run", [[1.0]])
    (tmp_path / "table.csv").write_text("task,filter,mean\nhopper,IQL,1\n")
    (tmp_path / "summary.json").write_text('{"_step": 3}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "log.jsonl").write_text("not JSON\n")
    assert [run.name for run in scan([tmp_path])] == ["run"]


# The long table


@pytest.fixture
def mixed(tmp_path):
    """A finished, a swept, a failed and a foreign run, which know different fields of different types."""
    root = tmp_path / "mixed"
    load = {"step": 200, "system/memory_gb": 1.25}
    write_run(root / "a", [[1.0, 2.0], [NAN, 4.0]], lines=[load], config={"batch": 256, "rate": 1, "flag": True})
    sweep = [{"seed": 0, "rate": 0.5}, {"seed": 0, "rate": 2.0}]
    config = {"batch": "all", "rate": 0.1, "num_seeds": 1}
    write_run(root / "b", [[5.0, 6.0]], starts=[start(runs=sweep)], config=config)
    write_run(root / "c", np.zeros((0, 3)), starts=[start(end={"state": "failed", "step": 0, "error": "E: x"})])
    write_csv(root / "d" / "chart.csv", [["Step", "ppo - loss"], [1, 0.25]])
    (root / "d" / "run.json").write_text('{"library": "other", "tag": ["v1", "v2"]}')
    return root


def test_the_long_table_has_a_row_a_value(mixed):
    pa = pytest.importorskip("pyarrow")
    table = long_table(scan([mixed]))
    assert table.column_names[:7] == list(COLUMNS) and table.column_names[7:] == sorted(table.column_names[7:])
    assert table.num_rows == 2 * 2 + 1 + 2 + 1 + 1
    rows = [tuple(row[name] for name in COLUMNS) for row in table.select(COLUMNS).to_pylist()]
    assert rows[:5] == [
        ("a", 0, 0, 100, 10.0, SCORE, 1.0), ("a", 0, 0, 200, 20.0, SCORE, None),
        ("a", 1, 1, 100, 10.0, SCORE, 2.0), ("a", 1, 1, 200, 20.0, SCORE, 4.0),
        ("a", None, None, 200, None, "system/memory_gb", 1.25),
    ]
    assert rows[7] == ("c", None, None, None, None, None, None), "a run that logged nothing is in the table"
    assert rows[8] == ("d/ppo", 0, None, 1, None, "loss", 0.25)
    schema = table.schema
    assert schema.field("state").type == pa.string() and schema.field("flag").type == pa.bool_()
    assert schema.field("rate").type == pa.float64() and schema.field("num_steps").type == pa.int64()
    assert table["rate"].to_pylist() == [1.0] * 5 + [0.5, 2.0] + [None] * 2
    # 256 and "all" have no common type: JSON.
    assert schema.field("batch").metadata == {b"encoding": b"json"}
    assert table["batch"].to_pylist()[4:6] == ["256", '"all"']


def test_parquet_gives_the_runs_back(mixed, tmp_path):
    runs = scan([mixed])
    path = tmp_path / "kept" / "runs.parquet"
    assert write_table(runs, path) == 9
    assert [entry.name for entry in path.parent.iterdir()] == ["runs.parquet"]
    for again in (read_table(path), scan([path]), scan([path.parent])):
        assert [run.name for run in again] == [run.name for run in runs]
        for before, after in zip(runs, again, strict=True):
            assert [dict(c) for c in after.columns] == [dict(c) for c in before.columns]
            assert after.attributes == before.attributes
            assert after.series.keys() == before.series.keys()
            for key, series in before.series.items():
                for name in ("steps", "wall_seconds", "values"):
                    np.testing.assert_array_equal(getattr(after.series[key], name), getattr(series, name))
        write_table(again, path.with_suffix(".copy"))
        assert path.with_suffix(".copy").read_bytes() == path.read_bytes()
        path.with_suffix(".copy").unlink()


def test_a_damaged_parquet_file_is_named_and_a_strange_one_passed_over(tmp_path):
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    write_run(tmp_path / "run", [[1.0]])
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "strange.parquet")
    assert len(scan([tmp_path])) == 1
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="bad.parquet is damaged"):
        scan([tmp_path])
    write_table(scan([tmp_path / "run"]), tmp_path / "bad.parquet")
    raw = bytearray((tmp_path / "bad.parquet").read_bytes())
    raw[40] ^= 1  # in the first page
    (tmp_path / "bad.parquet").write_bytes(raw)
    with pytest.raises(ValueError, match="bad.parquet is damaged"):
        scan([tmp_path])
