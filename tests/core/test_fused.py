"""The fused step: keys, runs side by side, chunks, dropped updates, fingerprints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rl_jax.core.fused import (
    STREAMS,
    Window,
    evaluated,
    fingerprint,
    finite_leaves,
    fused_step,
    init_runs,
    metric_names,
    run_keys,
)
from rl_jax.core.mesh import make_mesh
from tests.core import toys


def train(num_steps, seed=0, num_seeds=1, seed_axis="map", on_nan="abort", times=1, program=None):
    program = program or toys.program()
    resident = program.resident
    state = init_runs(lambda settings: program, run_keys("init", seed, num_seeds), {}, resident, seed_axis)
    window = Window.empty(num_seeds, metric_names(program, state, resident, None))
    fused = jax.jit(fused_step(lambda settings: program, num_steps, seed_axis=seed_axis, on_nan=on_nan))
    for _ in range(times):
        state, window = fused(state, window, resident, None, run_keys("train", seed, num_seeds), {})
    return state, window


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, other))


def test_a_key_depends_on_stream_and_seed_alone():
    keys = run_keys("train", 3, 4)
    for run in range(4):
        alone = jax.random.fold_in(jax.random.key(STREAMS["train"]), 3 + run)
        assert np.array_equal(jax.random.key_data(keys[run]), jax.random.key_data(alone))
    assert not np.array_equal(jax.random.key_data(keys), jax.random.key_data(run_keys("init", 3, 4)))


def test_map_is_bitwise_the_runs_alone():
    together, window = train(12, num_seeds=3, seed_axis="map")
    for run in range(3):
        alone, own = train(12, seed=run)
        assert same(jax.tree.map(lambda x, run=run: x[run], together.replace(step=None)),
                    jax.tree.map(lambda x: x[0], alone.replace(step=None)))
        assert window.sums["loss"][run] == own.sums["loss"][0]


def test_vmap_is_close_to_the_runs_alone():
    together, _ = train(12, num_seeds=3, seed_axis="vmap")
    one_by_one, _ = train(12, num_seeds=3, seed_axis="map")
    difference = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), together.params, one_by_one.params)
    assert max(jax.tree.leaves(difference)) < 5e-5


def test_the_chunk_changes_no_bit():
    whole = train(12)
    assert same(whole, train(1, times=12))
    assert same(whole, train(4, times=3))
    assert same(whole, train(6, times=2))


def test_it_is_the_plain_loop():
    """Against twelve calls of the step, one after another."""
    program = toys.program()
    key = jax.random.fold_in(jax.random.key(STREAMS["train"]), 0)
    state = program.init(jax.random.fold_in(jax.random.key(STREAMS["init"]), 0), program.resident)
    step, losses = jax.jit(program.step), []
    for count in range(12):
        state, metrics = step(state, program.resident, None, jax.random.fold_in(key, count))
        losses.append(float(metrics["loss"]))
    fused, window = train(12)
    assert int(fused.step) == 12
    assert window.sums["loss"][0] == pytest.approx(sum(losses), rel=1e-6)
    np.testing.assert_allclose(fused.params["net"]["kernel"][0], state.params["net"]["kernel"], rtol=1e-5, atol=1e-6)


def test_skip_drops_exactly_the_bad_updates():
    """Against a program whose bad steps return the state as it was."""

    def bad(state):
        return (state.step == 3) | (state.step == 7)

    def spoiled(state, data, batch, key):
        new, metrics = toys.step(state, data, batch, key)
        return new, {"loss": jnp.where(bad(state), jnp.inf, metrics["loss"])}

    def idle(state, data, batch, key):
        new, metrics = toys.step(state, data, batch, key)
        keep = jax.tree.map(lambda n, o: jnp.where(bad(state), o, n), new, state)
        return keep, {"loss": jnp.where(bad(state), 0.0, metrics["loss"])}

    skipped, window = train(10, on_nan="skip", program=toys.program(step=spoiled))
    wanted, sums = train(10, program=toys.program(step=idle))
    assert int(window.kept[0]) == int(window.counts["loss"][0]) == 8
    np.testing.assert_allclose(window.sums["loss"], sums.sums["loss"], rtol=1e-6)
    for one, other in zip(jax.tree.leaves(skipped), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    aborted, _ = train(10, program=toys.program(step=spoiled))
    assert not np.allclose(aborted.params["net"]["out"], skipped.params["net"]["out"])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s, m: s, "must return"),
        (lambda s, m: (s, {"loss": jnp.zeros(3)}), r"metric 'loss' has shape \(3,\)"),
        (lambda s, m: (s.replace(extra={"more": 1.0}), m), "changes the structure"),
        (lambda s, m: (s.replace(params=jax.tree.map(lambda x: x.astype("bfloat16"), s.params)), m),
         "changes params/net/kernel from float32"),
    ],
)
def test_a_step_that_breaks_the_contract_is_named(change, message):
    program = toys.program(step=lambda *arguments: change(*toys.step(*arguments)))
    with pytest.raises(ValueError, match=message):
        train(2, program=program)


def prints(tree):
    return [int(x) for x in jax.jit(fingerprint)(tree)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_a_fingerprint_sees_a_bit_and_a_place(dtype):
    x = jnp.asarray(np.random.default_rng(1).integers(0, 2, (8, 6)), dtype)
    raw = np.array(x)
    flipped = raw.copy()
    if dtype == "bool":
        flipped[2, 3] = not flipped[2, 3]
    else:
        flipped.view(f"uint{8 * raw.itemsize}")[2, 3] ^= 1
    assert prints([x]) != prints([jnp.asarray(flipped)])
    assert prints([x]) == prints([jnp.asarray(raw)])
    order = np.argsort(raw[:, 0].astype(np.float32), kind="stable")[::-1]
    if not np.array_equal(raw[order], raw):
        assert prints([x]) != prints([jnp.asarray(raw[order])])


def test_a_fingerprint_is_the_same_on_any_sharding():
    x = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
    mesh = make_mesh(data=4, model=2)
    for spec in (P(), P("data"), P("model", "data"), P(None, ("data", "model"))):
        assert prints([jax.device_put(x, NamedSharding(mesh, spec))]) == prints([jnp.asarray(x)])


def test_finite_leaves_names_each():
    tree = [jnp.ones(3), jnp.asarray([1.0, jnp.nan]), jnp.asarray([jnp.inf]), jnp.asarray([3])]
    assert [bool(x) for x in finite_leaves(tree)] == [True, False, False, True]


def test_a_random_key_in_the_state_has_a_fingerprint():
    """An environment may keep its own key."""
    one, other = jax.random.key(0), jax.random.key(1)
    assert prints({"key": one}) == prints({"key": one})
    assert prints({"key": one}) != prints({"key": other})


@pytest.mark.parametrize("devices", [1, 8])
def test_all_runs_are_evaluated_on_one_device_and_compiled_once(devices):
    traced = []

    @evaluated
    def product(params, rows, scale):
        traced.append(1)
        return {"sum": scale * jnp.sum(rows @ params["weights"])}

    rows, weights = np.arange(16.0).reshape(8, 2), np.asarray([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    mesh = make_mesh(devices=jax.devices()[:devices])
    spread = jax.device_put(rows, NamedSharding(mesh, P("data")))
    params = {"weights": jax.device_put(weights, NamedSharding(mesh, P()))}
    for scale in (1.0, 3.0):
        found = product(params, spread, np.float32(scale))
        assert isinstance(found["sum"], np.ndarray)
        np.testing.assert_allclose(found["sum"], scale * rows.sum(0) @ weights.T)
    assert len(traced) == 1
