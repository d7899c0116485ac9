"""The mesh and the rules: where every array lies, on eight virtual devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rl_jax.core import mesh as meshes
from rl_jax.core.mesh import (
    bytes_per_device,
    gather,
    make_mesh,
    partition_spec,
    replicate,
    resident_shardings,
    shard_batch,
    state_shardings,
    upload,
    upload_batch,
)
from rl_jax.core.program import TrainState

DECODER_RULES = (
    ("embed", ("model", None)),
    ("attention/(query|key|value)/kernel", (None, "model")),
    ("attention/out/kernel", ("model", None)),
    ("mlp/up/kernel", (None, "model")),
    ("mlp/down/kernel", ("model", None)),
    (".*", "fsdp"),
)


def decoder(key):
    """The parameter tree of a small decoder, one layer stack."""
    del key
    width, hidden, words = 16, 64, 32
    attention = {name: {"kernel": jnp.ones((width, width))} for name in ("query", "key", "value", "out")}
    mlp = {"up": {"kernel": jnp.ones((width, hidden))}, "down": {"kernel": jnp.ones((hidden, width))}}
    layer = {"attention": attention, "mlp": mlp, "norm": {"scale": jnp.ones(width)}, "odd": jnp.ones(7)}
    params = {"embed": jnp.ones((words, width)), "layer_0": layer}
    return TrainState.create(params, {"mu": params, "count": jnp.zeros((), jnp.int32)})


def test_sizes_and_the_rest_of_the_devices():
    assert dict(make_mesh().shape) == {"seed": 1, "data": 8, "model": 1}
    assert dict(make_mesh(seed=2, data=-1, model=2).shape) == {"seed": 2, "data": 2, "model": 2}
    assert dict(make_mesh(data=1, devices=jax.devices()[:1]).shape) == {"seed": 1, "data": 1, "model": 1}


@pytest.mark.parametrize("sizes", [(3, -1, 1), (1, 4, 1), (16, -1, 1)])
def test_a_wrong_number_of_devices_is_named(sizes):
    with pytest.raises(ValueError, match="there are 8"):
        make_mesh(*sizes)


@pytest.mark.parametrize("sizes", [(0, -1, 1), (-1, -1, 1), (1, -2, 1)])
def test_bad_sizes_are_named(sizes):
    with pytest.raises(ValueError, match="sizes are positive"):
        make_mesh(*sizes)


def test_the_first_rule_decides_and_none_replicates():
    mesh = make_mesh(data=4, model=2)
    rules = (("bias", "replicate"), ("kernel", (None, "model")), ("kernel", ("data", None)))
    assert partition_spec("params/a/kernel", (4, 4), rules, mesh) == P(None, "model")
    assert partition_spec("params/a/bias", (4,), rules, mesh) == P()
    assert partition_spec("params/a/scale", (4,), rules, mesh) == P()
    assert partition_spec("step", (), ((".*", "fsdp"),), mesh) == P()


@pytest.mark.parametrize(
    "shape, spec", [((8, 16), P(None, "data")), ((32, 16), P("data", None)), ((7, 12), P(None, "data")), ((7, 5), P())]
)
def test_fsdp_takes_the_largest_dimension_that_divides(shape, spec):
    assert partition_spec("params/x", shape, ((".*", "fsdp"),), make_mesh(data=4, model=2)) == spec


@pytest.mark.parametrize(
    "rule, message",
    [
        ("shard", "'shard' is not"),
        (("rows", None), "names the axis 'rows'"),
        (("data",), "does not fit its shape"),
        (("data", None), r"params/w: dimension 0 of \(6, 4\) does not divide over data = 4"),
        (("model", ("data", "model")), r"dimension 1 of \(6, 4\) does not divide over data x model = 8"),
    ],
)
def test_bad_rules_are_named(rule, message):
    with pytest.raises(ValueError, match=message):
        partition_spec("params/w", (6, 4), (("w", rule),), make_mesh(data=4, model=2))


def test_a_dimension_may_lie_along_several_axes():
    """The first axis of the tuple is the slowest: two layouts that keep it share their largest blocks."""
    mesh = make_mesh(data=4, model=2)
    spec = partition_spec("params/w", (16, 4), (("w", (("data", "model"), None)),), mesh)
    assert spec == P(("data", "model"), None)
    x = np.arange(64.0, dtype=np.float32).reshape(16, 4)
    laid = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
    assert {shard.data.shape for shard in laid.addressable_shards} == {(2, 4)}
    for (i, j), device in np.ndenumerate(mesh.devices[0]):
        (mine,) = [shard.data for shard in laid.addressable_shards if shard.device == device]
        assert np.array_equal(mine, x[4 * i + 2 * j :][:2])
    assert bytes_per_device({"w": laid}) == x.nbytes // 8


def test_the_resident_has_no_axis_of_runs():
    mesh = make_mesh(seed=2, data=4)
    resident = {"data": {"x": np.ones((8, 3), np.float32)}, "reference": [np.ones((5, 12), np.int8)], "n": np.int32(3)}
    places = resident_shardings(resident, (("data/", ("data", None)), ("reference", "fsdp")), mesh)
    laid = upload(resident, places)
    assert {shard.data.shape for shard in laid["data"]["x"].addressable_shards} == {(2, 3)}
    assert {shard.data.shape for shard in laid["reference"][0].addressable_shards} == {(5, 3)}
    assert laid["n"].sharding.is_fully_replicated and len(laid["n"].devices()) == 8
    assert jax.tree.all(jax.tree.map(np.array_equal, laid, resident))


def test_statistics_of_another_rank_replicate():
    rules = (("w", ("data", None)),)
    assert partition_spec("opt_state/w", (8,), rules, make_mesh(data=4, model=2)) == P()


def test_a_decoder_is_born_sharded():
    mesh = make_mesh(data=4, model=2)
    add_run = jax.vmap(lambda key: decoder(key).replace(step=None))

    def init(keys):
        return add_run(keys).replace(step=jnp.zeros((), jnp.int32))

    keys = jax.random.split(jax.random.key(0), 1)
    shardings = state_shardings(jax.eval_shape(init, keys), DECODER_RULES, mesh)
    state = jax.jit(init, out_shardings=shardings)(keys)
    layer = state.params["layer_0"]
    wanted = {
        "embed": (state.params["embed"], (1, 16, 16)),
        "query": (layer["attention"]["query"]["kernel"], (1, 16, 8)),
        "out": (layer["attention"]["out"]["kernel"], (1, 8, 16)),
        "up": (layer["mlp"]["up"]["kernel"], (1, 16, 32)),
        "down": (layer["mlp"]["down"]["kernel"], (1, 32, 16)),
        "norm": (layer["norm"]["scale"], (1, 4)),
        "odd": (layer["odd"], (1, 7)),
        "moment": (state.opt_state["mu"]["layer_0"]["mlp"]["up"]["kernel"], (1, 16, 32)),
    }
    for name, (leaf, shape) in wanted.items():
        assert {shard.data.shape for shard in leaf.addressable_shards} == {shape}, name
    assert bytes_per_device(state) < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) * 0.6


def test_shard_batch_lays_the_batch_along_data():
    batch = {"x": np.arange(32, dtype=np.float32).reshape(16, 2), "r": np.ones(16, np.float32)}
    assert shard_batch(batch) is batch
    with jax.set_mesh(make_mesh(data=4, model=2)):
        laid = jax.jit(shard_batch)(batch)
    assert {shard.data.shape for shard in laid["x"].addressable_shards} == {(4, 2)}
    assert np.array_equal(laid["x"], batch["x"])


def test_a_batch_that_does_not_divide_is_named():
    with jax.set_mesh(make_mesh()), pytest.raises(ValueError, match="a batch of 12 does not divide over data=8"):
        jax.jit(shard_batch)(np.ones((12, 2)))


def test_upload_replicate_and_gather():
    mesh = make_mesh(seed=2, data=4)
    batch = {"x": np.arange(64.0, dtype=np.float32).reshape(2, 8, 4), "n": np.asarray([3, 4])}
    laid = upload_batch(batch, mesh)
    assert {shard.data.shape for shard in laid["x"].addressable_shards} == {(1, 2, 4)}
    assert np.array_equal(upload_batch(laid, mesh)["x"], batch["x"])
    whole = gather(laid)
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(whole))
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, batch))
    copies = replicate({"x": batch["x"], "scale": 2.5}, mesh)
    assert copies["x"].sharding.is_fully_replicated and len(copies["x"].devices()) == 8
    assert float(copies["scale"]) == 2.5


def test_gather_compiles_a_shape_once():
    laid = upload_batch(np.ones((1, 8, 3), np.float32), make_mesh())
    gather(laid)
    copy = meshes._copy_to_all(laid.sharding.mesh)
    before = copy._cache_size()
    gather(upload_batch(np.zeros((1, 8, 3), np.float32), make_mesh()))
    assert copy._cache_size() == before
