"""Runs side by side that read different things: each seed's data are of its own model, as in a pipeline of stages."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.fused import run_keys
from rl_jax.core.program import Evaluation, Feed, Key, Metrics, Program, PyTree, TrainState


def side_by_side(programs: Sequence[Program], seed: int) -> Program:
    """One program whose run of the seed `seed + i` is `programs[i]`.

    They differ in the values of what they read and in their feeds alone: they take the same steps on the same shapes.
    Leaves of their residents that are one object are kept once, the others are stacked. Each run remembers its seed in
    `extra`, so that a run alone, beside others or in a sweep does the same.

    Raises:
      ValueError: what they read has different shapes.
    """
    trees = [jax.tree.flatten(program.resident) for program in programs]
    columns, structure = list(zip(*(leaves for leaves, _ in trees), strict=True)), trees[0][1]
    differs = [any(x is not column[0] for x in column) for column in columns]
    resident = {
        "shared": [column[0] for column, own in zip(columns, differs, strict=True) if not own],
        "own": [np.stack(jax.device_get(column)) for column, own in zip(columns, differs, strict=True) if own],
    }
    first, count = programs[0], len(programs)

    def place(own_seed: jax.Array) -> jax.Array:
        return (own_seed - jnp.uint32(seed)).astype(jnp.int32)

    def of_member(resident: PyTree, member: jax.Array | int) -> PyTree:
        shared, own = iter(resident["shared"]), (x[member] for x in resident["own"])
        return jax.tree.unflatten(structure, [next(own) if apart else next(shared) for apart in differs])

    def inner(state: TrainState) -> TrainState:
        return state.replace(extra=state.extra["inner"])

    def init(key: Key, resident: PyTree) -> TrainState:
        keys = jax.random.key_data(run_keys("init", seed, count))
        member = jnp.argmax(jnp.all(keys == jax.random.key_data(key), axis=-1))
        state = first.init(key, of_member(resident, member))
        return state.replace(extra={"inner": state.extra, "seed": jnp.uint32(seed) + member.astype(jnp.uint32)})

    def step(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        own = state.extra["seed"]
        new, metrics = first.step(inner(state), of_member(resident, place(own)), batch, key)
        return new.replace(extra={"inner": new.extra, "seed": own}), metrics

    def apart(state: TrainState) -> list[tuple[int, TrainState]]:
        """Which member each run is, with its state as that of one run, leaves [1, ...]."""
        step, whole = state.step, state.replace(step=None)
        members = np.asarray(jax.device_get(place(state.extra["seed"]))).tolist()
        rows = (jax.tree.map(lambda x, row=row: x[row : row + 1], whole) for row in range(len(members)))
        return [(member, inner(own.replace(step=step))) for member, own in zip(members, rows, strict=True)]

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = [programs[m].evaluate(own, of_member(resident, m), key) for m, own in apart(state)]
        metrics = {name: np.concatenate([np.reshape(x.metrics[name], 1) for x in found]) for name in found[0].metrics}
        outcomes = {name: np.concatenate([x.outcomes[name] for x in found]) for name in found[0].outcomes}
        return Evaluation(metrics, outcomes)

    def done(evaluations: PyTree) -> bool:
        return first.done(evaluations)

    feed = None
    if first.feed is not None:
        feeds = [program.feed for program in programs]

        def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
            found = [
                feeds[m].collect(own, of_member(resident, m), keys[row : row + 1], step)
                for row, (m, own) in enumerate(apart(state))
            ]
            batch = jax.tree.map(lambda *parts: np.concatenate(parts), *(batch for batch, _ in found))
            reported: dict[str, list[float]] = {}
            for _, metrics in found:
                for name, value in metrics.items():
                    reported.setdefault(name, []).append(value)
            return batch, {name: sum(values) / len(values) for name, values in reported.items()}

        def save() -> PyTree:
            return {"members": [own.save() for own in feeds]}

        def restore(saved: PyTree) -> None:
            for own, part in zip(feeds, saved["members"], strict=True):
                own.restore(part)

        def close() -> None:
            for own in feeds:
                own.close()

        feed = Feed(collect, save, restore, close, sum(own.bytes for own in feeds))
    return Program(init, step, evaluate, resident, feed, None if first.done is None else done)
