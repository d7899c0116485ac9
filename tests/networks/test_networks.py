"""Networks: shapes, counts, initial weights and bounds, against numpy and scipy."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rl_jax.core.program import PyTree
from rl_jax.networks.initializers import fan_in_uniform, orthogonal, torch_default, uniform
from rl_jax.networks.mlp import MLP, ensemble
from rl_jax.networks.policies import DeterministicPolicy, GaussianPolicy, SquashedGaussianPolicy
from rl_jax.networks.values import Critic, Value

KEY = jax.random.key(0)
OBSERVATIONS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
ACTIONS = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (6, 2)), jnp.float32)


def filled(network: nn.Module, *inputs: jax.Array) -> PyTree:
    """Parameters drawn by numpy, for the tests to which the initialiser is nothing."""
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(network.init, KEY, *inputs)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)


def kernels(params: PyTree) -> list[np.ndarray]:
    return [np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]


def biases(params: PyTree) -> list[np.ndarray]:
    return [np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "bias"]


@pytest.mark.parametrize(
    "network, inputs, expected",
    [
        (MLP((8, 4)), (OBSERVATIONS,), 3 * 8 + 8 + 8 * 4 + 4),
        (MLP((8, 4), layer_norm=True), (OBSERVATIONS,), 3 * 8 + 8 + 2 * 8 + 8 * 4 + 4),
        (MLP((8, 4), layer_norm=True, activate_final=True), (OBSERVATIONS,), 3 * 8 + 8 + 2 * 8 + 8 * 4 + 4 + 2 * 4),
        (Value((8,)), (OBSERVATIONS,), 3 * 8 + 8 + 8 + 1),
        (Critic((8,), ensemble_size=5), (OBSERVATIONS, ACTIONS), 5 * (5 * 8 + 8 + 8 + 1)),
        (Critic((8,), layer_norm=True), (OBSERVATIONS, ACTIONS), 2 * (5 * 8 + 8 + 2 * 8 + 8 + 1)),
        (DeterministicPolicy((8,), 2), (OBSERVATIONS,), 3 * 8 + 8 + 8 * 2 + 2),
        (GaussianPolicy((8,), 2), (OBSERVATIONS,), 3 * 8 + 8 + 8 * 2 + 2 + 2),
    ],
)
def test_parameter_counts(network, inputs, expected):
    assert sum(x.size for x in jax.tree.leaves(jax.eval_shape(network.init, KEY, *inputs))) == expected


@pytest.mark.parametrize("leading", [(), (6,), (4, 6)])
def test_output_shapes_for_any_leading_dimensions(leading):
    observations, actions = jnp.zeros((*leading, 3)), jnp.zeros((*leading, 2))
    shapes = [
        (Value((8,)), (observations,), leading),
        (Critic((8,), ensemble_size=5), (observations, actions), (5, *leading)),
    ]
    for network, inputs, expected in shapes:
        assert jax.eval_shape(network.init_with_output, KEY, *inputs)[0].shape == expected
    actions = jax.eval_shape(DeterministicPolicy((8,), 2).init_with_output, KEY, observations)[0].actions
    assert actions.shape == (*leading, 2)
    mean, log_std = jax.eval_shape(GaussianPolicy((8,), 2).init_with_output, KEY, observations)[0]
    assert (mean.shape, log_std.shape) == ((*leading, 2), (2,))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activate_final", [False, True])
def test_mlp_is_what_numpy_computes(layer_norm, activate_final):
    network = MLP((8, 4), activate_final=activate_final, layer_norm=layer_norm, initializer=torch_default)
    params = filled(network, OBSERVATIONS)
    x = np.asarray(OBSERVATIONS)
    for i, width in enumerate((8, 4)):
        dense = params["params"][f"Dense_{i}"]
        assert dense["kernel"].shape == (x.shape[-1], width)
        x = x @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
        if i == 0 or activate_final:
            if layer_norm:
                norm = params["params"][f"LayerNorm_{i}"]
                x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
                x = x * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
            x = np.maximum(x, 0)
    np.testing.assert_allclose(network.apply(params, OBSERVATIONS), x, rtol=1e-4, atol=1e-5)


def test_layer_norm_after_the_relu_is_what_numpy_computes():
    network = MLP((8, 4), layer_norm="after")
    params = filled(network, OBSERVATIONS)
    dense, norm = params["params"]["Dense_0"], params["params"]["LayerNorm_0"]
    x = np.maximum(np.asarray(OBSERVATIONS) @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]), 0)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    last = params["params"]["Dense_1"]
    expected = x @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    np.testing.assert_allclose(network.apply(params, OBSERVATIONS), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="layer_norm is 'befor'"):
        MLP((8, 4), layer_norm="befor").init(KEY, OBSERVATIONS)


def test_orthogonal_kernels_have_gain_sqrt_2_and_no_bias():
    params = MLP((16, 5)).init(KEY, OBSERVATIONS)
    wide, tall = kernels(params)
    np.testing.assert_allclose(wide @ wide.T, 2 * np.eye(3), atol=1e-5)
    np.testing.assert_allclose(tall.T @ tall, 2 * np.eye(5), atol=1e-5)
    for bias in biases(params):
        np.testing.assert_array_equal(bias, 0)


def test_the_gain_of_orthogonal_kernels_is_an_argument_and_the_last_layer_may_have_its_own():
    hidden, last = kernels(MLP((16, 5), initializer=orthogonal(3.0), output_initializer=orthogonal(0.01)).init(
        KEY, OBSERVATIONS
    ))
    np.testing.assert_allclose(hidden @ hidden.T, 9 * np.eye(3), atol=1e-5)
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(5), atol=1e-8)


def test_torch_weights_are_uniform_within_one_over_root_fan_in():
    params = MLP((400, 300), initializer=torch_default).init(KEY, jnp.zeros((1, 100)))
    for kernel, bias in zip(kernels(params), biases(params), strict=True):
        bound = kernel.shape[0] ** -0.5
        for values in (kernel, bias):
            assert np.abs(values).max() <= bound
            assert scipy.stats.kstest(values.ravel(), "uniform", (-bound, 2 * bound)).pvalue > 1e-3
        # Kernel and bias have streams of their own.
        assert abs(scipy.stats.pearsonr(kernel[0], bias).statistic) < 0.3


def test_small_outputs_are_uniform_and_hidden_biases_a_tenth():
    layers, tenth = (400, 300), fan_in_uniform(bias=0.1)
    policy = DeterministicPolicy((400,), 300, initializer=tenth, output_initializer=uniform(1e-3))
    value = MLP(layers, initializer=tenth, output_initializer=uniform(3e-3))
    hidden = value.clone(activate_final=True)
    for network, bound in [(policy, 1e-3), (value, 3e-3), (hidden, None)]:
        params = network.init(KEY, jnp.zeros((1, 100)))
        bounds = [0.1, 0.05 if bound is None else bound]  # 1/sqrt(100), 1/sqrt(400)
        for values, scale in zip(kernels(params), bounds, strict=True):
            assert np.abs(values).max() <= scale
            assert scipy.stats.kstest(values.ravel(), "uniform", (-scale, 2 * scale)).pvalue > 1e-3
        first, last = biases(params)
        np.testing.assert_array_equal(first, np.float32(0.1))
        if bound is None:
            np.testing.assert_array_equal(last, np.float32(0.1))
        else:
            assert scipy.stats.kstest(last, "uniform", (-bound, 2 * bound)).pvalue > 1e-3


@pytest.mark.parametrize("network", [Value(()), Critic(()), DeterministicPolicy((), 2), GaussianPolicy((), 2)])
def test_every_network_passes_its_initialiser_on(network):
    inputs = (OBSERVATIONS, ACTIONS) if isinstance(network, Critic) else (OBSERVATIONS,)
    for bias in biases(network.init(KEY, *inputs)):
        np.testing.assert_array_equal(bias, 0)
    for field in ("initializer", "output_initializer"):  # one layer, which is the last
        for bias in biases(network.clone(**{field: torch_default}).init(KEY, *inputs)):
            assert np.all(bias != 0)


@pytest.mark.parametrize("initializer", [orthogonal(), torch_default], ids=["orthogonal", "torch_default"])
def test_members_of_an_ensemble_are_independent(initializer):
    critic = Critic((8,), ensemble_size=3, initializer=initializer)
    params = critic.init(KEY, OBSERVATIONS, ACTIONS)
    for kernel in kernels(params):
        assert kernel.shape[0] == 3
        for one, other in [(0, 1), (0, 2), (1, 2)]:
            assert np.all(kernel[one] != kernel[other])
    if initializer is not torch_default:  # each member by itself
        for member in kernels(params)[0]:
            np.testing.assert_allclose(member @ member.T, 2 * np.eye(5), atol=1e-5)

    values = critic.apply(params, OBSERVATIONS, ACTIONS)
    changed = jax.tree.map(lambda x: x.at[1].add(1.0), params)
    moved = np.asarray(critic.apply(changed, OBSERVATIONS, ACTIONS) != values)
    assert moved[1].all() and not moved[0].any() and not moved[2].any()


def test_a_member_of_an_ensemble_is_the_module_alone():
    twin = ensemble(Value, 2)((8, 8))
    params = filled(twin, OBSERVATIONS)
    together = twin.apply(params, OBSERVATIONS)
    for i in range(2):
        alone = Value((8, 8)).apply(jax.tree.map(lambda x, i=i: x[i], params), OBSERVATIONS)
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("member", [0, 2])
def test_one_member_of_a_critic_is_that_row_of_all(member):
    critic = Critic((8,), ensemble_size=3)
    params = filled(critic, OBSERVATIONS, ACTIONS)
    alone = critic.apply_member(params, OBSERVATIONS, ACTIONS, member)
    np.testing.assert_allclose(alone, critic.apply(params, OBSERVATIONS, ACTIONS)[member], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer_norm", [False, "after"])
def test_members_at_actions_of_their_own(layer_norm):
    critic = Critic((8,), ensemble_size=3, layer_norm=layer_norm)
    params = filled(critic, OBSERVATIONS, ACTIONS)
    actions = jnp.stack([ACTIONS, -ACTIONS, 2 * ACTIONS])
    values = critic.apply_members(params, OBSERVATIONS, actions)
    for i in range(3):
        alone = critic.apply(params, OBSERVATIONS, actions[i])[i]
        np.testing.assert_allclose(values[i], alone, rtol=1e-5, atol=1e-6)


def test_a_critic_reads_observations_and_actions():
    critic = Critic((8,), initializer=torch_default)
    params = filled(critic, OBSERVATIONS, ACTIONS)
    by_observation, by_action = jax.grad(lambda o, a: critic.apply(params, o, a).sum(), argnums=(0, 1))(
        OBSERVATIONS, ACTIONS
    )
    assert np.abs(by_observation).sum(0).all() and np.abs(by_action).sum(0).all()


def test_policies_stay_in_the_box():
    far = 1e4 * OBSERVATIONS
    deterministic, gaussian = DeterministicPolicy((8,), 2), GaussianPolicy((8,), 2)
    actions = deterministic.apply(filled(deterministic, far), far).mode()
    mean = gaussian.apply(filled(gaussian, far), far).mean
    for values in (actions, mean):
        assert np.abs(values).max() <= 1.0
        assert np.abs(values).max() > 0.99  # the bound is reached, not merely far away


def test_a_policy_is_the_tanh_of_its_mlp():
    policy = DeterministicPolicy((8,), 2)
    params = filled(policy, OBSERVATIONS)
    raw = MLP((8, 2)).apply({"params": params["params"]["MLP_0"]}, OBSERVATIONS)
    np.testing.assert_allclose(policy.apply(params, OBSERVATIONS).mode(), np.tanh(raw), rtol=1e-5, atol=1e-6)


def test_log_std_starts_at_zero_and_is_clipped():
    policy = GaussianPolicy((), 3)
    params = policy.init(KEY, OBSERVATIONS)
    np.testing.assert_array_equal(policy.apply(params, OBSERVATIONS).log_std, [0.0, 0.0, 0.0])
    params["params"]["log_std"] = jnp.array([-9.0, 1.5, 9.0])
    np.testing.assert_array_equal(policy.apply(params, OBSERVATIONS).log_std, [-5.0, 1.5, 2.0])
    grad = jax.grad(lambda p: policy.apply(p, OBSERVATIONS).log_std.sum())(params)["params"]["log_std"]
    np.testing.assert_array_equal(grad, [0.0, 1.0, 0.0])


def test_a_squashed_policys_deviation_depends_on_the_observation_and_is_clipped():
    policy = SquashedGaussianPolicy((8,), 2, log_std_min=-1.0, log_std_max=0.0)
    params = filled(policy, OBSERVATIONS)
    raw = MLP((8, 4)).apply({"params": params["params"]["MLP_0"]}, OBSERVATIONS)
    mean, log_std = policy.apply(params, OBSERVATIONS)
    np.testing.assert_allclose(mean, raw[:, :2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_std, np.clip(raw[:, 2:], -1.0, 0.0), rtol=1e-5, atol=1e-6)
    assert np.any(log_std == -1.0) and np.any(log_std == 0.0) and np.any((log_std > -1.0) & (log_std < 0.0))


def test_orthogonal_initialisation_of_an_ensemble_factorises_one_member_at_a_time():
    """jaxlib's batched QR can hang on a CPU: none may come from vmapped initialisers."""
    critic = Critic((64, 64), ensemble_size=3)
    observations, actions = jnp.zeros((1, 11)), jnp.zeros((1, 3))
    init = jax.jit(jax.vmap(lambda key: critic.init(key, observations, actions)))
    program = init.lower(jax.random.split(jax.random.key(0), 2)).as_text()
    calls = [line for line in program.splitlines() if "geqrf" in line or "stablehlo.custom_call @Qr" in line]
    assert calls, "this test looks for QR factorisations that are not there: has the initialiser changed?"
    assert not any(re.search(r"tensor<\d+x\d+x\d+xf32>", line) for line in calls)
