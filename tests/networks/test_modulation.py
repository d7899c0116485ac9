"""Selection and modulators by hand, LoRA and IA3 as changed weights, members that are not selected bit for bit."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import block_diag

from rl_jax.networks import modulation
from rl_jax.networks.lora import apply_lora
from rl_jax.networks.transformer import SelfAttention, Transformer, causal_mask

X = jax.random.normal(jax.random.key(1), (2, 3, 8))
MASK = causal_mask(jnp.ones((2, 3)))
NETWORK = Transformer(num_layers=1, num_heads=2)
PARAMS = jax.jit(NETWORK.init)(jax.random.key(0), X, MASK)
PLAIN = jax.jit(NETWORK.apply)(PARAMS, X, MASK)


@functools.partial(jax.jit, static_argnums=0)
def modulated(kind, own, gate=jnp.ones(2)):
    """The network's output with members [2, ...] of its one block."""
    with nn.intercept_methods(modulation.modulating(kind, {"Block_0": own}, gate, 2.0)):
        return NETWORK.apply(PARAMS, X, MASK)


def member(kind):
    """One that changes something, for both rows."""
    pool = modulation.init_pool(jax.random.key(2), kind, 3, ("Block_0",), 8, 2, 5)["modulators"]["Block_0"]
    noise = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x)[[2, 2]] + np.float32(0.1 * noise.normal(size=x.shape[1:])), pool)


def test_selection_by_hand():
    keys = jnp.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    near = modulation.cosines(jnp.array([[4.0, 3.0], [-1.0, 0.0]]), keys)
    np.testing.assert_allclose(near, [[0.8, 0.6, -0.8], [-1.0, 0.0, 1.0]], atol=1e-6)
    chosen = modulation.select(near, 1)
    np.testing.assert_array_equal(chosen, [[0], [2]])
    assert float(modulation.pull(near, chosen)) == pytest.approx(0.9)
    assert float(modulation.pull(near, jnp.array([[0, 1], [2, 1]]))) == pytest.approx((1.4 + 1.0) / 2)
    counts = modulation.count(jnp.zeros(3), jnp.zeros(()), chosen)
    np.testing.assert_allclose(counts, [0.5, 0.0, 0.5])
    np.testing.assert_allclose(modulation.count(counts, jnp.ones(()), jnp.array([[0], [0]])), [0.75, 0.0, 0.25])
    inverse = modulation.inverse_counts(jnp.array([0.75, 0.05, 0.2]))
    np.testing.assert_allclose(inverse, np.array([4 / 3, 20.0, 5.0]) / (4 / 3 + 25), rtol=1e-4)
    # (0.9, 0.8, 0.1) and (0, 0.5, 1) times the inverse: the rare one, also where its cosine is 0.
    np.testing.assert_array_equal(modulation.select(near, 1, inverse), [[1], [1]])
    # Were a negative cosine multiplied as it is, a frequent member would be favoured.
    below = jnp.array([[-0.5, -0.1, -0.2]])
    assert int(modulation.select(below, 1, inverse)[0, 0]) == 1
    assert int(jnp.argmax(below * inverse)) == 0


def test_purity_by_hand():
    assert modulation.purity(np.eye(3) * 7) == pytest.approx(1.0)
    assert modulation.purity(np.array([[2.0, 1.0], [4.0, 2.0]])) == pytest.approx(0.0, abs=1e-12)
    # Two tasks share a member, the third has its own: ln 3 - (2/3) ln 2 of ln 3.
    shared = np.array([[1, 0], [1, 0], [0, 1]])
    assert modulation.purity(shared) == pytest.approx(1.0 - 2.0 / 3.0 * np.log(2) / np.log(3))


