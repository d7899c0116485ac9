"""Collectives and memory of compiled programs: lines as XLA writes them, by hand, and a program whose traffic is known.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rl_jax.core.compiled import collectives, traffic
from rl_jax.core.mesh import make_mesh

IOTA = "%a = f32[256,256]{1,0} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}"
LISTED = "%a = bf16[8,4]{1,0} all-gather(%p), replica_groups={{0,1},{2,3}}, dimensions={0}"
OF_MESH = "%a = f32[8]{0} all-reduce(%p), replica_groups=mesh['x'=4,'y'=2], device_ids=([8]) {'x','y'}, to_apply=%add"
PERMUTE = "%c = f32[64,2]{0,1} collective-permute(%p), source_target_pairs={{0,0},{1,2}}"
STARTED = "%a = (f32[4]{0}, f32[16]{0}) all-gather-start(%p), replica_groups=[1,4]<=[4], dimensions={0}"


@pytest.mark.parametrize("line, kind, received", [
    (IOTA, "all-gather", 256 * 256 * 4 * 3 / 4), (LISTED, "all-gather", 8 * 4 * 2 / 2),
    (OF_MESH, "all-reduce", 2 * 8 * 4 * 7 / 8), (PERMUTE, "collective-permute", 64 * 2 * 4),
    (STARTED, "all-gather", 16 * 4 * 3 / 4),
])
def test_what_a_device_receives(line, kind, received):
    assert collectives(f"ENTRY main\n  {line}\n  %b = f32[2]{{0}} add(%a, %a)\n") == ({kind: 1}, received)


def test_a_collective_of_unknown_devices_is_named():
    with pytest.raises(ValueError, match="does not say between which devices it is: %a = f32"):
        collectives("%a = f32[8]{0} all-gather(%p), dimensions={0}")


def test_a_gather_of_a_known_size():
    mesh = make_mesh(data=4, model=2)
    x = jax.device_put(jnp.zeros((64, 8)), NamedSharding(mesh, P(("model", "data"))))
    gather = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P("model")))
    found = traffic(gather.lower(x).compile())
    assert found == ({"all-gather": 1}, 64 * 8 * 4 * (1 / 2 - 1 / 8), 0, 64 * 8 * 4 // 2)
