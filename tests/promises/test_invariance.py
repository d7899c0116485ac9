"""What may not change the numbers: the chunk, the devices, the other seeds, the day.

Measured on CPUs over the cases here, 24 steps: chunk lengths, seeds side by side and repeated runs agree bitwise.
With the batch over 8 devices a mean is a sum of 8 partial means, which rounds otherwise, and Adam divides by the size
of the gradient, so that a tiny one shows it most: at most 4.5e-7 of a leaf's largest value with jax 0.10 and 5.1e-6
with jax 0.12. A mean taken over one device's share, the likely defect, changes the first digits.
"""

from tests.promises.cases import WHOLE
from tests.promises.runner import assert_same, execute, largest_difference

DEVICE_TOLERANCE = 1e-4


def test_chunk_length(case, whole, tmp_path):
    assert_same(execute(case, tmp_path, WHOLE | {"loop.chunk": 8}), whole(case))


def test_one_step_at_a_time(costly_case, whole, tmp_path):
    assert_same(execute(costly_case, tmp_path, WHOLE | {"loop.chunk": 1}), whole(costly_case))


def test_intervals(case, whole, unbroken):
    """The loop's stops for lines, evaluations and saves leave no trace in the state."""
    assert whole(case).hashes == unbroken(case).hashes


def test_a_repeated_run_is_bitwise_equal(case, unbroken, tmp_path):
    assert_same(execute(case, tmp_path), unbroken(case))


def test_one_batch_over_eight_devices(case, whole, tmp_path):
    """The batch in 8 parts, a mean over them: the same update as the whole batch's."""
    spread = execute(case, tmp_path, WHOLE, devices=8)
    assert largest_difference(whole(case).leaves, spread.leaves) < DEVICE_TOLERANCE
    for line, other in zip(whole(case).lines, spread.lines, strict=True):
        assert line.keys() == other.keys()


def test_each_seed_is_the_run_alone(case, whole, tmp_path):
    pair = execute(case, tmp_path / "pair", WHOLE | {"num_seeds": 2})
    second = execute(case, tmp_path / "second", WHOLE | {"seed": 1})
    for run, alone in enumerate([whole(case), second]):
        for name, leaf in alone.leaves.items():
            own = pair.leaves[name] if name == "step" else pair.leaves[name][run : run + 1]
            assert own.tobytes() == leaf.tobytes(), (run, name)
        # A Feed's own metrics are one number for all runs.
        for line, other in zip(pair.lines, alone.result.evaluations and alone.lines, strict=True):
            mine = {name: value[run] for name, value in line.items() if isinstance(value, list)}
            assert mine and mine == {name: other[name] for name in mine}
    assert whole(case).hashes != second.hashes