@pytest.mark.parametrize("kind", ["lora", "ia3", "adapter"])
def test_a_fresh_modulator_and_a_closed_gate_change_nothing(kind):
    pool = modulation.init_pool(jax.random.key(2), kind, 3, ("Block_0",), 8, 2, 5)
    fresh = jax.tree.map(lambda x: np.asarray(x)[[0, 2]], pool["modulators"]["Block_0"])
    np.testing.assert_allclose(modulated(kind, fresh), PLAIN, atol=1e-6)
    changed = modulated(kind, member(kind), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(changed[0], PLAIN[0], atol=1e-6)
    assert float(jnp.abs(changed[1] - PLAIN[1]).max()) > 1e-4


def test_lora_is_a_change_of_weights():
    own = member("lora")
    pair = {name: jax.tree.map(lambda x: x[0], own[name]) for name in own}
    wide = {"a": np.concatenate([pair["q"]["a"], np.zeros((8, 2), np.float32), pair["v"]["a"]], 1)}
    wide["b"] = block_diag(pair["q"]["b"], np.zeros((2, 8), np.float32), pair["v"]["b"])
    block = PARAMS["params"]["Block_0"]
    merged = apply_lora(block, {"attention": {"qkv": wide}}, alpha=12.0)  # of rank 6: 2 = alpha / rank
    on_top = np.eye(32) + 2.0 * pair["hidden"]["a"] @ pair["hidden"]["b"]  # acts on the hidden layer's output
    merged["Dense_0"] = {name: x @ on_top for name, x in block["Dense_0"].items()}
    expected = jax.jit(NETWORK.apply)({"params": PARAMS["params"] | {"Block_0": merged}}, X, MASK)
    np.testing.assert_allclose(modulated("lora", own), expected, atol=1e-5)


def test_ia3_is_a_change_of_weights():
    own = member("ia3")
    one = jax.tree.map(lambda x: x[0], own)
    scale, block = np.concatenate([np.ones(8), one["k"], one["v"]]), PARAMS["params"]["Block_0"]
    merged = jax.tree.map(lambda x: x, block)
    merged["attention"]["qkv"] = {name: x * scale for name, x in block["attention"]["qkv"].items()}
    merged["Dense_1"]["kernel"] = one["hidden"][:, None] * block["Dense_1"]["kernel"]
    expected = jax.jit(NETWORK.apply)({"params": PARAMS["params"] | {"Block_0": merged}}, X, MASK)
    np.testing.assert_allclose(modulated("ia3", own), expected, atol=1e-5)


def test_a_prefix_is_attention_over_more_keys_and_values():
    own, gate, block = member("prefix"), jnp.array([0.0, 1.0]), PARAMS["params"]["Block_0"]

    def inside(module, _):
        return isinstance(module, nn.LayerNorm | SelfAttention)

    @jax.jit
    def run():
        with nn.intercept_methods(modulation.modulating("prefix", {"Block_0": own}, gate, 2.0)):
            return NETWORK.apply(PARAMS, X, MASK, capture_intermediates=inside, mutable="intermediates")

    out, seen = run()
    seen = seen["intermediates"]["Block_0"]
    normed, attended = (np.asarray(seen[name]["__call__"][0][1], np.float64) for name in ("LayerNorm_0", "attention"))
    qkv, last = (block["attention"][name] for name in ("qkv", "out"))
    q, k, v = np.split(normed @ qkv["kernel"] + qkv["bias"], 3, -1)
    k, v = np.concatenate([own["k"][1], k]), np.concatenate([own["v"][1], v])
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = np.exp(q[:, head] @ k[:, head].T / 2.0)  # sqrt(4)
        weights[:, 5:] *= np.tril(np.ones((3, 3)))
        heads.append(weights / weights.sum(1, keepdims=True) @ v[:, head])
    np.testing.assert_allclose(attended, np.concatenate(heads, 1) @ last["kernel"] + last["bias"], atol=1e-5)
    np.testing.assert_allclose(out[0], PLAIN[0], atol=1e-6)  # its gate is closed
    assert float(jnp.abs(out[1] - PLAIN[1]).max()) > 1e-2


def test_members_that_are_not_selected_keep_their_bits():
    tx = optax.adamw(0.1, weight_decay=0.1)
    pool = modulation.init_pool(jax.random.key(0), "lora", 3, ("Block_0",), 4, 2, 5)
    state, gradient = jax.vmap(tx.init)(pool), jax.tree.map(jnp.ones_like, pool)
    step = jax.jit(lambda *args: modulation.step_of_selected(tx, *args))
    moving, moved = step(gradient, state, pool, jnp.ones(3, bool))
    # Now all have momentum; gradients of members that are not selected are zero.
    gradient = jax.tree.map(lambda x: x * np.array([0.0, 1.0, 0.0]).reshape(-1, *[1] * (x.ndim - 1)), gradient)
    after, stepped = step(gradient, moved, moving, jnp.array([False, True, False]))
    for old, new in zip(jax.tree.leaves((moving, moved)), jax.tree.leaves((after, stepped)), strict=True):
        np.testing.assert_array_equal(np.asarray(old)[::2], np.asarray(new)[::2])
    assert all(np.any(np.asarray(x)[1] != np.asarray(y)[1]) for x, y in zip(
        jax.tree.leaves(moving), jax.tree.leaves(after), strict=True))
    # A member's step is that of an optimiser which has only its own.
    keys = gradient["keys"], moved[0].mu["keys"], moving["keys"], after["keys"]
    slope, mean, before, now = (np.asarray(x)[1] for x in keys)
    mean, square = 0.9 * mean + 0.1 * slope, 1.0 - 0.999**2  # both gradients are 1
    step_size = mean / (1.0 - 0.9**2) / (np.sqrt(square / (1.0 - 0.999**2)) + 1e-8)
    np.testing.assert_allclose(now, before - 0.1 * (step_size + 0.1 * before), rtol=1e-5)
    # Without the mask decay and momentum move what has no gradient.
    free, _ = step(gradient, moved, moving, jnp.ones(3, bool))
    assert all(np.any(np.asarray(x)[0] != np.asarray(y)[0]) for x, y in zip(
        jax.tree.leaves(moving), jax.tree.leaves(free), strict=True))
