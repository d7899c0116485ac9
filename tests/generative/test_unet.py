"""The U-Net: its size, what it refuses, its options, and how it is laid over devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from rl_jax.core.mesh import bytes_per_device, make_mesh, path_name, state_shardings
from rl_jax.core.program import TrainState
from rl_jax.generative.pretrained import UNET, parameter_shapes
from rl_jax.generative.unet import SHARDING_RULES, UNet, UNetConfig, guidance_embedding, sinusoid
from tests.golden.weights import numbers, weight

TINY = UNetConfig(
    in_channels=3,
    out_channels=3,
    block_out_channels=(8, 8),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=4,
    norm_num_groups=4,
)
IMAGES, CONTEXT = numbers("images", 8, 4, 4, 3), numbers("context", 8, 3, 4)
TIMES = np.arange(8.0, dtype=np.float32)
FAST = {"xla_backend_optimization_level": 0}  # compiles faster, and what is run once is not worth more


@functools.cache
def tiny_params():
    shapes = parameter_shapes(UNET, TINY)
    return jax.tree_util.tree_map_with_path(lambda path, x: jnp.asarray(weight(path_name(path), x.shape)), shapes)


@functools.cache
def stable_diffusion():
    """The shapes of Stable Diffusion 1.5."""
    return parameter_shapes(UNET, UNetConfig())


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
def loss_and_gradients(config, params, images=IMAGES):
    def loss(params):
        return jnp.mean(UNet(config).apply({"params": params}, images, TIMES, CONTEXT).astype(jnp.float32) ** 2)

    return jax.value_and_grad(loss)(params)


def test_stable_diffusion_has_its_859_million_parameters():
    leaves = jax.tree.leaves(stable_diffusion())
    assert len(leaves) == 686
    assert sum(x.size for x in leaves) == 859_520_964
    flat = {path: x.shape for path, x in flatten_dict(stable_diffusion(), sep="/").items()}
    block = "up_blocks_1/attentions_2/transformer_blocks_0"
    assert flat["up_blocks_1/resnets_2/conv1/kernel"] == (3, 3, 1280 + 640, 1280)
    assert flat[f"{block}/attn2/to_k/kernel"] == (768, 1280)
    assert flat[f"{block}/ff/net_0/proj/kernel"] == (1280, 2 * 4 * 1280)


def test_a_fresh_network_gives_zero():
    params = {**tiny_params(), "conv_out": jax.tree.map(jnp.zeros_like, tiny_params()["conv_out"])}
    run = jax.jit(UNet(TINY).apply, compiler_options=FAST)
    assert not run({"params": params}, IMAGES, TIMES, CONTEXT).any()


def test_options_and_the_parameters_they_add():
    names = sorted(flatten_dict(tiny_params(), sep="/"))
    assert sorted(flatten_dict(parameter_shapes(UNET, dataclasses.replace(TINY, remat=True)), sep="/")) == names
    more = flatten_dict(parameter_shapes(UNET, dataclasses.replace(TINY, time_cond_proj_dim=6)), sep="/")
    assert more.pop("time_embedding/cond_proj/kernel").shape == (6, 8)
    assert sorted(more) == names
    half = UNet(dataclasses.replace(TINY, dtype=jnp.bfloat16))
    assert jax.eval_shape(half.apply, {"params": tiny_params()}, IMAGES, TIMES, CONTEXT).dtype == jnp.bfloat16


@pytest.mark.slow
def test_remat_changes_no_number_and_bfloat16_changes_few():
    loss, gradients = loss_and_gradients(TINY, tiny_params())
    again, same = loss_and_gradients(dataclasses.replace(TINY, remat=True), tiny_params())
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale), same, gradients)
    config = dataclasses.replace(TINY, dtype=jnp.bfloat16)
    np.testing.assert_allclose(loss_and_gradients(config, tiny_params())[0], loss, rtol=0.05)


def test_sinusoids():
    waves = sinusoid(jnp.asarray([0.0, 2.0]), 4)
    np.testing.assert_allclose(waves, [[0, 0, 1, 1], [*np.sin([2, 0.02]), *np.cos([2, 0.02])]], atol=1e-6)
    turned = sinusoid(jnp.asarray([0.0, 2.0]), 4, cosine_first=True)
    np.testing.assert_array_equal(turned, jnp.roll(waves, 2, axis=1))
    # Its frequencies are 1 and 1 / 10,000.
    told = guidance_embedding(jnp.asarray([0.002]), 4)
    np.testing.assert_allclose(told, [[*np.sin([2, 2e-4]), *np.cos([2, 2e-4])]], atol=1e-6)
    with pytest.raises(ValueError, match="5 is odd"):
        sinusoid(TIMES, 5)


@pytest.mark.parametrize(
    "images, context, guidance, message",
    [
        ((1, 5, 4, 3), (1, 3, 4), None, "multiples of 2"),
        ((1, 4, 4, 4), (1, 3, 4), None, "in_channels=3"),
        ((1, 4, 4, 3), (1, 3, 5), None, "cross_attention_dim=4"),
        ((1, 4, 4, 3), (1, 3, 4), (1, 6), "guidance of 6 features for a U-Net with time_cond_proj_dim=None"),
    ],
)
def test_wrong_inputs_are_named(images, context, guidance, message):
    shapes = [x if x is None else jax.ShapeDtypeStruct(x, jnp.float32) for x in (images, (1,), context, guidance)]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(UNet(TINY).init, jax.random.key(0), *shapes)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}, "names 'AttnDownBlock2D'"),
        ({"up_block_types": ("UpBlock2D",)}, "1 entries for the 2 levels"),
        ({"attention_head_dim": (2, 2, 2)}, "3 entries for 2 levels"),
    ],
)
def test_wrong_shapes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **settings)


def test_parameters_and_moments_lie_along_the_data_axis():
    mesh = make_mesh()
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), stable_diffusion())
    state = TrainState.create(params, {"mu": params})
    shardings = state_shardings(state, SHARDING_RULES, mesh)

    def place(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    placed = jax.tree.map(place, state.params, shardings.params)
    assert bytes_per_device(placed) < 1.02 * bytes_per_device(params) / 8
    moments = shardings.opt_state["mu"]["mid_block"]["resnets_0"]["conv1"]["kernel"]
    assert moments == shardings.params["mid_block"]["resnets_0"]["conv1"]["kernel"]


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    mesh = make_mesh()
    stacked = jax.tree.map(lambda x: x[None], tiny_params())
    shardings = state_shardings(TrainState.create(stacked, ()), SHARDING_RULES, mesh).params
    along_data = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    params = jax.tree.map(lambda x: x[0], jax.device_put(stacked, shardings))
    loss, gradients = loss_and_gradients(TINY, params, jax.device_put(IMAGES, along_data))
    expected, same = loss_and_gradients(TINY, tiny_params(), IMAGES)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), gradients, same)
