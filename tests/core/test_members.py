"""Runs that read different things side by side, and what their last updates reported: against toys worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.core.fused import run_keys
from rl_jax.core.members import side_by_side
from rl_jax.core.program import Evaluation, Feed, Program, TrainState
from rl_jax.core.recent import with_recent

SHARED = np.arange(3.0)


def toy(own, log=None):
    """Adds its own number and the batch at every step."""
    log = [] if log is None else log

    def step(state, resident, batch, key):
        added = resident["own"] + (0.0 if batch is None else jnp.sum(batch))
        value = state.params["x"] + added
        return state.replace(params={"x": value}), {"added": added}

    def collect(state, resident, keys, step):
        log.append((own, float(state.params["x"][0]), float(resident["own"]), len(keys)))
        return np.full((1, 2), 10.0 * own), {"asked": float(own)}

    return Program(
        lambda key, resident: TrainState.create({"x": resident["own"] * 0.0}, {}), step,
        lambda state, resident, key: Evaluation(
            {"eval/x": state.params["x"]}, {"x": np.asarray(state.params["x"])[:, None] + resident["shared"]}
        ),
        {"own": np.float32(own), "shared": SHARED}, Feed(collect) if log is not None else None,
    )


def started(program, seed, count):
    states = [program.init(key, program.resident) for key in run_keys("init", seed, count)]
    return jax.tree.map(lambda *x: jnp.stack(x), *(x.replace(step=None) for x in states)).replace(step=jnp.int32(0))


def test_each_run_reads_its_own_and_what_is_shared_lies_there_once():
    program = side_by_side([toy(1.0), toy(5.0)], seed=3)
    assert [x.shape for x in program.resident["own"]] == [(2,)] and program.resident["shared"][0] is SHARED
    state = started(program, 3, 2)
    assert state.extra["seed"].tolist() == [3, 4]
    new = [program.step(jax.tree.map(lambda x, row=row: x[row], state.replace(step=None)).replace(step=0),
                        program.resident, jnp.zeros(1), jax.random.key(0)) for row in range(2)]
    assert [float(x.params["x"]) for x, _ in new] == [1.0, 5.0] and [float(m["added"]) for _, m in new] == [1.0, 5.0]
    found = program.evaluate(state.replace(params={"x": jnp.array([2.0, 4.0])}), program.resident, None)
    assert found.metrics["eval/x"].tolist() == [2.0, 4.0]
    assert found.outcomes["x"].tolist() == [[2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]


def test_a_feed_sees_its_own_run_and_a_sweep_repeats_the_seeds():
    log = []
    program = side_by_side([toy(1.0, log), toy(5.0, log)], seed=0)
    state = started(program, 0, 2)
    state = jax.tree.map(lambda x: jnp.concatenate([x, x]), state.replace(step=None)).replace(step=state.step)
    state = state.replace(params={"x": jnp.arange(4.0)})
    batch, metrics = program.feed.collect(state, program.resident, run_keys("collect", 0, 2, 2), 0)
    assert batch[:, 0].tolist() == [10.0, 50.0, 10.0, 50.0] and metrics == {"asked": 3.0}
    assert log == [(1.0, 0.0, 1.0, 1), (5.0, 1.0, 5.0, 1), (1.0, 2.0, 1.0, 1), (5.0, 3.0, 5.0, 1)]


def test_the_last_values_of_metrics_are_outcomes():
    program = with_recent(toy(2.0), ("added",), 3)
    state = program.init(jax.random.key(0), program.resident)
    for step in range(4):
        batch = jnp.full(1, float(step))
        state, _ = program.step(state.replace(step=jnp.int32(step)), program.resident, batch, None)
    whole = jax.tree.map(lambda x: x[None], state.replace(step=None)).replace(step=state.step)
    found = program.evaluate(whole, program.resident, None)
    assert found.outcomes["recent/added"].tolist() == [[5.0, 3.0, 4.0]]  # 2 + step, of the steps 3, 1 and 2
    assert found.outcomes["x"].shape == (1, 3)


def test_programs_of_other_shapes_do_not_stand_side_by_side():
    other = toy(1.0)
    other = other._replace(resident={**other.resident, "own": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="shape"):
        side_by_side([toy(1.0), other], seed=0)
