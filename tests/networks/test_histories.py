"""Encoders of histories: flax's GRU cell step by step, resets, causality, and padding on either side."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.networks.histories import GRU, HistoryEncoder, LatentModel, OnHistory

RNG = np.random.default_rng(0)


def rows(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_the_gru_is_flaxs_cell_and_resets_forget():
    x, gru = rows(2, 6, 3), GRU(4)
    resets = jnp.zeros((2, 6), bool).at[1, 3].set(True)
    params = jax.jit(gru.init)(jax.random.key(0), x, resets)["params"]
    params = params | {"bias": rows(4)}
    outputs, last = jax.jit(gru.apply)({"params": params}, x, resets)
    inputs, bias = (np.split(params["inputs"][name], 3, -1) for name in ("kernel", "bias"))
    recurrent = np.split(params["recurrent"], 3, -1)
    cell = {f"i{gate}": {"kernel": k, "bias": b} for gate, k, b in zip("rzn", inputs, bias)}
    cell |= {f"h{gate}": {"kernel": k} for gate, k in zip("rzn", recurrent)}
    cell["hn"]["bias"] = params["bias"]
    step = jax.jit(nn.GRUCell(4).apply)
    for row in range(2):
        h = jnp.zeros(4)
        for t in range(6):
            h = jnp.zeros(4) if resets[row, t] else h
            h, _ = step({"params": cell}, h, x[row, t])
            np.testing.assert_allclose(outputs[row, t], h, atol=1e-5)
        np.testing.assert_allclose(last[row], h, atol=1e-5)


def encoder(kind, *read):
    made = HistoryEncoder(kind, 4, 8, num_layers=1, max_timesteps=16)
    return jax.jit(lambda: made.apply(made.init(jax.random.key(1), *read), *read))()


def history(length):
    return rows(length, 3), rows(length, 2), jnp.arange(length, dtype=jnp.int32), jnp.ones(length)


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_a_latent_sees_its_own_episodes_past_alone(kind):
    """An episode of 5 steps padded behind, as it is learnt; before, as one acts; with other steps later on; and behind
    another episode in one row."""
    one, other = history(5), history(4)

    def padded(parts, before):
        return tuple(
            jnp.pad(x, ((before, 9 - before - len(x)), *((0, 0),) * (x.ndim - 1))) for x in parts
        )

    changed = one[0].at[3].add(1.0), one[1].at[2].add(1.0), *one[2:]  # a_2 is seen from step 3 on
    joined = tuple(jnp.concatenate(pair) for pair in zip(other, one))
    read = [jnp.stack(column) for column in zip(padded(one, 0), padded(one, 4), padded(changed, 0), joined)]
    behind, before, later, after = encoder(kind, *read)
    np.testing.assert_allclose(before[4:], behind[:5], atol=1e-5)
    np.testing.assert_allclose(after[4:], behind[:5], atol=1e-5)
    np.testing.assert_allclose(later[:3], behind[:3], atol=1e-6)
    assert np.all(np.abs(later[3:5] - behind[3:5]).max(-1) > 1e-4)


def test_none_sees_the_observation_of_now_alone_and_an_unknown_kind_is_named():
    one = [x[None] for x in history(3)]
    changed = [one[0].at[:, 1].add(1.0), one[1] + 1.0, *one[2:]]
    latents = [encoder("none", *read) for read in (one, changed)]
    np.testing.assert_array_equal(*(x[:, [0, 2]] for x in latents))
    assert np.any(latents[0][:, 1] != latents[1][:, 1])
    with pytest.raises(ValueError, match="encoder is 'lstm': choose one of none, gru, transformer"):
        encoder("lstm", *one)


def test_heads_and_the_model_have_their_shapes():
    read, heads = [x[None] for x in history(3)], OnHistory(HistoryEncoder("gru", 4, 8), (8,), {"q": 3, "v": 1})
    latents, found = jax.eval_shape(lambda: heads.apply(heads.init(jax.random.key(0), *read), *read))
    assert latents.shape == (1, 3, 4) and [found[name].shape for name in "qv"] == [(1, 3, 3), (1, 3, 1)]
    latents, model = rows(1, 3, 4), LatentModel((8,))
    actions = rows(1, 3, 2)
    reward, mean, std = jax.jit(model.init_with_output)(jax.random.key(0), latents, actions)[0]
    assert reward.shape == (1, 3) and mean.shape == std.shape == latents.shape and np.all(std > 0)
