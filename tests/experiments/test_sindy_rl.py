"""SINDy-RL: what a round remembers and fits, feeds that resume, models that are judged, policies that are distilled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sindy_rl
from experiments.sindy_rl.experiment import experiment
from rl_jax.agents.online import Steps
from rl_jax.control import distillation, dyna, dynamics, model_learning
from rl_jax.control.real_steps import samples
from rl_jax.envs.surrogate import WORLDS
from rl_jax.losses.sparse_regression import features

WORLD = WORLDS["swingup"]
KEY = jax.random.key(0)


def configured(preset, fields={}):
    config = sindy_rl.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


def of_runs(state):
    return jax.tree.map(lambda x: x[None], state).replace(step=state.step)


def test_settings_are_the_authors():
    """The card's table: cart-pole, swimmer; what differs in quick is PPO's own."""
    cart, swimmer = configured("paper/sindy_rl/swingup"), configured("paper/sindy_rl/swimmer")
    assert (cart.model.degree, cart.model.ridge, cart.model.threshold, cart.model.members) == (2, 5e-5, 7e-3, 20)
    assert (cart.real.random_steps, cart.real.steps, cart.policy_updates, cart.reward) == (8000, 500, 10, "known")
    assert (swimmer.real.random_steps, swimmer.real.steps, swimmer.policy_updates) == (12_000, 1000, 5)
    assert (swimmer.model.ridge, swimmer.model.threshold, swimmer.model.mixed, swimmer.reward) == (
        0.5, 2e-2, False, "fitted")
    assert cart.agent.learning_rate == 3e-4 and cart.agent.discount == 0.99 and cart.num_seeds == 20
    assert samples(cart.real, 0) == 0 and samples(cart.real, 1) == 8000 and samples(cart.real, 4) == 9500


# The Dyna loop


def test_the_oldest_steps_of_the_policy_make_room():
    def rows(count, start):
        numbers = jnp.arange(start, start + count, dtype=jnp.float32)
        column = numbers[:, None]
        return dynamics.Rows(column, column, numbers, column, numbers > 0)

    def batch(start):
        number = jnp.arange(start, start + 6, dtype=jnp.float32).reshape(3, 2, 1)
        return Steps(number, number, number[..., 0], number[..., 0], number[..., 0] > 0, number)

    off, on = dyna.remembered(rows(6, -9), rows(5, -5), batch(1), jnp.array(True), later=2)
    np.testing.assert_array_equal(off.rewards, [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(off.actions[:, 0], 1.0)  # as the environment clips them
    np.testing.assert_array_equal(on.rewards, [-5, -4, -3, -2, -1])
    off, on = dyna.remembered(off, on, batch(11), jnp.array(False), later=2)
    np.testing.assert_array_equal(off.rewards, [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(on.rewards, [-3, -2, -1, 11, 12])
    np.testing.assert_array_equal(on.valid, [False, False, False, True, True])


@pytest.fixture(scope="module")
def tiny():
    config = configured("tiny", {"real.random_steps": 40, "real.steps": 16, "real.capacity": 32, "policy_updates": 1})
    made = dyna.open_real(config, WORLD)
    program = dyna.dyna_program(config, WORLD, made)
    return config, program, jax.jit(program.step), jax.jit(program.init)(KEY, program.resident)


def collected(program, state, calls):
    """Batches of the feed, all from one policy."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(calls))
    return [jax.device_get(program.feed.collect(of_runs(state), program.resident, keys[i : i + 1], i)[0])
            for i in range(calls)]


