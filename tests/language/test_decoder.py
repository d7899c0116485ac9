"""The decoder: numpy's forward pass token by token, documents in a row, embeddings, the cache, devices, bad shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rl_jax.core.mesh import make_mesh, path_name, resident_shardings, upload
from rl_jax.language import attention as attentions
from rl_jax.language.attention import attention, causal
from rl_jax.language.decoder import (
    SHARDING_RULES,
    Decoder,
    DecoderConfig,
    cache_bytes,
    decode,
    embed,
    head_kernel,
    init_cache,
    logits,
    unstack,
)
from rl_jax.language.rotary import frequencies

CONFIG = DecoderConfig(
    vocab_size=32, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=6, hidden_width=24, norm_eps=1e-3,
    qkv_bias=True, qk_norm=True, context_length=32,
)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 32, (8, 10))
POSITIONS = np.tile(np.arange(10), (8, 1))
# Of order 1, so that every input tells in the output.
PARAMS = jax.tree.map(
    lambda x: jnp.asarray(RNG.normal(size=x.shape) * 0.4, jnp.float32),
    jax.eval_shape(Decoder(CONFIG).init, jax.random.key(0), TOKENS, POSITIONS, POSITIONS)["params"],
)


@jax.jit
def run(inputs, positions, segments):
    return Decoder(CONFIG).apply({"params": PARAMS}, inputs, positions, segments)


def by_hand(params, tokens):
    """Hidden states of one document, in float64, a head and a token after another."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    d = CONFIG.head_dim

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2) + CONFIG.norm_eps) * scale

    def turn(x, position):
        pairs = x[: d // 2] + 1j * x[d // 2 :]
        pairs = pairs * np.exp(1j * position * CONFIG.rope_theta ** (-2 * np.arange(d // 2) / d))
        return np.concatenate([pairs.real, pairs.imag])

    stream = list(params["embed"]["embedding"][tokens])
    for number in range(CONFIG.num_layers):
        layer = jax.tree.map(lambda x, number=number: x[number], params["layers"])
        given, keys, values = layer["attention"], [], []
        for t, x in enumerate(stream):
            x = norm(x, layer["input_norm"]["scale"])
            query, key, value = (
                np.split(x @ given[name]["kernel"] + given[name]["bias"], heads)
                for name, heads in (("q", CONFIG.num_heads), ("k", CONFIG.num_kv_heads), ("v", CONFIG.num_kv_heads))
            )
            keys.append([turn(norm(k, given["k_norm"]["scale"]), t) for k in key])
            values.append(value)
            seen = []
            for head, q in enumerate(query):
                q, own = turn(norm(q, given["q_norm"]["scale"]), t), head // 2
                weights = np.exp([q @ k[own] / np.sqrt(d) for k in keys])
                seen.append(sum(w * v[own] for w, v in zip(weights, values, strict=True)) / weights.sum())
            stream[t] = stream[t] + np.concatenate(seen) @ given["o"]["kernel"]
        for t, x in enumerate(stream):
            x, mlp = norm(x, layer["post_norm"]["scale"]), layer["mlp"]
            gate = x @ mlp["gate"]["kernel"]
            stream[t] = stream[t] + (gate / (1 + np.exp(-gate)) * (x @ mlp["up"]["kernel"])) @ mlp["down"]["kernel"]
    return np.array([norm(x, params["norm"]["scale"]) for x in stream])


def test_hidden_states_are_those_computed_by_hand():
    found = run(TOKENS, POSITIONS, np.ones_like(POSITIONS))
    np.testing.assert_allclose(found[3], by_hand(PARAMS, TOKENS[3]), atol=2e-5)


def test_packed_documents_are_as_if_alone_and_padding_reaches_nothing():
    tokens, segments = TOKENS.copy(), np.repeat([1, 2, 0], [4, 3, 3])[None].repeat(8, 0)
    positions = np.array([0, 1, 2, 3, 0, 1, 2, 0, 0, 0])[None].repeat(8, 0)
    found = run(tokens, positions, segments)
    np.testing.assert_allclose(found[0, :4], by_hand(PARAMS, tokens[0, :4]), atol=2e-5)
    np.testing.assert_allclose(found[0, 4:7], by_hand(PARAMS, tokens[0, 4:7]), atol=2e-5)
    tokens[:, 7:] = 1
    np.testing.assert_array_equal(run(tokens, positions, segments)[:, :7], found[:, :7])
    assert np.all(np.isfinite(found))


def test_embeddings_enter_as_their_tokens_do():
    segments = np.ones_like(POSITIONS)
    np.testing.assert_array_equal(
        run(embed(PARAMS, TOKENS), POSITIONS, segments), run(TOKENS, POSITIONS, segments)
    )


def test_decoding_in_parts_gives_the_whole_row_and_padding_in_between_is_not_seen():
    whole = run(TOKENS, POSITIONS, np.ones_like(POSITIONS))
    step, cache = jax.jit(decode, static_argnums=0, donate_argnums=4), init_cache(CONFIG, 8, 14)
    assert sum(x.nbytes for x in jax.tree.leaves(cache)) == cache_bytes(CONFIG, 8, 14)
    layers = unstack(PARAMS, CONFIG)
    # Row 0 has only 4 of the first 8 places, and goes on with its fifth token where the others have their ninth.
    lengths = np.array([4] + [8] * 7)
    positions = np.where(np.arange(8) < lengths[:, None], np.arange(8), -1)
    first, cache = step(CONFIG, layers, TOKENS[:, :8], positions, cache)
    np.testing.assert_allclose(first[0, :4], whole[0, :4], atol=1e-5)
    np.testing.assert_allclose(first[1:], whole[1:, :8], atol=1e-5)
    for count in range(2):
        at = lengths + count
        tokens = np.take_along_axis(TOKENS, at[:, None], axis=1)
        hidden, cache = step(CONFIG, layers, tokens, at[:, None], cache)
        np.testing.assert_allclose(hidden[:, 0], whole[np.arange(8), at], atol=1e-5)


@pytest.mark.parametrize("attend", [attention, attentions._in_blocks])
def test_blocks_of_queries_change_neither_values_nor_gradients(attend, monkeypatch):
    query, key, value = (jnp.asarray(RNG.normal(size=(2, 10, n, 6)), jnp.float32) for n in (4, 2, 2))
    mask = causal(jnp.array([[1] * 10, [1] * 4 + [2] * 6]))

    def both(function):
        loss = jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(function(*x))), argnums=(0, 1, 2))
        return jax.jit(loss)(query, key, value)

    expected = both(lambda *x: jax.nn.dot_product_attention(*x, mask=mask[:, None]))
    monkeypatch.setattr(attentions, "BLOCK", 4)  # the last one is shorter
    found = both(lambda *x: attend(*x, mask))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_layers_recomputed_in_the_backward_pass_give_the_same_gradient():
    def gradient(remat):
        network, ones = Decoder(CONFIG, remat=remat), np.ones_like(POSITIONS)
        return jax.jit(jax.grad(lambda p: jnp.sum(network.apply({"params": p}, TOKENS, POSITIONS, ones) ** 2)))(PARAMS)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), gradient(False), gradient(True))


