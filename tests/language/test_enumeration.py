"""Exact judgements against hand numbers, scipy and the identity of the posterior."""

import numpy as np
import pytest
from scipy.spatial import distance
from scipy.stats import entropy

from rl_jax.language import enumeration


def random_log_probs(seed, size):
    values = np.random.default_rng(seed).normal(size=size)
    return values - np.log(np.exp(values).sum())


def test_all_sequences():
    assert enumeration.all_sequences(2, 2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    with pytest.raises(ValueError, match=r"100\^3 sequences are more than 100,000"):
        enumeration.all_sequences(100, 3)


def test_divergences_are_scipys():
    one, other = random_log_probs(0, 20), random_log_probs(1, 20)
    p, q = np.exp(one), np.exp(other)
    assert enumeration.entropy(one) == pytest.approx(entropy(p))
    assert enumeration.kl(one, other) == pytest.approx(entropy(p, q))
    assert enumeration.jensen_shannon(one, other) == pytest.approx(distance.jensenshannon(p, q) ** 2)
    assert enumeration.total_variation(one, other) == pytest.approx(distance.cityblock(p, q) / 2)
    assert enumeration.kl(np.log([0.5, 0.5]), np.array([0.0, -np.inf])) == np.inf
    assert enumeration.kl(np.array([0.0, -np.inf]), np.log([0.5, 0.5])) == pytest.approx(np.log(2.0))


def test_a_target_by_hand():
    log_p, log_z = enumeration.target(np.log([0.5, 0.3, 0.2]), np.array([0.0, -np.inf, np.log(2.0)]))
    np.testing.assert_allclose(np.exp(log_p), [0.5 / 0.9, 0.0, 0.4 / 0.9])
    assert log_z == pytest.approx(np.log(0.9))
    with pytest.raises(ValueError, match="no sequence a positive probability"):
        enumeration.target(np.log([0.5, 0.5]), np.full(2, -np.inf))


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_of_kl_regularised_rl_is_a_divergence(seed):
    """beta log Z - J = beta KL(pi || p), whatever the policy."""
    log_prior, rewards = random_log_probs(seed, 30), np.random.default_rng(seed).uniform(size=30)
    for beta in (0.05, 1.0, 20.0):
        found = enumeration.judgement(random_log_probs(seed + 10, 30), log_prior, rewards / beta)
        assert found["identity_gap"] < 1e-12 and found["reverse_kl"] > 0 and found["mass"] == pytest.approx(1.0)


def test_both_ends_of_the_coefficient():
    """beta -> infinity gives the prior back, beta -> 0 the best text alone."""
    log_prior, rewards = random_log_probs(0, 10), np.linspace(0.0, 1.0, 10)
    assert enumeration.total_variation(enumeration.target(log_prior, rewards / 1e6)[0], log_prior) < 1e-6
    assert np.exp(enumeration.target(log_prior, rewards / 1e-3)[0])[-1] == pytest.approx(1.0)


def test_what_is_infinite_is_left_out():
    log_prior = random_log_probs(0, 4)
    found = enumeration.judgement(log_prior, log_prior, np.array([0.0, -np.inf, 0.0, 0.0]))
    assert "reverse_kl" not in found and all(np.isfinite(value) for value in found.values())
    ruled_out = np.exp(log_prior[1])
    assert found["total_variation"] == pytest.approx(ruled_out) and found["kl"] == pytest.approx(-np.log1p(-ruled_out))