@pytest.mark.slow
def test_rounds_remember_random_steps_and_the_latest_of_the_policy(tiny):
    config, program, step, state = tiny
    batches = collected(program, state, 4)
    assert batches[0].rewards.shape == batches[1].rewards.shape == (1, 40, 1)  # one program for both
    held = batches[0].actions[0, :, 0, 0]
    assert np.unique(held).size == 4 and (held[:10] == held[0]).all()
    for batch in batches:
        state, metrics = step(state, program.resident, jax.tree.map(lambda x: x[0], batch), KEY)
        state = state.replace(step=state.step + 1)
    off, on = state.extra["off"], state.extra["on"]
    assert off.valid.all() and on.valid.all()
    np.testing.assert_array_equal(off.observations, batches[0].observations[0, :, 0])
    np.testing.assert_array_equal(on.rewards[:16], batches[2].rewards[0, :16, 0])  # the oldest round is gone
    np.testing.assert_array_equal(on.rewards[16:], batches[3].rewards[0, :16, 0])
    assert np.abs(on.actions).max() <= 1.0 and all(np.isfinite(float(x)) for x in metrics.values())
    # The model is that of all rows.
    rows = jax.tree.map(lambda *x: jnp.concatenate(x), off, on)
    fit_key, _ = jax.random.split(KEY)
    again = jax.jit(dynamics.make_dynamics(config.model, WORLD).fit)(
        None, rows, jax.random.split(fit_key)[0])[0]
    np.testing.assert_allclose(again.coefficients, state.extra["fitted"].model.coefficients, atol=1e-5)


@pytest.mark.slow
def test_a_feed_goes_on_where_it_was_saved(tiny):
    _, program, _, state = tiny
    batches = collected(program, state, 3)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(3))
    collected(program, state, 2)
    saved = program.feed.save()
    collected(program, state, 3)
    program.feed.restore(saved)
    again, _ = program.feed.collect(of_runs(state), program.resident, keys[2:3], 2)
    jax.tree.map(np.testing.assert_array_equal, again, batches[2])


def test_fits_leave_contact_out_and_find_the_equations():
    """Of steps beyond the rail nothing is learnt, whatever they hold."""
    config = configured("sindy/500", {"data.size": 400, "model.members": 5}).copy_and_resolve_references()
    steps = jax.jit(lambda key: model_learning.random_steps(WORLD, 1, 400, 10, key))(KEY)
    steps = jax.tree.map(lambda x: x[:, 0], steps)
    rows = dynamics.Rows(
        steps.observations, steps.actions, steps.rewards, steps.next_observations, jnp.ones(400, bool)
    )
    beyond = rows._replace(next_observations=rows.next_observations.at[7].set(jnp.array([1.9, 0, 0, 50.0, 90.0])))
    fit = jax.jit(dynamics.make_dynamics(config.model, WORLD).fit)
    first, second = (fit(None, own, KEY)[0].coefficients for own in (
        rows._replace(valid=rows.valid.at[7].set(False)), beyond))
    np.testing.assert_array_equal(first, second)
    terms = dynamics.sindy_terms(config.model, WORLD)
    rates = dyna.equations_of(first, WORLD, terms, 0.0)
    assert rates[terms.index((2, 4)), 1] == pytest.approx(-1.0, abs=0.03)  # d cos / dt = -sin w
    assert rates[terms.index((1, 5)), 4] == pytest.approx(-13.8, rel=0.15)  # the push on the pole


def test_a_fitted_reward_is_found_and_an_observed_box_holds_the_data():
    config = configured("tiny", {"reward": "fitted", "model.reward_degree": 1, "model.reward_threshold": 1e-3})
    world = WORLD._replace(box=())
    rng = np.random.default_rng(0)
    seen, actions = (jnp.asarray(rng.normal(size=(60, n)), jnp.float32) for n in (5, 1))
    rows = dynamics.Rows(seen, actions, 2.0 * seen[:, 1] - 0.5 * actions[:, 0], seen, jnp.ones(60, bool))
    model = dynamics.make_dynamics(config.model, world)
    begun = dyna.start_fitted(config, world, model, KEY)
    made, _ = jax.jit(lambda made, rows: dyna.fit_all(config, world, model, made, rows, KEY))(begun, rows)
    assert made.reward[2, 0] == pytest.approx(2.0, abs=1e-4) and made.reward[6, 0] == pytest.approx(-0.5, abs=1e-4)
    assert (made.low < seen.min(0)).all() and (made.high > seen.max(0)).all()


# Models and policies


