"""Feeds: beside a resident, in batches of several kinds, scored ahead of the device, and closed however a run ends."""

import os
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.core import loop, steps
from rl_jax.core.metrics import read_metrics
from rl_jax.core.program import Evaluation, Feed, scored
from rl_jax.core.runtime import NonFiniteError, Preempted
from tests.core import toys

STEPS = 12
OFTEN = {"num_steps": STEPS, "loop.log_every": 4, "loop.eval_every": 0, "checkpoint.every": 4}


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, other))


def host_lines(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{name: x for name, x in line.items() if not name.startswith(("time/", "system/"))} for line in lines]


def fed_step(state, resident, batch, key):
    """Rows of the resident, and of the feed: symmetric sampling, as from prior and online data."""
    shift = jnp.mean(batch["shift"])
    data = {"x": resident["x"], "y": resident["y"] + shift}
    new, metrics = toys.step(state, data, None, key)
    return new, metrics | {f"shift_{batch['shift'].shape[0]}": shift}


def lengths_in_turn(lengths=(8, 16), closed=None):
    """A feed with a state of its own, whose batches have these lengths in turn."""
    cursor = {"count": 0}

    def collect(state, resident, keys, step):
        assert resident["x"].shape == (64, 4)
        count = cursor["count"]
        cursor["count"] += 1
        length = lengths[step % len(lengths)]
        shift = np.full((len(keys), length), count, np.float32) + np.arange(len(keys), dtype=np.float32)[:, None]
        return {"shift": shift}, {"collect/length": length} | ({"collect/first": count} if step % 2 == 0 else {})

    def restore(saved):
        cursor.update(saved)

    def close():
        if closed is not None:
            closed.append(dict(cursor))

    return Feed(collect, lambda: dict(cursor), restore, close)


def experiment(feed=None, **parts):
    return toys.experiment(step=fed_step, feed=feed or lengths_in_turn(), **parts)


def test_a_step_sees_resident_and_feed(tmp_path):
    result = loop.run(experiment(), toys.config(**OFTEN, num_seeds=2), tmp_path)
    assert result.step == STEPS
    lines = host_lines(tmp_path)
    # Steps 0 to 3: even ones bring 8 numbers, odd ones 16; the second run's are one more.
    assert lines[0]["shift_8"] == [1.0, 2.0] and lines[0]["shift_16"] == [2.0, 3.0]
    assert lines[0]["collect/length"] == 12.0 and lines[0]["collect/first"] == 1.0
    assert len(lines[0]["loss"]) == 2


def test_metrics_of_two_kinds_have_their_own_counts(tmp_path):
    """Three kinds in turn and lines every four steps: a kind comes once or twice a line."""
    loop.run(experiment(lengths_in_turn((8, 16, 24))), toys.config(**OFTEN), tmp_path)
    first, second, _ = host_lines(tmp_path)
    assert (first["shift_8"], first["shift_16"], first["shift_24"]) == (1.5, 1.0, 2.0)
    assert (second["shift_8"], second["shift_16"], second["shift_24"]) == (6.0, 5.5, 5.0)


def test_a_kind_that_did_not_come_has_no_metric_in_the_line(tmp_path):
    lengths = (8,) * 4 + (16,) * 8
    loop.run(experiment(lengths_in_turn(lengths)), toys.config(**OFTEN), tmp_path)
    assert [sorted(name for name in line if name.startswith("shift")) for line in host_lines(tmp_path)] == [
        ["shift_8"], ["shift_16"], ["shift_16"],
    ]


def test_batches_of_another_structure(tmp_path):
    """A generator's batch and a verifier's in turn: each has its own update and its own metrics."""

    def step(state, resident, batch, key):
        if "verdict" in batch:
            return state, {"verifier/accuracy": jnp.mean(batch["verdict"].astype(jnp.float32))}
        return fed_step(state, resident, batch, key)

    def collect(state, resident, keys, step):
        if step % 2:
            return {"verdict": np.ones((len(keys), 16), bool)}, {}
        return {"shift": np.zeros((len(keys), 8), np.float32)}, {}

    loop.run(toys.experiment(step=step, feed=Feed(collect)), toys.config(**OFTEN), tmp_path)
    line = host_lines(tmp_path)[0]
    assert line["verifier/accuracy"] == 1.0 and line["shift_8"] == 0.0


