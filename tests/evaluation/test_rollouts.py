"""Policy evaluation: exact accounting of episodes, one compilation, and errors that name run and step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.envs.gym_pool import EnvPool, EnvPoolError
from rl_jax.evaluation.rollouts import PolicyEvaluator, episode_seeds
from tests.envs.toys import LONG, SHORT, episode_length
from tests.evaluation.evaluators import evaluator_of


def constant_act(params, observations, key, temperature):
    """The parameter itself, with Gaussian noise at temperature > 0."""
    noise = jax.random.normal(key, (len(observations), 1))
    return jnp.broadcast_to(params["action"], (len(observations), 1)) + temperature * noise


def test_every_episode_counts_once_from_reset_to_end():
    num_episodes = 12
    params = {"action": jnp.array([[0.0], [0.25], [-0.5]])}
    lengths = np.array([episode_length(int(seed)) for seed in episode_seeds(5, num_episodes)])
    assert {SHORT, LONG} == set(lengths), "the seed gives both kinds"
    with evaluator_of(constant_act, 3, num_episodes) as evaluator:
        results = evaluator(params, 5)
    np.testing.assert_array_equal(results.lengths, [lengths] * 3)
    np.testing.assert_array_equal(results.terminated, [lengths == SHORT] * 3)
    # Rewards are 1 + action: exact in float64.
    np.testing.assert_array_equal(results.returns, np.outer([1.0, 1.25, 0.5], lengths))
    # Twelve environments reset as soon as they are free would give their first twelve ends to the short starts.
    assert results.lengths.mean() == lengths.mean() > 1.5 * SHORT


def test_the_same_results_with_one_worker_or_two_and_with_runs_alone():
    params = {"action": jnp.array([[0.1], [-0.3]])}
    results = []
    for num_workers in (1, 2):
        with evaluator_of(constant_act, 2, 5, num_workers=num_workers) as evaluator:
            results.append(evaluator(params, 3, 0.7))
    for x, y in zip(*results):
        np.testing.assert_array_equal(x, y)
    for run in range(2):
        with evaluator_of(constant_act, 1, 5) as evaluator:
            alone = evaluator({"action": params["action"][run : run + 1]}, 3, 0.7)
        np.testing.assert_array_equal(alone.lengths[0], results[0].lengths[run])
        # XLA may round a batch of another shape differently in the last place.
        np.testing.assert_allclose(alone.returns[0], results[0].returns[run], rtol=1e-6)


def test_temperature_and_seed_act_and_repeat():
    params = {"action": jnp.zeros((1, 1))}
    with evaluator_of(constant_act, 1, 6) as evaluator:
        mode, noisy = evaluator(params, 1), evaluator(params, 1, 0.2)
        again, other = evaluator(params, 1, 0.2), evaluator(params, 2, 0.2)
    np.testing.assert_array_equal(mode.returns, mode.lengths)
    assert (noisy.returns != noisy.lengths).all()
    np.testing.assert_array_equal(noisy.returns, again.returns)
    assert (noisy.returns != other.returns).any()
    assert len(set(noisy.returns[0] / noisy.lengths[0])) == 6, "each episode and step has its own noise"


def test_observations_reach_the_policy_of_their_own_run_and_episode():
    def first_observation(params, observations, key, temperature):
        return params * observations[:, :1] / 1000.0

    seeds = episode_seeds(9, 4)
    lengths = [episode_length(int(seed)) for seed in seeds]
    with evaluator_of(first_observation, 2, 4, num_workers=2) as evaluator:
        results = evaluator(jnp.array([0.5, -0.25]), 9)
    for run, scale in enumerate([0.5, -0.25]):
        expected = [n * (1 + scale * (seed % 1000) / 1000) for n, seed in zip(lengths, seeds)]
        np.testing.assert_allclose(results.returns[run], expected, rtol=1e-6)


def test_actions_are_clipped_to_the_box():
    with evaluator_of(constant_act, 2, 2) as evaluator:
        results = evaluator({"action": jnp.array([[100.0], [-100.0]])}, 0)
    np.testing.assert_array_equal(results.returns, results.lengths * np.array([[1.5], [0.5]]))


def test_compiles_once_and_transfers_explicitly():
    traces = []

    def act(params, observations, key, temperature):
        traces.append(observations.shape)
        return params * jnp.ones((len(observations), 1)) + temperature

    params = [jax.device_put(np.full((2,), x, np.float32)) for x in (0.1, 0.2, 0.3)]
    with evaluator_of(act, 2, 3) as evaluator, jax.transfer_guard("disallow"):
        for seed, p in enumerate(params):
            evaluator(p, seed, temperature=0.1 * seed)
    assert traces == [(3, 2)]


def test_parameters_may_be_laid_over_devices():
    params = {"action": np.array([[0.25], [-0.5]], np.float32)}
    mesh = jax.make_mesh((2,), ("seed",), devices=jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seed"))
    with evaluator_of(constant_act, 2, 3) as evaluator:
        expected = evaluator(jax.device_put(params), 4)
        results = evaluator(jax.device_put(params, sharding), 4)
    for x, y in zip(results, expected):
        np.testing.assert_array_equal(x, y)


def test_a_nan_action_names_run_and_step():
    def act(params, observations, key, temperature):
        # Run 1 fails from the third step on.
        bad = (params == 1) & (observations[:, 1:] >= 2)
        return jnp.where(bad, jnp.nan, 0.0)

    seed = next(s for s in range(100) if episode_length(int(episode_seeds(s, 3)[1])) == LONG)
    first_long = [episode_length(int(s)) for s in episode_seeds(seed, 3)].index(LONG)
    with evaluator_of(act, 2, 3) as evaluator:
        with pytest.raises(FloatingPointError, match=f"action of run 1 .* at step 2 of episode {first_long}"):
            evaluator(jnp.arange(2), seed)


def test_nan_in_an_episode_that_has_ended_is_of_no_matter():
    def act(params, observations, key, temperature):
        ended = observations[:, 1:] >= SHORT
        return jnp.where(ended & (observations[:, :1] % 2 == 0), jnp.nan, params)

    with evaluator_of(act, 1, 8) as evaluator:
        results = evaluator(jnp.zeros(1), 5)
    np.testing.assert_array_equal(results.returns, results.lengths)


def test_a_nan_reward_names_run_and_step():
    with evaluator_of(constant_act, 2, 2, env_kwargs={"fault": "nan"}) as evaluator:
        with pytest.raises(FloatingPointError, match="reward of run 0 is not finite at step 1 of episode 0"):
            evaluator({"action": jnp.zeros((2, 1))}, 0)


def test_wrong_parameters_and_actions_are_named():
    with evaluator_of(constant_act, 2, 2) as evaluator:
        with pytest.raises(ValueError, match=r"params\['action'\] has shape \(3, 1\)"):
            evaluator({"action": jnp.zeros((3, 1))}, 0)
    with evaluator_of(lambda p, o, k, t: jnp.zeros((len(o), 2)), 1, 2) as evaluator:
        with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), not \(1, 2, 1\)"):
            evaluator(jnp.zeros(1), 0)
    with EnvPool("tests.envs.toys:Toy-v0", 3) as pool, pytest.raises(ValueError, match="3 environments .* 2 episodes"):
        PolicyEvaluator(pool, constant_act, 2)


def test_policies_take_turns_in_one_pool():
    with EnvPool("tests.envs.toys:Toy-v0", 6) as pool:
        one, other = (PolicyEvaluator(pool, act, 3) for act in (constant_act, lambda p, o, k, t: p * o[:, :1]))
        params = {"action": jnp.array([[0.1], [-0.3]])}
        first = one(params, 3)
        other(jnp.zeros(2), 4)
        for x, y in zip(one(params, 3), first):
            np.testing.assert_array_equal(x, y)


def test_an_environment_that_fails_is_an_error():
    with evaluator_of(constant_act, 2, 4, env_kwargs={"fault": "raise"}, num_workers=2) as evaluator:
        with pytest.raises(EnvPoolError, match="Toy-v0 failed in step"):
            evaluator({"action": jnp.zeros((2, 1))}, 5)


def test_episode_seeds_depend_on_seed_and_episode_alone():
    np.testing.assert_array_equal(episode_seeds(7, 3), episode_seeds(7, 10)[:3])
    seeds = np.concatenate([episode_seeds(seed, 100) for seed in range(20)])
    assert len(set(seeds)) == 2000 and seeds.min() >= 0 and seeds.max() < 2**32