@pytest.mark.slow
def test_a_network_model_learns():
    config = configured("tiny-network_next", {"model.updates": 300, "model.learning_rate": 0.01})
    made = dynamics.make_dynamics(config.model, WORLD)
    rng = np.random.default_rng(0)
    seen, actions = (jnp.asarray(rng.normal(size=(64, n)), jnp.float32) for n in (5, 1))
    following = 0.3 * seen + 0.1 * actions
    rows = dynamics.Rows(seen, actions, seen[:, 0], following, jnp.abs(seen[:, 0]) < WORLD.box[1][0])
    model, _ = jax.jit(made.fit)(made.init(KEY), rows, KEY)
    error = jnp.mean(jnp.square(made.predict(model, seen, actions) - following)[rows.valid])
    assert error < 0.1 * jnp.var(following)


@pytest.mark.slow
def test_a_polynomial_is_distilled_from_a_polynomial():
    config = configured("tiny-distil", {"distil.degree": 3, "distil.unbias": False})
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, 200)
    seen = rng.normal(size=(200, 5))
    seen[:, 1], seen[:, 2] = np.cos(angle), np.sin(angle)
    truth = np.zeros((56, 1))
    truth[[2, 30]] = [[1.0], [-0.5]]
    with jax.enable_x64(True):
        actions = np.asarray(features(distillation.policy_terms(config, WORLD), jnp.asarray(seen))) @ truth
    valid = jnp.ones(200, bool)
    fit = jax.jit(lambda seen, actions: distillation.fit_policies(config, WORLD, seen, actions, valid, KEY))
    found, errors = fit(jnp.asarray(seen, jnp.float32), jnp.asarray(actions, jnp.float32))
    assert found.shape == (2, 56, 1) and float(errors.min()) < 1e-4 * actions.var()
    clipped = distillation.polynomial_act(config, WORLD, jnp.full((56, 1), 100.0), jnp.ones((3, 5)))
    np.testing.assert_array_equal(clipped, config.distil.clip)


# Bad input


@pytest.mark.parametrize("preset, fields, message", [
    ("tiny", {"world": "swing"}, "unknown config.world 'swing': did you mean swingup"),
    ("tiny", {"task": "dyn"}, "unknown config.task 'dyn': did you mean dyna"),
    ("tiny", {"reward": "learnt"}, "config.reward='learnt': choose known"),
    ("tiny", {"model.kind": "sindi"}, "unknown config.model.kind 'sindi': did you mean sindy"),
    ("tiny", {"model.predict": "delta"}, "config.model.predict='delta': choose next or difference"),
    ("tiny", {"real.steps": 33, "real.num_envs": 2}, "config.real.steps=33 does not divide over"),
    ("tiny-sindy", {"world": "swimmer"}, "config.world='swimmer': models are judged in pure-JAX environments"),
    ("tiny-sindy", {"data.horizons": (7,)}, "7 does not divide an episode"),
    ("tiny-distil", {}, "name the run whose policy is distilled"),
    ("tiny-distil", {"init_from.run": "runs/x", "distil.choose": "mse"}, "choose error or surrogate"),
])
def test_settings_that_cannot_work_are_named(preset, fields, message):
    config = configured(preset, fields)
    with pytest.raises(ValueError, match=message):
        experiment(config).program(config)


def test_a_simulator_hands_out_its_steps_with_one_copy_alone():
    config = configured("tiny", {"world": "swimmer", "reward": "fitted", "num_seeds": 1})
    real = dyna.open_real(config, WORLDS["swimmer"])
    agent = dyna.agent_for_its_policy(config, WORLDS["swimmer"], real)
    feed, state = real.feed(agent), agent.init(KEY)
    try:
        first, _ = feed.collect(of_runs(state), (), KEY[None], 0)
        later, _ = feed.collect(of_runs(state), (), KEY[None], 1)
    finally:
        feed.close()
    assert isinstance(first, Steps) and first.observations.shape == later.observations.shape == (1, 80, 1, 8)
    assert (first.actions[0, :10] == first.actions[0, 0]).all() and not later.rewards[0, 32:].any()
    np.testing.assert_array_equal(later.observations[0, 0], first.next_observations[0, -1])
    config.real.num_envs = 2
    with pytest.raises(ValueError, match="config.real.num_envs=2: a run has one simulator"):
        dyna.open_real(config, WORLDS["swimmer"]).feed(agent)
