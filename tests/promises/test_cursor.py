"""The data cursor: the batch of a step is a pure function of (seed, step), whatever was stopped on the way."""

import jax
import numpy as np
import pytest

from rl_jax.core.fused import STREAMS
from rl_jax.core.program import Feed
from rl_jax.core.runtime import Preempted
from tests.promises.cases import CASES, STEPS, make_config, make_program
from tests.promises.runner import execute, signal_at

SEED = 7


def key_of(stream, step):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(STREAMS[stream]), SEED), step)


def small_number(key):
    """Of 18 bits: float32 sums a window of them exactly."""
    return int(jax.random.key_data(key)[0] >> 14)


def reporting_its_key(program):
    """The program with the key of every step as a metric."""

    def step(state, data, key):
        new, metrics = program.step(state, data, key)
        return new, metrics | {"key": (jax.random.key_data(key)[0] >> 14).astype("float32")}

    return program._replace(step=step)


def test_keys_are_a_function_of_seed_and_step(costly_case, tmp_path):
    with signal_at(10), pytest.raises(Preempted):
        execute(costly_case, tmp_path, {"seed": SEED}, change=reporting_its_key)
    lines = execute(costly_case, tmp_path, {"seed": SEED}, change=reporting_its_key).lines
    seen = {line["step"]: line["key"] for line in lines if "key" in line}
    expected = {
        end: np.float32(sum(small_number(key_of("train", step)) for step in range(end - 6, end))) / 6
        for end in range(6, STEPS + 1, 6)
    }
    assert seen == pytest.approx(expected, rel=1e-7)


FED = [case for case in CASES if case.program.endswith(("host_fed", "scored", "finetune", "rlcm.train"))]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.slow] * case.kin) for case in FED]
)
def test_a_feed_is_asked_once_a_step_and_continues_its_stream(case, tmp_path):
    def recording(into):
        def change(program):
            def collect(state, keys, step):
                batch, metrics = program.source.collect(state, keys, step)
                into[step] = (np.asarray(jax.random.key_data(keys))[0].tolist(), jax.tree.map(np.array, batch))
                return batch, metrics

            return program._replace(source=Feed(collect, program.source.save, program.source.restore))

        return change

    straight, first, second = {}, {}, {}
    execute(case, tmp_path / "straight", {"seed": SEED}, change=recording(straight))
    with signal_at(10), pytest.raises(Preempted):
        execute(case, tmp_path / "stopped", {"seed": SEED}, change=recording(first))
    execute(case, tmp_path / "stopped", {"seed": SEED}, change=recording(second))
    assert (list(first), list(second)) == (list(range(10)), list(range(10, STEPS)))
    for step, (words, batch) in (first | second).items():
        assert words == jax.random.key_data(key_of("collect", step)).tolist()
        assert jax.tree.all(jax.tree.map(np.array_equal, batch, straight[step][1])), step


@pytest.mark.slow
def test_fed_names_every_feed(tmp_path):
    feeds = [
        case.name for case in CASES if isinstance(make_program(case, make_config(case), tmp_path)[0].source, Feed)
    ]
    assert feeds == [case.name for case in FED]