def test_bfloat16_is_near_and_its_norms_and_head_are_float32():
    network, ones = Decoder(CONFIG, dtype=jnp.bfloat16), np.ones_like(POSITIONS)
    hidden = jax.jit(network.apply)({"params": PARAMS}, TOKENS, POSITIONS, ones)
    assert hidden.dtype == jnp.float32 and logits(hidden, head_kernel(PARAMS, CONFIG)).dtype == jnp.float32
    assert 1e-4 < np.max(np.abs(hidden - run(TOKENS, POSITIONS, ones))) < 0.1


def test_eight_devices_give_what_one_gives():
    """Values within 1e-5 and gradients within 1e-4 of their size: sums over devices come in another order."""
    mesh = make_mesh(data=4, model=2)
    shardings = resident_shardings({"params": PARAMS}, SHARDING_RULES, mesh)["params"]
    laid = {path_name(path): x.spec for path, x in jax.tree_util.tree_leaves_with_path(shardings)}
    assert laid["layers/attention/q/kernel"] == P(None, "data", "model") and laid["layers/post_norm/scale"] == P()
    assert laid["layers/mlp/down/kernel"] == P(None, "model", "data") and laid["embed/embedding"] == P("data", None)

    @jax.jit
    def loss(params, tokens):
        hidden = Decoder(CONFIG).apply({"params": params}, tokens, POSITIONS, np.ones_like(POSITIONS))
        scores = jax.nn.log_softmax(logits(hidden, head_kernel(params, CONFIG)))
        return -jnp.mean(jnp.take_along_axis(scores[:, :-1], tokens[:, 1:, None], axis=-1))

    expected = jax.jit(jax.value_and_grad(loss))(PARAMS, TOKENS)
    with jax.set_mesh(mesh):
        tokens = jax.device_put(TOKENS, NamedSharding(mesh, P("data")))
        found = jax.jit(jax.value_and_grad(loss))(upload(PARAMS, shardings), tokens)
    assert len(found[1]["layers"]["mlp"]["up"]["kernel"].sharding.device_set) == 8
    assert abs(found[0] - expected[0]) < 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max()), found[1], expected[1])


