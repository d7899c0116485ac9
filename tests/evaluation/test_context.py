"""What a policy with a memory is shown: by hand, and in environments whose observations tell what must be there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.evaluation.context import Context, LastSteps
from rl_jax.evaluation.rollouts import episode_seeds
from tests.envs.toys import LONG, episode_length
from tests.evaluation.evaluators import evaluator_of


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_last_steps_by_hand(length):
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(4, 2, 3, 2)), rng.normal(size=(4, 2, 3, 1))
    rewards = rng.normal(size=(3, 2, 3))
    shown = LastSteps(Context(length, 10.0), observations[0], 1)
    for now in range(4):
        if now:
            shown.step(actions[now - 1], rewards[now - 1], observations[now])
        inputs = shown.inputs
        assert inputs.observations.shape == (2, 3, length, 2) and inputs.observations.dtype == np.float32
        assert inputs.timesteps.dtype == np.int32 and inputs.mask.dtype == np.float32
        for place in range(length):
            step = now - (length - 1 - place)
            real = step >= 0
            np.testing.assert_array_equal(inputs.mask[:, :, place], float(real))
            np.testing.assert_array_equal(inputs.timesteps[:, :, place], step if real else 0)
            expected = observations[step] if real else np.zeros((2, 3, 2))
            np.testing.assert_allclose(inputs.observations[:, :, place], expected, rtol=1e-6)
            known = real and step < now  # the action of now is what the policy is asked for
            expected = actions[step] if known else np.zeros((2, 3, 1))
            np.testing.assert_allclose(inputs.actions[:, :, place], expected, rtol=1e-6)
            expected = 10.0 - rewards[:step].sum(0) if real else np.zeros((2, 3))
            np.testing.assert_allclose(inputs.returns_to_go[:, :, place], expected, rtol=1e-5)


def remembering_act(params, context, key, temperature):
    """The parameter in even steps and its negative in odd ones; NaN wherever the context is not what it must be.

    The toy's observation is (seed, step) and its reward 1 + action.
    """
    length = context.mask.shape[1]
    now = context.observations[:, -1:, 1]
    steps = now - jnp.arange(length - 1, -1, -1)
    done = jnp.where(steps % 2 == 0, params["action"], -params["action"])
    # What the steps before now have given: their number, and one action where it is odd.
    given = steps + jnp.where(steps % 2 == 1, params["action"], 0.0)
    good = (context.mask == (steps >= 0)) & (context.timesteps == steps * context.mask)
    good &= (context.mask == 0) | (context.observations[:, :, 1] == steps)
    good &= (context.mask == 0) | (context.observations[:, :, 0] == context.observations[:, -1:, 0])
    good &= jnp.abs(context.returns_to_go - context.mask * (params["target"] - given)) < 1e-4
    past = context.mask * (jnp.arange(length) < length - 1)
    good &= jnp.abs(context.actions[:, :, 0] - past * done) < 1e-6
    return jnp.where(good.all(1), done[:, -1], jnp.nan)[:, None]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_policy_with_a_memory_sees_its_own_episode_in_every_step(num_workers):
    params = {"action": jnp.array([0.25, -0.5]), "target": jnp.array([30.0, 30.0])}
    lengths = np.array([episode_length(int(seed)) for seed in episode_seeds(5, 6)])
    assert LONG in lengths, "longer than the context"
    context = Context(4, 30.0)
    with evaluator_of(remembering_act, 2, 6, num_workers=num_workers, context=context) as evaluator:
        results = evaluator(params, 5)
        again = evaluator(params, 5)
    # Both lengths are even: the actions cancel.
    np.testing.assert_array_equal(results.lengths, [lengths] * 2)
    np.testing.assert_allclose(results.returns, [lengths] * 2, rtol=1e-6)
    np.testing.assert_array_equal(again.returns, results.returns)


def test_a_policy_with_a_memory_is_compiled_once_and_asked_for_its_target():
    traces = []

    def act(params, context, key, temperature):
        traces.append(jax.tree.map(jnp.shape, context))
        return params * context.returns_to_go[:, -1:] / 100.0

    with evaluator_of(act, 1, 3, context=Context(2, 40.0)) as evaluator, jax.transfer_guard("disallow"):
        params = jax.device_put(np.ones(1, np.float32))
        results = [evaluator(params, seed) for seed in (0, 1)]
    assert len(traces) == 1 and traces[0].actions == (3, 2, 1)
    for seed, result in enumerate(results):
        for run, length in enumerate(episode_length(int(s)) for s in episode_seeds(seed, 3)):
            remaining = 40.0
            for _ in range(length):
                remaining -= 1.0 + min(remaining / 100.0, 0.5)
            assert result.returns[0, run] == pytest.approx(40.0 - remaining, rel=1e-6)


def test_the_context_holds_the_actions_that_were_done_and_not_those_that_were_asked_for():
    """The toy's actions end at 0.5."""

    def act(params, context, key, temperature):
        good = jnp.all((context.actions == 0.5) | (context.actions == 0.0), axis=(1, 2))
        return jnp.where(good, 100.0, jnp.nan)[:, None] * params

    with evaluator_of(act, 1, 2, context=Context(3, 0.0)) as evaluator:
        results = evaluator(jnp.ones(1), 0)
    np.testing.assert_array_equal(results.returns, 1.5 * results.lengths)
