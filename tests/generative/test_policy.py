"""Samplers as policies: densities against scipy, the two steps on Gaussian data, gradients by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rl_jax.generative.denoising import geometric_levels, scaled
from rl_jax.generative.policy import (
    ancestral_sampler,
    consistency_sampler,
    gaussian_log_prob,
    kl_to_reference,
    log_prob,
    random_calls,
    sample,
    step_mean,
    taken,
)

LEVELS, SIGMA_MIN = geometric_levels(4, 0.3, 20.0), 0.002
SHAPE = (6, 4, 3)
KEY = jax.random.key(0)
PARAMS = {"a": jnp.float32(0.8), "b": jnp.float32(-0.3)}


def network(params, x, label, condition):
    return jnp.tanh(params["a"] * x + params["b"] * label[:, None, None]) + condition[:, None, None]


DENOISE = scaled(network, 0.5, SIGMA_MIN)
CONDITION = jnp.linspace(-0.5, 0.5, SHAPE[0])
SAMPLERS = {
    "consistency": consistency_sampler(DENOISE, LEVELS, SIGMA_MIN, last_step=False),
    "consistency_last": consistency_sampler(DENOISE, LEVELS, SIGMA_MIN),
    "ancestral": ancestral_sampler(DENOISE, LEVELS),
    "sum": ancestral_sampler(DENOISE, LEVELS, reduction="sum"),
}
ROLL_OUTS = {name: jax.jit(lambda s=s: sample(s, PARAMS, SHAPE, CONDITION, KEY))() for name, s in SAMPLERS.items()}


def rows(trajectory):
    """(states, actions, steps, condition) of every step of every episode as rows, and their log-densities."""
    horizon, size = trajectory.log_probs.shape
    flat = lambda x: x.reshape(horizon * size, *x.shape[2:])  # noqa: E731
    steps = jnp.repeat(jnp.arange(horizon), size)
    return (flat(trajectory.states), flat(trajectory.actions), steps, jnp.tile(CONDITION, horizon)), flat(
        trajectory.log_probs
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_densities_are_scipys(reduction):
    rng = np.random.default_rng(0)
    actions, means = rng.normal(size=(2, 5, 2, 3))
    stds = rng.uniform(0.5, 2, 5)
    expected = getattr(scipy.stats.norm.logpdf(actions, means, stds[:, None, None]), reduction)((1, 2))
    found = gaussian_log_prob(*(jnp.asarray(x, jnp.float32) for x in (actions, means, stds)), reduction)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rlcm_takes_the_models_image_and_adds_the_next_levels_noise():
    sampler, roll_out = SAMPLERS["consistency"], ROLL_OUTS["consistency"]
    np.testing.assert_allclose(sampler.stds, np.sqrt(LEVELS[1:] ** 2 - SIGMA_MIN**2), rtol=1e-6)
    assert roll_out.states.shape == (3, *SHAPE) and roll_out.final.shape == SHAPE
    clean = DENOISE(PARAMS, roll_out.states[1], jnp.full(SHAPE[0], LEVELS[1]), CONDITION)
    noise = (roll_out.actions[1] - clean) / sampler.stds[1]
    assert 0.7 < float(jnp.std(noise)) < 1.3
    np.testing.assert_array_equal(roll_out.states[1], roll_out.actions[0])
    final = DENOISE(PARAMS, roll_out.actions[-1], jnp.full(SHAPE[0], LEVELS[-1]), CONDITION)
    np.testing.assert_allclose(roll_out.final, final, atol=1e-6)


def test_the_authors_last_step_is_drawn_and_no_image_comes_from_it():
    sampler, roll_out = SAMPLERS["consistency_last"], ROLL_OUTS["consistency_last"]
    assert roll_out.states.shape == (4, *SHAPE) and sampler.stds[-1] == sampler.stds[-2]
    final = DENOISE(PARAMS, roll_out.states[-1], jnp.full(SHAPE[0], LEVELS[-1]), CONDITION)
    np.testing.assert_allclose(roll_out.final, final, atol=1e-6)


def test_ddpos_step_keeps_the_law_of_gaussian_data():
    """x' = y + carry (x - y) + std noise, y = E[x_0 | x]: with the posterior's variance, which a step of means leaves
    out, x' has the variance of data and noise at the next level."""
    variance = 0.25
    for t, t_next, carry, std in zip(LEVELS, LEVELS[1:], *SAMPLERS["ancestral"][2:4]):
        gain = variance / (variance + t**2)  # y = gain x
        moved = (gain + carry * (1 - gain)) ** 2 * (variance + t**2) + std**2
        left_out = (1 - carry) ** 2 * variance * t**2 / (variance + t**2)
        assert moved + left_out == pytest.approx(variance + t_next**2, rel=1e-5)


def densities_and_divergence(sampler, *rows, num_calls=None):
    """log_prob of PARAMS and of others, and the divergence of these from PARAMS: [3, B]."""

    @jax.jit
    def of(states, actions, steps, condition, num_calls):
        moved = PARAMS | {"b": jnp.float32(0.1)}
        densities = [log_prob(sampler, p, states, actions, steps, condition, num_calls) for p in (PARAMS, moved)]
        divergence = kl_to_reference(sampler, moved, PARAMS, states, steps, condition, num_calls)
        return jnp.stack([*densities, divergence])

    return of(*rows, num_calls)


