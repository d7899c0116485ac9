"""Adapters of attention: fresh ones change nothing, merged kernels are those made by hand, only adapters train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.pretrained import UNET, parameter_shapes
from rl_jax.generative.unet import ATTENTION_KERNELS, UNetConfig
from rl_jax.networks.lora import apply_lora, init_lora

PARAMS = {
    "attn1": {
        "to_q": {"kernel": jnp.arange(6.0).reshape(2, 3)},
        "to_out_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
    },
    "norm": {"scale": jnp.ones(2)},
}


def test_fresh_adapters_change_nothing():
    adapters = init_lora(jax.random.key(0), PARAMS, 2, ATTENTION_KERNELS)
    assert jax.tree.map(jnp.shape, adapters) == {
        "attn1": {"to_q": {"a": (2, 2), "b": (2, 3)}, "to_out_0": {"a": (3, 2), "b": (2, 2)}}
    }
    jax.tree.map(np.testing.assert_array_equal, apply_lora(PARAMS, adapters, 8.0), PARAMS)


def test_the_first_factor_is_normal_with_deviation_one_over_rank():
    a = init_lora(jax.random.key(0), {"to_k": {"kernel": jnp.zeros((4000, 5))}}, 4, "to_k")["to_k"]["a"]
    assert abs(float(a.std()) - 0.25) < 0.01 and abs(float(a.mean())) < 0.01


def test_a_merged_kernel_is_the_one_made_by_hand():
    a, b = jnp.asarray([[1.0, 2.0], [0.0, 1.0]]), jnp.asarray([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]])
    merged = apply_lora(PARAMS, {"attn1": {"to_q": {"a": a, "b": b}}}, alpha=6.0)
    # A B = [[5, 2, -1], [2, 1, 0]], times 6 / 2.
    np.testing.assert_array_equal(merged["attn1"]["to_q"]["kernel"], [[15.0, 7.0, -1.0], [9.0, 7.0, 5.0]])
    assert merged["attn1"]["to_out_0"]["kernel"] is PARAMS["attn1"]["to_out_0"]["kernel"]


def test_gradients_are_of_the_adapters_alone_and_start_at_b():
    adapters = init_lora(jax.random.key(0), PARAMS, 2, ATTENTION_KERNELS)
    x = jnp.asarray([1.0, -1.0])

    def output(adapters):
        return (x @ apply_lora(PARAMS, adapters, 2.0)["attn1"]["to_q"]["kernel"]).sum()

    gradients = jax.grad(output)(adapters)
    np.testing.assert_array_equal(gradients["attn1"]["to_q"]["a"], 0.0)
    expected = (x @ adapters["attn1"]["to_q"]["a"])[:, None] * jnp.ones(3)
    np.testing.assert_allclose(gradients["attn1"]["to_q"]["b"], expected, rtol=1e-6)


def test_stacked_kernels_get_stacked_adapters():
    """Each layer of a stack is adapted as by itself."""
    params = {"layers": {"q": {"kernel": jnp.arange(12.0).reshape(2, 2, 3)}}}
    adapters = init_lora(jax.random.key(0), params, 2, "q")
    assert jax.tree.map(jnp.shape, adapters) == {"layers": {"q": {"a": (2, 2, 2), "b": (2, 2, 3)}}}
    adapters = jax.tree.map(lambda x: x + 0.5, adapters)
    merged = apply_lora(params, adapters, 3.0)["layers"]["q"]["kernel"]
    for layer in range(2):
        own = (jax.tree.map(lambda x, layer=layer: x[layer], tree["layers"]) for tree in (params, adapters))
        np.testing.assert_allclose(merged[layer], apply_lora(*own, 3.0)["q"]["kernel"], rtol=1e-6)


def test_adapters_stack_on_a_leading_axis_and_zeros_are_the_reference():
    fresh = init_lora(jax.random.key(0), PARAMS, 2, ATTENTION_KERNELS)
    several = [jax.tree.map(lambda x, n=n: n * (x + 1.0), fresh) for n in (1.0, 2.0, 0.0)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    merged = jax.vmap(apply_lora, (None, 0, None))(PARAMS, stacked, 4.0)
    for number, own in enumerate(several):
        alone = apply_lora(PARAMS, own, 4.0)
        jax.tree.map(lambda x, y, n=number: np.testing.assert_allclose(x[n], y, rtol=1e-6), merged, alone)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[2], y), merged, PARAMS)


def test_a_kernel_keeps_its_dtype():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    merged = apply_lora(half, init_lora(jax.random.key(0), half, 1, ATTENTION_KERNELS), 1.0)
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}


def test_all_attention_of_a_unet_is_adapted_and_nothing_else():
    config = UNetConfig(
        block_out_channels=(8, 8), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=4,
    )
    shapes = parameter_shapes(UNET, config)
    adapters = jax.eval_shape(lambda key: init_lora(key, shapes, 4, ATTENTION_KERNELS), jax.random.key(0))
    transformers = 1 + 1 + 2  # down, middle, up
    assert len(jax.tree.leaves(adapters)) == transformers * 2 * 4 * 2


def test_what_cannot_be_adapted_is_named():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="nothing to adapt"):
        init_lora(key, PARAMS["norm"], 2, ATTENTION_KERNELS)
    with pytest.raises(ValueError, match="rank of adapters is 0"):
        init_lora(key, PARAMS, 0, ATTENTION_KERNELS)
    with pytest.raises(ValueError, match="norm/scale has the shape"):
        init_lora(key, PARAMS, 2, layers="norm")
    with pytest.raises(ValueError, match="adapters of attn2/to_out_0/kernel"):
        apply_lora(PARAMS, {"attn2": init_lora(key, PARAMS, 2, ATTENTION_KERNELS)["attn1"]}, 1.0)