def test_frequencies_of_llama_3_by_hand():
    """Of the pairs of a head of 8 with theta 10^4 in a context of 628: 100 turns stay, 0.1 are divided by 8, and 10 and
    1 lie at factors (1 to 4: kept in full) and (1: divided in full)."""
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 19.0,
        "original_max_position_embeddings": 200 * np.pi,
    }
    found, factor = frequencies(8, 1e4, tuple(scaling.items()))
    kept = (10 - 1) / (19 - 1)
    np.testing.assert_allclose(found, [1, 0.1 * (kept + (1 - kept) / 8), 0.01 / 8, 0.001 / 8], rtol=1e-6)
    assert factor == 1


@pytest.mark.parametrize("changed, message", [
    ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide num_heads=4"),
    ({"head_dim": 5}, "head_dim=5 is odd"),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "type 'dynamic': known are linear, llama3, yarn"),
    ({"rope_scaling": {"type": "llama3", "factor": 2.0}}, "lacks low_freq_factor, high_freq_factor"),
])
def test_a_shape_that_cannot_be_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changed)


def test_a_configuration_can_be_hashed_and_old_files_name_their_scaling_otherwise():
    old = dataclasses.replace(CONFIG, rope_scaling={"type": "linear", "factor": 2.0})
    assert hash(old) == hash(dataclasses.replace(CONFIG, rope_scaling={"rope_type": "linear", "factor": 2.0}))
    assert dataclasses.replace(CONFIG, rope_scaling={"rope_type": "default"}) == CONFIG


class TestCudnn:
    """The choice, with what only a GPU has replaced; `-m gpu` runs it there."""

    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch):
        attentions.cudnn_agrees.cache_clear()
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        yield
        attentions.cudnn_agrees.cache_clear()

    def agrees(self):
        return attentions.cudnn_agrees("bfloat16", 4, 8, 2)

    def test_what_agrees_is_used_and_tried_once_even_inside_a_trace(self, monkeypatch):
        calls = []

        def exact(query, key, value, lengths):
            calls.append(query.shape)
            return attentions._in_blocks(query, key, value, causal(jnp.arange(query.shape[1]) < lengths[:, None]))

        monkeypatch.setattr(attentions, "_by_lengths", exact)
        array = jnp.ones((2, 5, 4, 8), jnp.bfloat16)
        mask, lengths = causal(jnp.ones((2, 5), int)), jnp.array([5, 5])
        jax.jit(attention)(array, array[:, :, :2], array[:, :, :2], mask, lengths)
        assert calls == [(2, 128, 4, 8), (2, 5, 4, 8)] and self.agrees()
        jax.jit(attention)(array, array[:, :, :2], array[:, :, :2], mask)  # packed rows never ask
        assert len(calls) == 2

    def test_what_is_off_or_fails_is_not(self, monkeypatch, caplog):
        def off(query, key, value, lengths):
            return 1.1 * attentions._in_blocks(query, key, value, causal(jnp.arange(128) < lengths[:, None]))

        monkeypatch.setattr(attentions, "_by_lengths", off)
        assert not self.agrees() and "off XLA's" in caplog.text
        attentions.cudnn_agrees.cache_clear()
        monkeypatch.undo()
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert not self.agrees() and "does not run here" in caplog.text
        assert not attentions.cudnn_agrees("float32", 4, 8, 2)


@pytest.mark.gpu
def test_cudnn_agrees_on_a_gpu():
    assert attentions.cudnn_agrees("bfloat16", 8, 64, 4)
