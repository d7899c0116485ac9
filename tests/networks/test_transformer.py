"""The transformer and the decision transformer: numpy's attention, causality, padding, dropout, initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from rl_jax.networks.decision_transformer import DecisionTransformer
from rl_jax.networks.dropout import Dropout
from rl_jax.networks.transformer import SelfAttention, Transformer, causal_mask, gelu

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def filled(network, *inputs):
    """Parameters of order 1, so that every input tells in the output."""
    shapes = jax.eval_shape(network.init, KEY, *inputs)
    return jax.tree.map(lambda x: 0.5 * drawn(*x.shape), shapes)


@pytest.mark.parametrize("num_heads", [1, 3])
def test_attention_is_what_numpy_computes_head_by_head(num_heads):
    x, mask = drawn(2, 5, 6), causal_mask(jnp.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 1]]))
    network = SelfAttention(num_heads)
    params = filled(network, x, mask)
    qkv, out = (jax.tree.map(np.asarray, params["params"][name]) for name in ("qkv", "out"))
    query, key, value = np.split(np.asarray(x) @ qkv["kernel"] + qkv["bias"], 3, axis=-1)
    joined, width = np.zeros(x.shape), 6 // num_heads
    for b in range(2):
        for head in range(num_heads):
            own = np.s_[b, :, head * width : (head + 1) * width]
            for i in range(5):
                seen = [j for j in range(i + 1) if mask[b, i, j]]
                weights = scipy.special.softmax([query[own][i] @ key[own][j] / np.sqrt(width) for j in seen])
                joined[own][i] = weights @ value[own][seen]
    expected = joined @ out["kernel"] + out["bias"]
    np.testing.assert_allclose(jax.jit(network.apply)(params, x, mask), expected, atol=2e-5)


def test_who_sees_whom():
    seen = causal_mask(jnp.array([[1.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(seen, [[[1, 0, 0], [1, 0, 0], [1, 0, 1]]])


def test_gelu_is_x_times_the_normal_distribution():
    x = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), x * scipy.stats.norm.cdf(x), atol=1e-6)


def test_a_width_that_heads_do_not_divide_is_named():
    with pytest.raises(ValueError, match="6 does not divide over num_heads=4"):
        jax.eval_shape(SelfAttention(4).init, KEY, drawn(1, 2, 6), jnp.ones((1, 2, 2), bool))


@pytest.mark.parametrize("shape", [(40, 50), (3, 7, 5)])
def test_dropout_drops_its_share_and_keeps_the_mean(shape):
    def dropped(rate, key):
        return Dropout(rate).apply({}, jnp.ones(shape), False, rngs={"dropout": key})

    # Compiled with a rate that it does not know.
    draws = jax.jit(jax.vmap(dropped, (None, 0)))(0.3, jax.random.split(KEY, 500))
    np.testing.assert_allclose(draws[draws > 0], 1 / 0.7, rtol=1e-6)
    size = draws.size
    assert abs(float(jnp.mean(draws == 0)) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / size)
    # Entries are independent: two neighbours are dropped together as often as chance has it.
    flat = np.asarray(draws == 0).reshape(500, -1)
    assert abs(np.mean(flat[:, 1:] & flat[:, :-1]) - 0.09) < 5 * np.sqrt(0.09 * 0.91 / size)
    assert np.any(draws[0] != draws[1])


def test_dropout_of_rate_zero_and_a_deterministic_call_change_nothing():
    x = drawn(3, 5)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, False, rngs={"dropout": KEY}), x)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, True), x)


def test_a_later_token_changes_no_earlier_output():
    network, x = Transformer(2, 2), drawn(1, 6, 8)
    mask = causal_mask(jnp.ones((1, 6)))
    params = filled(network, x, mask)
    apply = jax.jit(network.apply)
    before, after = (np.asarray(apply(params, y, mask)) for y in (x, x.at[:, 3, 0].add(1.0)))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (np.abs(before - after)[:, 3:].max(-1) > 1e-3).all()


def test_a_token_that_sees_none_is_finite():
    network, x = Transformer(1, 1), drawn(1, 3, 4)
    mask = jnp.zeros((1, 3, 3), bool)
    assert np.isfinite(jax.jit(network.apply)(filled(network, x, mask), x, mask)).all()


NETWORK = DecisionTransformer(action_dim=2, embedding_dim=8, num_layers=2, num_heads=2, max_timesteps=9)
FIELDS = ("observations", "actions", "returns_to_go", "timesteps", "mask")
INPUTS = {
    "observations": drawn(3, 4, 5), "actions": drawn(3, 4, 2), "returns_to_go": drawn(3, 4),
    "timesteps": jnp.tile(jnp.arange(2, 6, dtype=jnp.int32), (3, 1)), "mask": jnp.ones((3, 4)),
}
PARAMS = filled(NETWORK, *INPUTS.values())
APPLY = jax.jit(NETWORK.apply)


def actions_of(**changed) -> np.ndarray:
    inputs = INPUTS | changed
    return np.asarray(APPLY(PARAMS, *(inputs[field] for field in FIELDS)))


@pytest.mark.parametrize("field", ["observations", "returns_to_go", "timesteps", "actions"])
def test_an_action_depends_on_the_past_alone_and_not_on_itself(field):
    step = 2
    after = actions_of(**{field: INPUTS[field].at[:, step].add(1)})
    moved = np.abs(after - actions_of()).max((0, 2)) > 1e-4
    own = field != "actions"  # the step's own action is what is asked for
    np.testing.assert_array_equal(moved, [False, False, own, True])


@pytest.mark.parametrize("before", [True, False])
def test_padding_changes_nothing_wherever_it_lies_and_whatever_it_holds(before):
    real = {field: x[:, :2] for field, x in INPUTS.items()}
    padding = {
        "observations": drawn(3, 2, 5), "actions": drawn(3, 2, 2), "returns_to_go": drawn(3, 2),
        "timesteps": jnp.full((3, 2), 7), "mask": jnp.zeros((3, 2)),
    }
    parts = (padding, real) if before else (real, padding)
    padded = {field: jnp.concatenate([part[field] for part in parts], axis=1) for field in FIELDS}
    got = actions_of(**padded)[:, 2:] if before else actions_of(**padded)[:, :2]
    np.testing.assert_allclose(got, APPLY(PARAMS, *real.values()), atol=1e-6)


def test_time_steps_beyond_the_last_embedding_share_it():
    far, last = (actions_of(timesteps=jnp.full((3, 4), t)) for t in (50, 8))
    np.testing.assert_array_equal(far, last)
    assert np.any(last != actions_of(timesteps=jnp.full((3, 4), 7)))


def test_parameter_count_and_initial_weights():
    network = DecisionTransformer(action_dim=3, embedding_dim=32, num_layers=2, num_heads=1, max_timesteps=1000)
    inputs = (drawn(1, 2, 11), drawn(1, 2, 3), drawn(1, 2), jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2)))
    params = jax.jit(network.init)(KEY, *inputs)
    d, norm = 32, 2 * 32
    block = 2 * norm + (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    embeddings = 1000 * d + (11 + 3 + 1) * d + 3 * d
    assert sum(x.size for x in jax.tree.leaves(params)) == embeddings + norm + 2 * block + norm + d * 3 + 3
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        expected = {"kernel": 0.02, "embedding": 0.02, "bias": 0.0, "scale": 0.0}[path[-1].key]
        assert np.std(x) == pytest.approx(expected, rel=0.3), path
        assert np.mean(x) == pytest.approx(float(path[-1].key == "scale"), abs=0.01), path
