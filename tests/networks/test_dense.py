"""A layer on kept one-hot vectors is the layer on the vectors themselves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.networks.dense import OneHot
from rl_jax.networks.encoders import Encoder
from rl_jax.networks.initializers import orthogonal, torch_default
from rl_jax.networks.mlp import MLP
from rl_jax.networks.policies import ActorCritic

PLACES = jnp.array([[2, 0, 2], [4, -1, 5]])  # two of them lie outside


def test_a_row_of_a_kernel():
    kernel = np.arange(10.0).reshape(5, 2)
    rows = OneHot(PLACES, 5).times(jnp.asarray(kernel))
    np.testing.assert_array_equal(rows, [[[4, 5], [0, 1], [4, 5]], [[8, 9], [0, 0], [0, 0]]])


@pytest.mark.parametrize("initializer", [orthogonal(), torch_default])
def test_values_parameters_and_gradients_are_those_of_the_vectors(initializer):
    kept, mlp, key = OneHot(PLACES, 5), MLP((4, 3), initializer=initializer), jax.random.key(0)
    params = mlp.init(key, kept)
    chex.assert_trees_all_equal(params, mlp.init(key, kept.vectors()))

    def loss(params, x):
        return jnp.sum(jnp.square(mlp.apply(params, x) - 1.0))

    np.testing.assert_allclose(mlp.apply(params, kept), mlp.apply(params, kept.vectors()), atol=1e-6)
    chex.assert_trees_all_close(jax.grad(loss)(params, kept), jax.grad(loss)(params, kept.vectors()), atol=1e-6)


def test_an_actor_critic_reads_state_numbers_and_an_encoder_alone_gives_vectors():
    numbers, vectors = PLACES[0], jax.nn.one_hot(PLACES[0], 5)
    by_number, by_vector = ActorCritic((4,), 2, encoder="one_hot_5"), ActorCritic((4,), 2)
    params = by_number.init(jax.random.key(1), numbers)
    chex.assert_trees_all_equal_shapes(params, by_vector.init(jax.random.key(1), vectors))
    for one, other in zip(by_number.apply(params, numbers), by_vector.apply(params, vectors), strict=True):
        chex.assert_trees_all_close(one, other, atol=1e-6)
    np.testing.assert_array_equal(Encoder("one_hot_5").apply({}, numbers), vectors)


def test_observations_that_are_no_state_numbers_are_named():
    with pytest.raises(ValueError, match=r"encoder is 'one_hot_5': .* not observations of float32 \[3, 2\]"):
        Encoder("one_hot_5").apply({}, jnp.zeros((3, 2)))