@pytest.mark.parametrize("name", ["consistency", "consistency_last"])
def test_fewer_calls_are_the_sampler_of_their_levels(name):
    """One batch has episodes of 2, 3 and 4 calls; their densities and divergences are those of such samplers."""
    sampler, num_calls = SAMPLERS[name], jnp.array([4, 2, 3, 2, 4, 3])
    found = jax.jit(lambda calls: sample(sampler, PARAMS, SHAPE, CONDITION, KEY, calls))(num_calls)
    for at, levels in {1: LEVELS[[0, 2]], 2: LEVELS[[0, 1, 2]]}.items():
        plain = consistency_sampler(DENOISE, levels, SIGMA_MIN, last_step=name == "consistency_last")
        states, actions, expected = (x[: len(plain.stds), at] for x in found[:3])
        steps, condition = np.arange(len(states)), np.full(len(states), CONDITION[at])
        assert np.sum(taken(sampler, np.arange(len(sampler.stds)), num_calls[at])) == len(states)
        np.testing.assert_array_equal(states[1:], actions[:-1])
        by_levels = densities_and_divergence(plain, states, actions, steps, condition)
        by_calls = densities_and_divergence(sampler, states, actions, steps, condition, num_calls=num_calls[at])
        np.testing.assert_allclose(by_calls, by_levels, rtol=1e-5)
        np.testing.assert_allclose(by_levels[0], expected, rtol=1e-5)
        last = states[-1:] if name == "consistency_last" else actions[-1:]
        image = DENOISE(PARAMS, last, levels[-1:], condition[:1])[0]
        np.testing.assert_allclose(found.final[at], image, atol=1e-6)


def test_numbers_of_calls_are_drawn_from_the_fewest_on():
    calls_of = random_calls(SAMPLERS["consistency"], 2)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: calls_of(key, 5)))(jax.random.split(KEY, 300)))
    assert (np.bincount(drawn[:, 0]) > 70).tolist() == [False, False, True, True, True]
    np.testing.assert_array_equal(drawn, np.repeat(drawn[:, :1], 5, 1))
    assert (np.asarray(random_calls(SAMPLERS["ancestral"], 0)(KEY, 9)) == 4).all()
    for name, fewest in (("consistency", 1), ("consistency", 5), ("ancestral", 2)):
        with pytest.raises(ValueError, match=f"model.fewest_calls={fewest}: give 0, or of a consistency model 2 to "):
            random_calls(SAMPLERS[name], fewest)


@pytest.mark.parametrize("name", SAMPLERS)
def test_densities_of_a_roll_out_are_those_of_its_steps(name):
    inputs, expected = rows(ROLL_OUTS[name])
    ratios = jnp.exp(jax.jit(lambda *rows: log_prob(SAMPLERS[name], PARAMS, *rows))(*inputs) - expected)
    assert float(jnp.abs(ratios - 1).max()) < (1e-6 if name != "sum" else 1e-5)


def test_the_gradient_of_a_density_is_that_of_finite_differences():
    sampler, (inputs, _) = SAMPLERS["ancestral"], rows(ROLL_OUTS["ancestral"])

    @jax.jit
    def total(a):
        return jnp.sum(log_prob(sampler, PARAMS | {"a": a}, *inputs))

    step = 1e-2
    numerical = (total(0.8 + step) - total(0.8 - step)) / (2 * step)
    assert float(jax.jit(jax.grad(total))(0.8)) == pytest.approx(float(numerical), rel=0.02)


@pytest.mark.parametrize("name", ["consistency", "sum"])
def test_the_divergence_is_the_mean_of_the_log_ratio(name):
    sampler, other = SAMPLERS[name], PARAMS | {"b": jnp.float32(4.0)}
    states, _, steps, condition = rows(ROLL_OUTS[name])[0]
    found = kl_to_reference(sampler, PARAMS, other, states, steps, condition)
    means, stds = step_mean(sampler, PARAMS, states, steps, condition), jnp.asarray(sampler.stds)[steps]

    def log_ratio(key):
        actions = means + stds[:, None, None] * jax.random.normal(key, means.shape)
        own, others = (log_prob(sampler, p, states, actions, steps, condition) for p in (PARAMS, other))
        return own - others

    drawn = jax.jit(jax.vmap(log_ratio))(jax.random.split(jax.random.key(1), 4000))
    error = np.asarray(drawn).std(0) / np.sqrt(4000)
    assert float(found.max()) > 20 * error.min()
    assert (np.abs(np.asarray(drawn).mean(0) - found) < 5 * error + 1e-6).all()


def test_bad_levels_and_reductions_are_named():
    with pytest.raises(ValueError, match="give at least two, falling, all above 0.002"):
        consistency_sampler(DENOISE, np.array([1.0, 0.001]), SIGMA_MIN)
    with pytest.raises(ValueError, match="give at least two, falling"):
        ancestral_sampler(DENOISE, np.array([1.0]))
    with pytest.raises(ValueError, match="reduction is 'max': choose mean or sum"):
        ancestral_sampler(DENOISE, LEVELS, reduction="max")
