"""Roles: layouts of one mesh, what moving between them costs and frees, roles on meshes of their own, anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rl_jax.core.compiled import traffic
from rl_jax.core.mesh import bytes_per_device, make_mesh, resident_shardings
from rl_jax.language.anchors import adapters_off, next_anchor, soup
from rl_jax.language.roles import (
    TRAINING_RULES,
    Role,
    fetch,
    generation_rules,
    offload,
    place,
    put_batch,
    relayout,
    relayout_program,
    split_rules,
)
from rl_jax.networks.lora import apply_lora, init_lora

GENERATION = generation_rules(TRAINING_RULES)
SHAPES = {
    "embed": {"embedding": (64, 16)}, "norm": {"scale": (16,)},
    "layers": {"attention": {"q": {"kernel": (2, 16, 32)}, "o": {"kernel": (2, 32, 16)}}},
}
TREE = jax.tree.map(
    lambda shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape), SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
)
TOTAL = sum(x.nbytes for x in jax.tree.leaves(TREE))
MESH = make_mesh(data=4, model=2)


def same(tree) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(tree), TREE)))


def test_generation_keeps_the_major_axis_of_training():
    assert GENERATION == split_rules(("model",))
    assert dict(GENERATION)[r"embed/embedding$"] == (("model",), None)
    assert generation_rules((("a", "fsdp"), ("b", ("data", None)))) == (("a", "replicate"), ("b", (None, None)))
    trained = place(TREE, MESH, TRAINING_RULES)
    assert trained["embed"]["embedding"].sharding.spec == P(("model", "data"), None)
    scale = TREE["norm"]["scale"].nbytes
    assert bytes_per_device(trained) == (TOTAL - scale) / 8 + scale


def test_there_and_back_is_equal_to_the_bit():
    trained = place(TREE, MESH, TRAINING_RULES)
    generating = relayout(trained, MESH, GENERATION)
    scale = TREE["norm"]["scale"].nbytes
    assert bytes_per_device(generating) == (TOTAL - scale) / 2 + scale
    assert same(generating) and same(relayout(generating, MESH, TRAINING_RULES))
    assert generating["norm"]["scale"] is trained["norm"]["scale"]  # lies right already


def test_donation_does_not_free_what_freeing_does():
    """Shards of two layouts differ in size, so that no buffer can be used again."""
    donated = place(TREE, MESH, TRAINING_RULES)["embed"]["embedding"]
    goal = resident_shardings(TREE, GENERATION, MESH)["embed"]["embedding"]
    jax.block_until_ready(jax.device_put(donated, goal, donate=True))
    assert not donated.is_deleted()
    freed = place(TREE, MESH, TRAINING_RULES)
    generating = relayout(freed, MESH, GENERATION, free=True)
    assert freed["embed"]["embedding"].is_deleted() and same(generating)
    assert not generating["norm"]["scale"].is_deleted()


def test_a_cast_comes_before_what_is_sent():
    trained = jax.tree.leaves({"embed": place(TREE, MESH, TRAINING_RULES)["embed"]})
    goals = tuple(jax.tree.leaves(resident_shardings({"embed": TREE["embed"]}, GENERATION, MESH)))
    sources = tuple(x.sharding for x in trained)
    full, half = (
        traffic(relayout_program(sources, goals, dtype).lower(trained).compile()).received
        for dtype in (None, jnp.float16)  # XLA moves bfloat16 as float32 on a CPU
    )
    assert half == full / 2 == 64 * 16 * 4 * (1 / 2 - 1 / 8) / 2
    small = relayout(place(TREE, MESH, TRAINING_RULES), MESH, GENERATION, dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(small)} == {jnp.dtype(jnp.bfloat16)}


def test_layouts_of_other_devices_and_of_the_host():
    first, others = (make_mesh(data=2, model=2, devices=part) for part in (jax.devices()[:4], jax.devices()[4:]))
    trained = place(TREE, first, TRAINING_RULES)
    sent = relayout(trained, others, GENERATION, free=True)
    assert same(sent) and set(sent["embed"]["embedding"].devices()) == set(jax.devices()[4:])
    assert trained["embed"]["embedding"].is_deleted()
    away = offload(sent)
    assert {x.sharding.memory_kind for x in jax.tree.leaves(away)} == {"pinned_host"}
    back = fetch(away)
    assert same(back) and back["embed"]["embedding"].sharding == sent["embed"]["embedding"].sharding


@jax.jit
def scaled(params, x):
    return x * params["norm"]["scale"][0] + jnp.sum(params["embed"]["embedding"])


def test_a_role_takes_its_batch_to_its_mesh():
    """A compiled function refuses arrays of two meshes; a role computes the same wherever it and its batch lie."""
    first, others = (make_mesh(data=2, model=2, devices=part) for part in (jax.devices()[:4], jax.devices()[4:]))
    role, batch = Role(TREE, TRAINING_RULES), put_batch(np.ones((6, 3), np.float32), first)
    assert batch.sharding.spec == P("data") and put_batch(np.ones(3), first).sharding.spec == P()
    placed = role.placed(others)
    with pytest.raises(ValueError, match="[Ii]ncompatible devices"):
        scaled(placed.params, batch)
    found = placed.run(scaled, batch)
    assert set(found.devices()) == set(jax.devices()[4:])
    np.testing.assert_array_equal(np.asarray(found), scaled(TREE, np.ones((6, 3), np.float32)))
    rollout = placed.relaid(GENERATION)
    rollout.free(shared=placed.params)
    assert rollout.params["embed"]["embedding"].is_deleted() and same(placed.params)


def test_inside_of_a_step_a_role_is_a_part_of_it():
    @jax.jit
    def step(params, x):
        return Role(params, TRAINING_RULES).relaid(GENERATION).run(scaled, x)

    expected = scaled(TREE, np.ones(3, np.float32))
    np.testing.assert_array_equal(step(TREE, np.ones(3, np.float32)), expected)
    with jax.set_mesh(MESH):
        trained = place(TREE, MESH, TRAINING_RULES)
        np.testing.assert_array_equal(step(trained, np.ones(3, np.float32)), expected)
        assert traffic(step.lower(trained, np.ones(3, np.float32)).compile()).counts["all-gather"] > 0


def test_anchors():
    old, new = {"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([2.0, 5.0])}
    assert next_anchor("frozen", old, new) is old
    np.testing.assert_array_equal(next_anchor("previous", old, new)["w"], new["w"])
    np.testing.assert_allclose(next_anchor("ema", old, new, 0.75)["w"], [1.25, 3.5])
    with pytest.raises(ValueError, match="unknown anchor 'emma': did you mean ema"):
        next_anchor("emma", old, new)
    # 256 + 1 + 1 has no place in bfloat16's eight bits before the mean is taken.
    parts = [{"w": jnp.array([x], jnp.bfloat16)} for x in (256.0, 1.0, 1.0)]
    assert soup(parts)["w"].dtype == jnp.float32 and float(soup(parts)["w"][0]) == 86.0
    adapters = jax.tree.map(jnp.ones_like, init_lora(jax.random.key(0), TREE, 2, "q/kernel", jnp.float32))
    assert not same(apply_lora(TREE, adapters, 4.0)) and same(adapters_off(TREE, adapters, 4.0))
