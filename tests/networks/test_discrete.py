"""Networks for discrete actions and screens: the categorical distribution against scipy, layers against numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from rl_jax.networks.distributions import Categorical
from rl_jax.networks.encoders import ImpalaCNN, MiniGridCNN, NatureCNN, encode
from rl_jax.networks.initializers import torch_default
from rl_jax.networks.policies import ActorCritic
from rl_jax.networks.values import DiscreteCritic

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (5, 4)).astype(np.float32)
OBSERVATIONS = RNG.normal(size=(6, 3)).astype(np.float32)
SCREENS = RNG.integers(0, 256, (2, 36, 44, 3)).astype(np.uint8)


def test_categorical_is_scipys():
    policy = Categorical(jnp.asarray(LOGITS))
    probabilities = scipy.special.softmax(LOGITS.astype(np.float64), -1)
    actions = np.array([0, 3, 1, 2, 2])
    np.testing.assert_allclose(policy.log_prob(actions), np.log(probabilities[range(5), actions]), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), scipy.stats.entropy(probabilities, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), probabilities.argmax(-1))


def test_entropy_and_log_prob_by_hand():
    uniform = Categorical(jnp.full((4,), 7.0))
    assert uniform.entropy() == pytest.approx(math.log(4))
    assert uniform.log_prob(jnp.int32(2)) == pytest.approx(-math.log(4))
    masked = Categorical(jnp.array([0.0, 0.0, -jnp.inf]))
    assert masked.entropy() == pytest.approx(math.log(2))
    gradient = jax.grad(lambda logits: Categorical(logits).entropy())(jnp.array([1.0, 0.0, -1e9]))
    assert np.all(np.isfinite(gradient))


def test_samples_have_their_frequencies_and_a_temperature_sharpens_them():
    logits = jnp.broadcast_to(jnp.array([0.0, 1.0, 2.0]), (20_000, 3))
    noise = jax.random.gumbel(KEY, logits.shape)
    for temperature in (1.0, 0.5):
        actions = Categorical(logits).sample(KEY, temperature)
        np.testing.assert_array_equal(actions, Categorical(logits).from_noise(temperature * noise))
        expected = scipy.special.softmax(np.arange(3) / temperature)
        np.testing.assert_allclose(np.bincount(actions) / 20_000, expected, atol=0.01)
    assert np.all(Categorical(logits).sample(KEY, 0.0) == 2)


def numpy_layers(params, prefix, x, activate):
    count = sum(name.startswith(prefix) for name in params)
    for i in range(count):
        layer = params[f"{prefix}{i}"]
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        x = activate(x) if i + 1 < count else x
    return x


@pytest.mark.parametrize("activation, function", [("relu", lambda x: np.maximum(x, 0)), ("tanh", np.tanh)])
def test_actor_critic_is_two_perceptrons(activation, function):
    network = ActorCritic((8, 7), 4, activation=activation)
    params = network.init(KEY, OBSERVATIONS)
    policy, values = network.apply(params, OBSERVATIONS)
    layers = params["params"]
    np.testing.assert_allclose(policy.logits, numpy_layers(layers, "policy_Dense_", OBSERVATIONS, function), atol=1e-5)
    np.testing.assert_allclose(values, numpy_layers(layers, "value_Dense_", OBSERVATIONS, function)[:, 0], atol=1e-5)


def test_actor_critic_starts_orthogonal_with_its_gains():
    params = ActorCritic((8, 8), 4).init(KEY, OBSERVATIONS)["params"]
    for name, gain in [
        ("policy_Dense_1", math.sqrt(2)), ("policy_Dense_2", 0.01), ("value_Dense_1", math.sqrt(2)),
        ("value_Dense_2", 1.0),
    ]:
        kernel = np.asarray(params[name]["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, gain**2 * np.eye(kernel.shape[1]), atol=1e-5 * gain)
        assert not np.any(params[name]["bias"])


def test_discrete_critic_is_a_perceptron_with_a_value_an_action():
    critic = DiscreteCritic((8,), 4)
    params = critic.init(KEY, OBSERVATIONS)
    expected = numpy_layers(params["params"]["MLP_0"], "Dense_", OBSERVATIONS, lambda x: np.maximum(x, 0))
    np.testing.assert_allclose(critic.apply(params, OBSERVATIONS), expected, atol=1e-5)


@pytest.mark.parametrize("network, shapes", [(ActorCritic((8,), 4), [(4,), ()]), (DiscreteCritic((8,), 4), [(4,)])])
@pytest.mark.parametrize("leading", [(), (6,), (2, 6)])
def test_any_leading_dimensions(network, shapes, leading):
    outputs = jax.eval_shape(lambda x: network.init_with_output(KEY, x)[0], jnp.zeros((*leading, 3)))
    assert [x.shape for x in jax.tree.leaves(outputs)] == [(*leading, *shape) for shape in shapes]


def convolved(x, kernel, bias, stride, padding=0):
    """A convolution, patch by patch."""
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    rows, columns = ((length - size) // stride + 1 for length in x.shape[:2])
    out = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            patch = x[i * stride : i * stride + size, j * stride : j * stride + size]
            out[i, j] = np.tensordot(patch, kernel, 3) + bias
    return out


def layers_of(network, screens):
    """(params of random numbers, its layers by name)."""
    shapes = jax.eval_shape(network.init, KEY, screens)
    params = jax.tree.map(lambda x: jnp.asarray(RNG.normal(0, 0.05, x.shape), jnp.float32), shapes)
    return params, jax.tree.map(np.asarray, params["params"])


def relu(x):
    return np.maximum(x, 0)


def test_nature_cnn_is_its_convolutions():
    params, layers = layers_of(NatureCNN(), SCREENS)
    x = SCREENS[1] / 255.0
    for i, stride in enumerate((4, 2, 1)):
        x = relu(convolved(x, layers[f"Conv_{i}"]["kernel"], layers[f"Conv_{i}"]["bias"], stride))
    expected = relu(x.reshape(-1) @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
    features = NatureCNN().apply(params, SCREENS)
    assert features.shape == (2, 512) and expected.any()
    np.testing.assert_allclose(features[1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(NatureCNN().apply(params, SCREENS[None] / np.float32(255))[0], features, rtol=1e-4)


def test_nature_cnn_has_the_papers_size_and_pytorchs_weights():
    shapes = jax.eval_shape(NatureCNN(torch_default).init, KEY, jnp.zeros((1, 84, 84, 4), jnp.uint8))
    # 4 x 8 x 8 x 32, 32 x 4 x 4 x 64, 64 x 3 x 3 x 64 and 7 x 7 x 64 x 512 weights, and the biases.
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 8192 + 32768 + 36864 + 1605632 + 32 + 64 + 64 + 512
    kernel = NatureCNN(torch_default).init(KEY, SCREENS)["params"]["Conv_0"]["kernel"]
    assert 0.9 < float(jnp.abs(kernel).max()) * math.sqrt(8 * 8 * 3) <= 1.0


def test_minigrid_cnn_is_its_convolutions():
    cells = RNG.integers(0, 11, (2, 7, 5, 3)).astype(np.uint8)
    params, layers = layers_of(MiniGridCNN(), cells)
    x = cells[1].astype(np.float64)
    for i, stride in enumerate((2, 2, 1)):
        x = relu(convolved(x, layers[f"Conv_{i}"]["kernel"], layers[f"Conv_{i}"]["bias"], stride, 1))
    expected = relu(x.reshape(-1) @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
    assert [layers[f"Conv_{i}"]["bias"].size for i in range(3)] == [32, 64, 64]
    np.testing.assert_allclose(MiniGridCNN().apply(params, cells)[1], expected, rtol=1e-4, atol=1e-5)


def test_impala_cnn_is_its_blocks():
    screens = SCREENS[:, :9, :8]
    params, layers = layers_of(ImpalaCNN(), screens)
    convolutions = iter(layers[f"Conv_{i}"] for i in range(15))

    def conv(x):
        layer = next(convolutions)
        return convolved(x, layer["kernel"], layer["bias"], 1, 1)

    x = screens[1] / 255.0
    for _ in range(3):
        x = np.pad(conv(x), ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        rows, columns = (range(0, length - 2, 2) for length in x.shape[:2])
        x = np.array([[x[i : i + 3, j : j + 3].max((0, 1)) for j in columns] for i in rows])
        for _ in range(2):
            x = x + conv(relu(conv(relu(x))))
    expected = relu(x.reshape(-1)) @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    assert x.shape == (2, 1, 32) and expected.shape == (256,)
    np.testing.assert_allclose(ImpalaCNN().apply(params, screens)[1], expected, rtol=1e-3, atol=1e-5)


def test_bad_names_and_sizes_are_told():
    with pytest.raises(ValueError, match="screens of 30x84: NatureCNN needs 36x36 at least"):
        NatureCNN().init(KEY, jnp.zeros((1, 30, 84, 3)))
    with pytest.raises(ValueError, match="encoder is 'cnn': choose one of none, nature_cnn"):
        encode(jnp.zeros((1, 3)), "cnn", torch_default)
    with pytest.raises(ValueError, match="activation is 'gelu': choose relu or tanh"):
        ActorCritic((8,), 2, activation="gelu").init(KEY, OBSERVATIONS)
