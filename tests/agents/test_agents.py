"""What every agent keeps to: its contract with the core, and a config in which no field is dead."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.control.agents import AGENTS
from tests.agents.cases import (
    CASES,
    FLIP_STEPS,
    SIZE,
    few_updates,
    few_updates_of,
    floats_of,
    make_agent,
    make_config,
    transitions,
    update_of,
    with_floats,
)

RNG = np.random.default_rng(1)
# Wide observations and rewards, so that noise, clips and caps act from the first updates on.
WIDE = RNG.normal(0, 5, (3, SIZE))
DATA = transitions(WIDE[0], RNG.uniform(-1, 1, SIZE), WIDE[1], RNG.random(SIZE) < 0.8, WIDE[2])
BATCHES = {name: case.batch(DATA) for name, case in CASES.items()}
QUICK = ("bc",)  # whose settings `make test` flips and traces; `make test-slow` does so for all agents
# One of a kind, which `make test` holds to the contract; the others' own tests compile their updates too.
KINDS = ("bc", "iql", "cql", "edac", "dt", "recoil")
OF_A_KIND = [pytest.param(name, marks=[] if name in KINDS else pytest.mark.slow) for name in CASES]


def slow_unless_quick(name):
    return [] if name in QUICK else [pytest.mark.slow]


FLIPS = [
    pytest.param(name, field, id=f"{name}-{field}", marks=slow_unless_quick(name))
    for name, case in CASES.items()
    for field in case.default_config()
    if field not in ("name", *case.elsewhere)
]


# Their batches have one-hot actions: tests/agents/test_discrete.py.
OF_NUMBERED_ACTIONS = {"discrete_bc", "discrete_cql"}


def test_every_agent_that_a_configuration_may_name_is_tested_here():
    assert set(CASES) | OF_NUMBERED_ACTIONS == set(AGENTS)
    for name in CASES:
        assert CASES[name].default_config().name == name


def flipped(name, field):
    """Another legal value of the same kind."""
    value = make_config(name, **CASES[name].flips)[field]
    if isinstance(value, str):
        return CASES[name].choices[field]
    if isinstance(value, tuple):
        return tuple(width // 2 for width in value)
    if isinstance(value, bool):
        return not value
    return value * 2 if isinstance(value, int) else value / 2


@functools.cache
def unflipped(name):
    return few_updates(name, BATCHES[name], **CASES[name].flips)


@pytest.mark.parametrize("name, field", FLIPS)
def test_no_field_of_a_config_is_dead(name, field):
    settings, batch = CASES[name].flips, BATCHES[name]
    other = {**settings, field: flipped(name, field)}
    made = [jax.eval_shape(make_agent(name, **s).init, jax.random.key(0), batch) for s in (settings, other)]
    shapes = [(state.params, state.target_params) for state in made]
    if shapes[0] == shapes[1]:
        before, after = unflipped(name)[0], few_updates(name, batch, **other)[0]
        networks = [jax.tree.leaves((state.params, state.target_params)) for state in (before, after)]
        assert any(np.any(old != new) for old, new in zip(*networks, strict=True))


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow_unless_quick(name)) for name in CASES])
def test_floats_may_be_traced_and_change_no_number(name):
    """A sweep hands them in as arrays."""
    batch = BATCHES[name]
    config = make_config(name, **CASES[name].flips)
    floats = floats_of(config)

    def swept(floats):
        return CASES[name].make(with_floats(config, floats), 1)

    def trained_and_acting(floats):
        agent = swept(floats)
        state, _ = agent.update(agent.init(jax.random.key(0), batch), batch, jax.random.key(0))
        return agent.act(state.params, CASES[name].shown(batch), jax.random.key(0), 0.5)

    # An agent that branches on a float, or makes a Python number of it, fails here.
    jax.eval_shape(trained_and_acting, floats)
    given, fixed = few_updates_of(swept(floats), batch), unflipped(name)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(fixed), strict=True):
        # Adam makes of a gradient that is all rounding up to a part of its step, 3e-4.
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=3e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", OF_A_KIND)
def test_one_optimiser_state_a_trained_network_and_targets_that_start_equal(name):
    agent = make_agent(name)
    state = agent.init(jax.random.key(0), BATCHES[name])
    assert set(state.opt_state) == set(state.params)
    assert set(state.target_params) <= set(state.params)
    for network, target in state.target_params.items():
        for old, new in zip(jax.tree.leaves(state.params[network]), jax.tree.leaves(target), strict=True):
            np.testing.assert_array_equal(old, new)
            # The core donates the state: two leaves in one buffer would be an error.
            assert old.unsafe_buffer_pointer() != new.unsafe_buffer_pointer()


@pytest.mark.parametrize("name", OF_A_KIND)
def test_init_depends_on_the_key_and_on_the_shapes_of_the_batch_alone(name):
    agent, once = make_agent(name), BATCHES[name]
    one, again, other = (
        jax.tree.leaves(agent.init(jax.random.key(seed), batch).params)
        for seed, batch in [(0, once), (0, jax.tree.map(lambda x: 3 * x, once)), (1, once)]
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert all(np.any(a != b) for a, b in zip(one, other, strict=True) if np.ptp(a))  # constants are equal


@pytest.mark.parametrize("name", OF_A_KIND)
def test_an_update_trains_every_network_and_reports_finite_scalars(name):
    before = after = make_agent(name, **CASES[name].flips).init(jax.random.key(0), BATCHES[name])
    update = update_of(name, **CASES[name].flips)
    for step in range(FLIP_STEPS):
        after, metrics = update(after, BATCHES[name], jax.random.key(step))
        after = after.replace(step=after.step + 1)
    for old, new in [(before.params, after.params), (before.target_params, after.target_params)]:
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True):
            assert np.any(a != b), jax.tree_util.keystr(path)
    for metric, value in metrics.items():
        assert value.shape == () and np.isfinite(value), metric
        assert metric.split("/")[0] in {*after.params, "dual"}, "metrics are prefixed by the network or the objective"
    for network in after.params:
        assert metrics[f"{network}/grad_norm"] > 0 and metrics[f"{network}/update_norm"] > 0


@pytest.mark.parametrize("name", OF_A_KIND)
def test_actions_are_in_the_box_and_temperature_zero_is_the_mode(name):
    agent, batch = make_agent(name), BATCHES[name]
    params = agent.init(jax.random.key(0), batch).params
    act = jax.jit(agent.act)
    shown = jax.tree.map(jnp.asarray, CASES[name].shown(batch))
    modes = [act(params, shown, jax.random.key(seed), 0.0) for seed in range(2)]
    assert modes[0].shape == (len(jax.tree.leaves(shown)[0]), 1)
    np.testing.assert_array_equal(modes[0], modes[1])
    hot = act(params, shown, jax.random.key(0), 1.0)
    np.testing.assert_array_equal(hot, act(params, shown, jax.random.key(0), 1.0))
    assert np.abs(modes[0]).max() <= 1 and np.abs(hot).max() <= 1
    # The mode is a function of each row by itself, whatever else is in the batch.
    alone = act(params, jax.tree.map(lambda x: x[5:6], shown), jax.random.key(0), 0.0)
    np.testing.assert_allclose(alone, modes[0][5:6], atol=1e-6)


def test_iql_samples_around_its_mode_with_its_own_deviation():
    agent = make_agent("iql")
    params = agent.init(jax.random.key(0), DATA).params
    params["actor"]["params"]["log_std"] = jnp.array([-3.0])
    observations = jnp.full((20_000, 1), 0.1)
    mode = float(agent.act(params, observations[:1], jax.random.key(1), 0.0)[0, 0])
    samples = np.asarray(agent.act(params, observations, jax.random.key(1), 1.0))
    assert abs(mode) < 0.7  # far enough from the box for its clip not to act
    assert np.mean(samples) == pytest.approx(mode, abs=2e-3)
    assert np.std(samples) == pytest.approx(np.exp(-3.0), rel=0.02)
    half = agent.act(params, observations, jax.random.key(1), 0.5)
    np.testing.assert_allclose(half - mode, 0.5 * (samples - mode), atol=1e-5)
