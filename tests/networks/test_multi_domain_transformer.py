"""Bins by hand, what a number of an action may depend on, padding, prompts."""

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.networks.multi_domain_transformer import UNUSED, MultiDomainTransformer, from_bins, to_bins

MODEL = MultiDomainTransformer(3, 8, 16, 1, 2, 10)
KEYS = jax.random.split(jax.random.key(0), 4)
INPUTS = {
    "observations": jax.random.normal(KEYS[0], (1, 3, 5)), "actions": jax.random.uniform(KEYS[1], (1, 3, 3)),
    "returns_to_go": jnp.array([[3.0, 2.5, 1.0]]), "timesteps": jnp.array([[4, 5, 6]]), "mask": jnp.ones((1, 3)),
}
PARAMS = jax.jit(MODEL.init)(KEYS[2], **INPUTS)
APPLY = jax.jit(lambda inputs: MODEL.apply(PARAMS, **inputs)[0])


def test_bins():
    actions = jnp.array([-1.0, -0.76, -0.74, 0.0, 0.999, 1.0, UNUSED])
    bins = to_bins(actions, 8)
    np.testing.assert_array_equal(bins, [0, 0, 1, 4, 7, 7, 8])
    np.testing.assert_allclose(from_bins(bins[:4], 8), [-0.875, -0.875, -0.625, 0.125])
    inside = jnp.linspace(-1.0, 1.0, 101)
    assert float(jnp.abs(from_bins(to_bins(inside, 64), 64) - inside).max()) <= 1 / 64 + 1e-6


def test_a_number_is_predicted_from_what_stands_before_it():
    plain = APPLY(INPUTS)
    assert plain.shape == (3, 3, 8)

    def differs(name, at, by=0.6):
        changed = APPLY(INPUTS | {name: INPUTS[name].at[at].add(by)})
        return np.abs(changed - plain).max(-1) > 1e-6

    # Number 1 of step 1 decides about numbers from 2 on in its step, and about all of the next step.
    np.testing.assert_array_equal(differs("actions", (0, 1, 1), -0.6), [[0, 0, 0], [0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(differs("observations", (0, 1)), [[0, 0, 0], [1, 1, 1], [1, 1, 1]])
    # A return-to-go is seen in its own step; the reward before it, which it is a part of, from the next step on.
    np.testing.assert_array_equal(differs("returns_to_go", (0, 1)), [[0, 0, 0], [1, 1, 1], [1, 1, 1]])


def test_padding_is_not_seen_and_a_prompt_is():
    shown = INPUTS | {"mask": jnp.array([[0.0, 1.0, 1.0]])}
    other = shown | {"observations": INPUTS["observations"].at[:, 0].add(3.0)}
    np.testing.assert_array_equal(APPLY(shown)[1:], APPLY(other)[1:])
    query = MODEL.apply(PARAMS, shown["observations"], shown["mask"], method=MODEL.query)
    dense = PARAMS["params"]["observation"]
    expected = shown["observations"][:, 1:].mean(1) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(query, expected, atol=1e-5)
    prompt = jax.random.normal(KEYS[3], (1, 2, 16))
    hidden, seen = (MODEL.apply(PARAMS, **INPUTS, prompt=(prompt, jnp.full((1, 2), x)))[0] for x in (0.0, 1.0))
    np.testing.assert_allclose(hidden, APPLY(INPUTS), atol=1e-6)
    assert float(jnp.abs(seen - hidden).max()) > 1e-5
