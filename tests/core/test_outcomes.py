"""outcomes.npz: every evaluation once, whatever was stopped and done again, and damage told."""

import numpy as np
import pytest

from rl_jax.core import loop
from rl_jax.core.experiment import Metric
from rl_jax.core.outcomes import add_outcomes, read_outcomes
from rl_jax.core.program import Evaluation
from tests.core import toys

RETURN = Metric("eval/return", "return")


def outcomes_of(step, num_runs=2):
    return {"return": np.full((num_runs, 3), step, np.float32), "length": np.full((num_runs, 1), step + 1)}


def written(path, steps=(4, 8, 12)):
    for step in steps:
        add_outcomes(path, step, step / 10, outcomes_of(step))
    return path


def test_a_round_trip(tmp_path):
    read = read_outcomes(written(tmp_path / "outcomes.npz"))
    assert read.steps.tolist() == [4, 8, 12] and read.steps.dtype == np.int64
    assert read.train_seconds.tolist() == [0.4, 0.8, 1.2]
    assert {name: x.shape for name, x in read.values.items()} == {"return": (3, 2, 3), "length": (3, 2, 1)}
    assert read.values["return"][1, 0].tolist() == [8.0] * 3
    assert read.values["return"].dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.npz"]


@pytest.mark.parametrize("step, steps", [(12, [4, 8, 12]), (8, [4, 8]), (6, [4, 6]), (4, [4]), (0, [0])])
def test_what_is_done_again_replaces_what_comes_after(step, steps, tmp_path):
    path = written(tmp_path / "outcomes.npz")
    add_outcomes(path, step, 7.0, outcomes_of(100))
    read = read_outcomes(path)
    assert read.steps.tolist() == steps
    assert read.values["return"][-1, 0, 0] == 100 and read.train_seconds[-1] == 7.0
    assert read.values["return"][:-1, 0, 0].tolist() == steps[:-1]


@pytest.mark.parametrize("outcomes, message", [
    ({"return": np.zeros(3)}, r"outcome 'return' has shape \(3,\): give \[S, E\]"),
    ({"step": np.zeros((2, 3))}, "'step' has shape .* another name than"),
    ({"return": np.zeros((2, 4)), "length": np.zeros((2, 1))}, r"outcomes.npz holds the outcomes .* another run's"),
    ({"return": np.zeros((2, 3))}, "it is another run's"),
])
def test_other_outcomes_are_refused(outcomes, message, tmp_path):
    path = written(tmp_path / "outcomes.npz")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        add_outcomes(path, 16, 1.6, outcomes)
    assert path.read_bytes() == before


def test_a_damaged_file_is_named(tmp_path):
    path = written(tmp_path / "outcomes.npz")
    raw = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        read_outcomes(tmp_path / "absent.npz")
    for damaged in (raw[: len(raw) // 2], b"", b"no zip at all", raw[:60] + bytes([raw[60] ^ 0xFF]) + raw[61:]):
        path.write_bytes(damaged)
        for use in (read_outcomes, lambda path: add_outcomes(path, 16, 1.6, outcomes_of(16))):
            with pytest.raises(ValueError, match=f"{path} is not a record of outcomes"):
                use(path)
    np.savez(path, step=np.arange(2), train_seconds=np.zeros(2), x=np.zeros((3, 2, 1)))
    with pytest.raises(ValueError, match=r"its arrays are not \[T, S, E\] with T = 2"):
        read_outcomes(path)


# What the loop writes


def drawing(state, resident, key):
    """Outcomes that are a function of the state alone; the mean of one has another meaning."""
    del resident, key
    drawn = np.asarray(state.params["net"]["out"])[:, :2, 0]
    return Evaluation({"eval/spread": drawn.std(1)}, {"return": drawn, "spread": drawn})


OFTEN = {"num_seeds": 2, "loop.eval_every": 4, "checkpoint.every": 8}


def test_the_loop_writes_every_evaluation_and_the_means(tmp_path):
    result = loop.run(toys.experiment(RETURN, evaluate=drawing), toys.config(**OFTEN), tmp_path)
    read = read_outcomes(tmp_path / "outcomes.npz")
    assert read.steps.tolist() == [4, 8, 12, 16, 20]
    assert np.all(np.diff(read.train_seconds) > 0)
    assert read.values["return"].shape == (5, 2, 2)
    for evaluation, outcome in zip(result.evaluations, read.values["return"], strict=True):
        assert evaluation["eval/return"] == pytest.approx(outcome.mean(1).tolist())
        # A metric of an outcome's name is the paper's own word.
        assert evaluation["eval/spread"] == pytest.approx(outcome.std(1).tolist())


def test_a_resumed_run_drops_and_does_again(tmp_path):
    """Killed after the evaluation of 12, whose last checkpoint is of 8."""
    experiment = toys.experiment(RETURN, evaluate=drawing)
    loop.run(experiment, toys.config(**OFTEN), tmp_path / "whole")
    asked = []

    def killed(state, resident, key):
        if int(state.step) == 16 and not asked:
            asked.append(True)
            raise KeyboardInterrupt
        return drawing(state, resident, key)

    with pytest.raises(KeyboardInterrupt):
        loop.run(toys.experiment(RETURN, evaluate=killed), toys.config(**OFTEN), tmp_path / "parts")
    assert read_outcomes(tmp_path / "parts" / "outcomes.npz").steps.tolist() == [4, 8, 12]
    loop.run(experiment, toys.config(**OFTEN), tmp_path / "parts")
    whole, parts = (read_outcomes(tmp_path / name / "outcomes.npz") for name in ("whole", "parts"))
    assert whole.steps.tolist() == parts.steps.tolist()
    assert all(np.array_equal(whole.values[name], parts.values[name]) for name in whole.values)


def test_a_program_without_outcomes_leaves_no_file(tmp_path):
    loop.run(toys.experiment(), toys.config(), tmp_path)
    assert not (tmp_path / "outcomes.npz").exists()