def test_a_kind_is_compiled_once(tmp_path):
    kinds, traces = 3, []

    def step(state, resident, batch, key):
        traces.append(batch["shift"].shape)
        return fed_step(state, resident, batch, key)

    lengths = [8 * (i + 1) for i in range(kinds)]
    config = toys.config(**OFTEN | {"num_steps": 3 * kinds})
    loop.run(toys.experiment(step=step, feed=lengths_in_turn(lengths)), config, tmp_path)
    assert {shape: traces.count(shape) for shape in traces} == {(length,): traces.count((8,)) for length in lengths}
    assert traces.count((8,)) <= 2, "once for the names of its metrics, once to be compiled"


def test_too_many_kinds_are_named(monkeypatch, tmp_path):
    assert steps.MAX_KINDS == 8
    monkeypatch.setattr(steps, "MAX_KINDS", 2)
    feed = lengths_in_turn((8, 16, 24))
    with pytest.raises(ValueError, match=r"more than 2 structures and shapes.*float32\[1, 8\].*\[1, 24\].*pad them"):
        loop.run(experiment(feed), toys.config(**OFTEN), tmp_path)


def test_a_run_with_several_kinds_goes_on_bitwise(tmp_path):
    """The window of metrics is resumed in mid-interval, before the third kind ever came in it."""
    stop = 6
    whole = loop.run(experiment(lengths_in_turn((8, 16, 24))), toys.config(**OFTEN), tmp_path / "whole")
    with pytest.raises(Preempted):
        loop.run(experiment(stopping(lengths_in_turn((8, 16, 24)), stop)), toys.config(**OFTEN), tmp_path / "parts")
    assert (tmp_path / "parts" / "checkpoints" / str(stop)).is_dir()
    parts = loop.run(experiment(lengths_in_turn((8, 16, 24))), toys.config(**OFTEN), tmp_path / "parts")
    assert parts.trained_steps == STEPS - stop
    assert same(whole.state, parts.state)
    assert host_lines(tmp_path / "whole") == host_lines(tmp_path / "parts")


def stopping(feed, before):
    """The feed, which tells this process to stop while it collects the batch of the step `before` - 1."""

    def collect(state, resident, keys, step):
        if step == before - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return feed.collect(state, resident, keys, step)

    return feed._replace(collect=collect)


def test_a_batch_that_does_not_divide_is_named(tmp_path):
    with pytest.raises(ValueError, match="a batch of 12 does not divide over data=8 devices: change --config.batch"):
        loop.run(experiment(lengths_in_turn((12,))), toys.config(**OFTEN), tmp_path)


# Closed once


def broken(*arguments):
    raise RuntimeError("the simulator broke")


