"""Judgements by samples against the exact ones, where all texts can be listed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.core.program import TrainState
from rl_jax.language import enumeration
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.distribution_matching import Target, text_log_probs
from rl_jax.language.sampled_judgement import distinct_pairs, sampled_judge, wanted_texts

SHAPE = DecoderConfig(vocab_size=3, width=8, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=4, hidden_width=16)
PRIOR, POLICY = (
    jax.tree.map(lambda x: 20.0 * x, jax.jit(init_decoder, static_argnums=0)(SHAPE, jax.random.key(seed)))
    for seed in (0, 1)
)


def holds(texts):
    return jnp.any(texts == 2, axis=-1).astype(jnp.float32)


def test_estimates_are_the_exact_divergences():
    target = Target(lambda texts: jnp.log(holds(texts)), holds)
    wanted = wanted_texts(SHAPE, PRIOR, 0, 3, target, 4000, jax.random.key(0))
    texts = np.pad(enumeration.all_sequences(3, 3), ((0, 0), (1, 0)))
    log_prior, log_pi = (np.asarray(text_log_probs(SHAPE, x, jnp.asarray(texts))) for x in (PRIOR, POLICY))
    exact = enumeration.judgement(log_pi, log_prior, np.asarray(target.potential(texts[:, 1:]), np.float64))
    state = TrainState.create({"policy": jax.tree.map(lambda x: x[None], POLICY)}, {})
    found = sampled_judge(SHAPE, 0, target, wanted, 4000)(state, PRIOR, jax.random.key(1)).outcomes

    def close(name, value):
        spread = found[name].std() / np.sqrt(found[name].size)
        assert found[name].mean() == pytest.approx(value, abs=5.0 * spread + 0.05), name

    close("kl", exact["kl"])
    close("kl_from_prior", exact["kl_from_prior"])
    close("kept", np.exp(log_pi)[np.asarray(holds(texts[:, 1:])) > 0].sum())
    assert wanted.share == pytest.approx(np.exp(log_prior)[np.asarray(holds(texts[:, 1:])) > 0].sum(), abs=0.05)


def test_distinct_pairs_by_hand():
    assert distinct_pairs(np.array([[1, 2, 1], [1, 2, 3]])) == pytest.approx(3 / 4)
