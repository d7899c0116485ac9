"""What a run's last updates reported, as outcomes: for claims about training itself and not about evaluations."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState


def with_recent(program: Program, names: Sequence[str], length: int) -> Program:
    """The program, whose evaluations also have the outcome "recent/NAME" [S, length] of each metric of its steps named.

    It holds the values of the last `length` steps, in no order; steps that were not made count as 0.
    """

    def inner(state: TrainState) -> TrainState:
        return state.replace(extra=state.extra["inner"])

    def init(key: Key, resident: PyTree) -> TrainState:
        state = program.init(key, resident)
        return state.replace(extra={"inner": state.extra, "recent": {name: jnp.zeros(length) for name in names}})

    def step(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        new, metrics = program.step(inner(state), resident, batch, key)
        recent = {name: x.at[state.step % length].set(metrics[name]) for name, x in state.extra["recent"].items()}
        return new.replace(extra={"inner": new.extra, "recent": recent}), metrics

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = program.evaluate(inner(state), resident, key)
        recent = {f"recent/{name}": np.asarray(x) for name, x in jax.device_get(state.extra["recent"]).items()}
        return Evaluation(found.metrics, {**found.outcomes, **recent})

    feed = program.feed
    if feed is not None:
        def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
            return program.feed.collect(inner(state), resident, keys, step)

        feed = feed._replace(collect=collect)
    return program._replace(init=init, step=step, evaluate=evaluate, feed=feed)