WAYS_OUT = {
    "finished": (None, {}, {}),
    "nothing to do": (None, {}, {"num_steps": 0}),
    "stopped": (Preempted, {"stop": 3}, {}),
    "collect fails": (RuntimeError, {"feed": {"collect": broken}}, {}),
    "evaluate fails": (RuntimeError, {"evaluate": broken}, {}),
    "init fails": (RuntimeError, {"init": broken}, {}),
    "save fails": (RuntimeError, {"feed": {"save": broken}}, {}),
    "not finite": (NonFiniteError, {"step": lambda s, r, b, k: (s, {"loss": jnp.nan * jnp.sum(b["shift"])})}, {}),
    "no mesh": (ValueError, {}, {"mesh.data": 3}),
    "another run's folder": (ValueError, {}, {"seed": 1}),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_feed_is_closed_once(way, tmp_path):
    error, parts, fields = WAYS_OUT[way]
    parts, closed = dict(parts), []
    feed = lengths_in_turn(closed=closed)
    if "stop" in parts:
        feed = stopping(feed, parts.pop("stop"))
    feed = feed._replace(**parts.pop("feed", {}))
    if way == "another run's folder":
        loop.run(experiment(), toys.config(**OFTEN), tmp_path)
    made = toys.experiment(**{"step": fed_step, "feed": feed} | parts)
    if error is None:
        loop.run(made, toys.config(**OFTEN | fields), tmp_path)
    else:
        with pytest.raises(error):
            loop.run(made, toys.config(**OFTEN | fields), tmp_path)
    assert len(closed) == 1


# Scored


def sampled_on_the_device(state, resident, keys, step):
    """A sample that tells which parameters and which keys it comes from."""
    del resident
    weight = jnp.abs(state.params["net"]["out"]).sum((1, 2))
    noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(keys)
    return {"noise": noise, "weight": jnp.broadcast_to(weight[:, None], noise.shape), "step": jnp.full((), step)}


def score_on_the_host(sample):
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(sample)), "whole, on the host"
    return {"shift": sample["noise"] + sample["weight"]}, {"score/mean": float(sample["weight"].mean())}


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_batches_are_so_many_updates_old_and_the_same_after_a_resume(overlap, tmp_path):
    seen = []

    def recording(sample):
        seen.append((int(sample["step"]), float(sample["weight"][0, 0])))
        return score_on_the_host(sample)

    def made(score=score_on_the_host, stop=None):
        feed = scored(sampled_on_the_device, score, overlap)
        return experiment(feed if stop is None else stopping(feed, stop))

    whole = loop.run(made(recording), toys.config(**OFTEN), tmp_path / "whole")
    weights = dict(sorted(seen))
    assert list(weights) == list(range(STEPS + overlap)), "a batch a step, and those that no step will see"
    # The first batches are all sampled from the start's parameters; then one comes an update.
    assert [weights[step] == 0.0 for step in range(STEPS)] == [step <= overlap for step in range(STEPS)]
    scores = [line["score/mean"] for line in host_lines(tmp_path / "whole") if "score/mean" in line]
    assert scores[0] == pytest.approx(np.mean([weights[step] for step in range(4)]))
    # A stop inside a window, where scored batches wait.
    with pytest.raises(Preempted):
        loop.run(made(stop=6), toys.config(**OFTEN), tmp_path / "parts")
    parts = loop.run(made(), toys.config(**OFTEN), tmp_path / "parts")
    assert parts.trained_steps == STEPS - 6
    assert same(whole.state, parts.state)
    assert host_lines(tmp_path / "whole") == host_lines(tmp_path / "parts")


def test_a_scorers_error_ends_the_run(tmp_path):
    for overlap in (0, 2):
        with pytest.raises(RuntimeError, match="the simulator broke"):
            loop.run(experiment(scored(sampled_on_the_device, broken, overlap)), toys.config(**OFTEN), tmp_path / "run")


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="config.overlap=-1: .*0 or more"):
        scored(sampled_on_the_device, score_on_the_host, -1)


def test_an_overlap_changes_only_the_age_of_a_batch():
    """Against the order written out: batch t is sampled with the keys of step t from the state of step t - overlap."""
    keys = jax.random.split(jax.random.key(0), 1)
    asked = []

    def sample(state, resident, keys, step):
        asked.append((state, resident, step, np.asarray(jax.random.key_data(keys))[0].tolist()))
        return {"n": np.zeros(1)}

    feed = scored(sample, lambda batch: (batch, {}), overlap=2)
    for step in range(3):
        own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
        feed.collect(SimpleNamespace(at=step), "resident", own, step)
    feed.close()
    assert [(state.at, step) for state, _, step, _ in asked] == [(0, 0), (0, 1), (0, 2), (1, 3), (2, 4)]
    assert len({tuple(words) for *_, words in asked}) == 5


def test_evaluate_sees_the_resident_of_a_fed_run(tmp_path):
    def evaluate(state, resident, key):
        return Evaluation({"eval/loss": float(resident["y"].mean())})

    result = loop.run(experiment(evaluate=evaluate), toys.config(**OFTEN), tmp_path)
    assert result.evaluations[-1]["eval/loss"] == pytest.approx(float(toys.make_data()["y"].mean()), abs=1e-6)
