"""Advantages: hand numbers, the sums that define them, time-outs against terminals, groups of one prompt."""

import collections
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.advantages import (
    UNROLL,
    PromptStatistics,
    centred_advantages,
    generalized_advantages,
    greedy_baseline_advantages,
    group_advantages,
    leave_one_out_advantages,
    per_prompt_advantages,
    returns_to_go,
    token_generalized_advantages,
    whitened_advantages,
    zero_variance,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "verifiable.npz")

RNG = np.random.default_rng(0)


def test_by_hand():
    # Rewards 1, values 2, gamma lambda = 1/4: delta = 1 + 2/2 - 2 = 0 on the way and 1 - 2 = -1 at the terminal.
    ones = np.ones(4, np.float32)
    masks, ends = np.array([1, 1, 0, 1], np.float32), np.array([False, False, True, False])
    advantages = generalized_advantages(ones, masks, ends, 2 * ones, 2 * ones, 0.5, 0.5)
    np.testing.assert_allclose(advantages, [-1 / 16, -1 / 4, -1.0, 0.0], atol=1e-7)


def test_a_time_out_bootstraps_from_the_final_value_and_lets_nothing_through():
    rewards, values = np.zeros(2, np.float32), np.zeros(2, np.float32)
    next_values = np.array([4.0, 1000.0], np.float32)  # of the final observation; the second is the next episode's

    def first(mask, end):
        masks, ends = np.array([mask, 1.0], np.float32), np.array([end, False])
        return float(generalized_advantages(rewards, masks, ends, values, next_values, 0.5, 0.5)[0])

    assert first(mask=1.0, end=True) == 2.0  # gamma V(final)
    assert first(mask=0.0, end=True) == 0.0  # a terminal is worth nothing
    assert first(mask=1.0, end=False) == 2.0 + 0.25 * 500.0


def by_definition(rewards, masks, ends, values, next_values, discount, gae_lambda):
    """Equation 16 as it stands: sum over l of (gamma lambda)^l delta_{t+l}, up to the episode's end; one column."""
    deltas = rewards + discount * masks * next_values - values
    out = np.zeros(len(rewards))
    for t in range(len(rewards)):
        for later in range(t, len(rewards)):
            out[t] += (discount * gae_lambda) ** (later - t) * deltas[later]
            if ends[later]:
                break
    return out


@pytest.mark.parametrize("num_steps", [1, UNROLL, 2 * UNROLL + 3])
def test_it_is_the_sum_that_defines_it(num_steps):
    shape = (num_steps, 5)
    ends = RNG.random(shape) < 0.2
    masks = 1.0 - (ends & (RNG.random(shape) < 0.5))
    arrays = RNG.normal(size=shape), masks, ends, RNG.normal(size=shape), RNG.normal(size=shape)
    ours = generalized_advantages(*(x.astype(np.float32) if x.dtype != bool else x for x in arrays), 0.97, 0.9)
    expected = np.stack([by_definition(*(x[:, i] for x in arrays), 0.97, 0.9) for i in range(5)], axis=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_lambda_0_is_the_td_error_and_lambda_1_the_return_minus_the_value():
    rewards, values = (RNG.normal(size=6).astype(np.float32) for _ in range(2))
    masks, ends = np.array([1, 1, 1, 1, 1, 0], np.float32), np.arange(6) == 5
    next_values = np.append(values[1:], np.float32(99.0))
    zero, one = (generalized_advantages(rewards, masks, ends, values, next_values, 0.9, x) for x in (0.0, 1.0))
    np.testing.assert_allclose(zero, rewards + 0.9 * masks * next_values - values, rtol=1e-5)
    returns = [sum(0.9**k * r for k, r in enumerate(rewards[t:])) for t in range(6)]
    np.testing.assert_allclose(one, returns - values, rtol=1e-4, atol=1e-5)


def test_no_gradient_flows_through_them():
    x, ends = np.ones(3, np.float32), np.zeros(3, bool)
    gradient = jax.grad(lambda v: generalized_advantages(x, x, ends, v, v, 0.9, 0.9).sum())(x)
    assert not np.any(gradient)


def test_group_advantages_by_hand():
    # Mean 2 and sample deviation 1; mean 0.5 and deviation sqrt(1/2); three equal rewards, whose mean is rounded.
    np.testing.assert_allclose(group_advantages(np.array([1.0, 2.0, 3.0])), [-1.0, 0.0, 1.0], rtol=1e-5)
    two = group_advantages(np.array([[0.0, 1.0], [7.0, 7.0]]))
    np.testing.assert_allclose(two, [[-(0.5**0.5), 0.5**0.5], [0.0, 0.0]], rtol=1e-5)
    np.testing.assert_array_equal(group_advantages(np.full((2, 3), 0.1, np.float32)), np.zeros((2, 3)))


def test_leave_one_out_advantages_by_hand():
    # 1 - mean(2, 6), 2 - mean(1, 6), 6 - mean(1, 2)
    np.testing.assert_allclose(leave_one_out_advantages(np.array([[1.0, 2.0, 6.0]])), [[-3.0, -1.5, 4.5]])
    # Against the definition, and against the mean with its factor G / (G - 1).
    rewards = RNG.normal(size=(4, 5)).astype(np.float32)
    expected = [[r - np.mean(np.delete(row, i)) for i, r in enumerate(row)] for row in rewards]
    np.testing.assert_allclose(leave_one_out_advantages(rewards), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expected, 5 / 4 * (rewards - rewards.mean(1, keepdims=True)), rtol=1e-3, atol=1e-5)


OF_GROUPS = {"group": group_advantages, "centred": centred_advantages, "leave_one_out": leave_one_out_advantages}


def test_centred_advantages_and_a_greedy_baseline_by_hand():
    found = centred_advantages(np.array([[1.0, 2.0, 6.0], [0.1, 0.1, 0.1]], np.float32))
    np.testing.assert_allclose(found, [[-2.0, -1.0, 3.0], [0.0, 0.0, 0.0]])
    found = greedy_baseline_advantages(np.array([[1.0, 2.0], [0.0, 5.0]]), np.array([1.5, 1.0]))
    np.testing.assert_allclose(found, [[-0.5, 0.5], [-1.0, 4.0]])


@pytest.mark.parametrize("name", OF_GROUPS)
def test_advantages_of_groups_are_those_of_verl(name):
    """Which spreads them over the tokens of each response."""
    found = OF_GROUPS[name](GOLDEN["given/rewards"].reshape(-1, 3)).reshape(-1, 1) * GOLDEN["given/mask"]
    np.testing.assert_allclose(found, GOLDEN[name], rtol=1e-4, atol=1e-6)


def test_a_greedy_baseline_is_that_of_verl():
    found = greedy_baseline_advantages(GOLDEN["given/rewards"].reshape(-1, 3), GOLDEN["given/greedy"])
    np.testing.assert_allclose(found.reshape(-1, 1) * GOLDEN["given/mask"], GOLDEN["greedy_baseline"], rtol=1e-5)


def test_unknown_rewards_count_nowhere_as_in_trl():
    given = GOLDEN["given/unknown"].reshape(-1, 3)
    valid = ~np.isnan(given)
    found = leave_one_out_advantages(given, valid)
    np.testing.assert_allclose(found.reshape(-1), GOLDEN["trl_leave_one_out"], rtol=1e-4, atol=1e-6)
    assert valid.sum() == 9 and float(found[3, 0]) == 0.0  # alone in its group
    # The others are as if it were not there.
    for advantages in OF_GROUPS.values():
        alone = advantages(given[:1, [0, 2]])
        np.testing.assert_allclose(advantages(given[:1], valid[:1])[0, [0, 2]], alone[0], rtol=1e-4)
        assert float(advantages(given, valid)[0, 1]) == 0.0


def test_equal_rewards_are_found_by_comparing_them():
    rewards = np.array([[0.1, 0.1, 0.1], [0.1, 0.1, 0.2], [0.1, 0.1, np.nan]], np.float32)
    np.testing.assert_array_equal(zero_variance(rewards, ~np.isnan(rewards)), [True, False, True])


def test_returns_to_go_and_global_whitening_by_hand():
    # 1 + (2 + 4 / 2) / 2 = 3, 2 + 4 / 2 = 4, 4; the second row's middle token is not the policy's.
    rewards = np.array([[1.0, 2.0, 4.0], [1.0, 9.0, 2.0]], np.float32)
    mask = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]], np.float32)
    returns = returns_to_go(rewards, mask, 0.5)
    np.testing.assert_allclose(returns, [[3.0, 4.0, 4.0], [2.0, 0.0, 2.0]])
    # Mean 3 of five, squares 0 + 1 + 1 + 1 + 1 over 4.
    np.testing.assert_allclose(whitened_advantages(returns, mask), [[0.0, 1.0, 1.0], [-1.0, 0.0, -1.0]], atol=1e-6)
    np.testing.assert_array_equal(whitened_advantages(np.full((2, 3), 0.1, np.float32), mask), np.zeros((2, 3)))


def test_returns_and_whitening_are_those_of_verl():
    returns = returns_to_go(GOLDEN["given/token_rewards"], GOLDEN["given/gaps"], 0.9)
    np.testing.assert_allclose(returns, GOLDEN["returns"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        whitened_advantages(returns, GOLDEN["given/gaps"]), GOLDEN["whitened"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("advantages", OF_GROUPS.values())
def test_groups_have_no_gradient_and_at_least_two_members(advantages):
    assert not np.any(jax.grad(lambda r: jnp.square(advantages(r)).sum())(jnp.array([0.0, 1.0, 5.0])))
    for rewards in (np.ones(()), np.ones((3, 1))):
        with pytest.raises(ValueError, match="the last axis is a group"):
            advantages(rewards)


class Tracker:
    """DDPO's, as a dictionary of deques."""

    def __init__(self, size, min_count):
        self.size, self.min_count, self.rewards = size, min_count, {}

    def update(self, prompts, rewards):
        advantages = np.empty_like(rewards)
        for prompt in np.unique(prompts):
            own = self.rewards.setdefault(int(prompt), collections.deque(maxlen=self.size))
            own.extend(rewards[prompts == prompt])
            known = rewards if len(own) < self.min_count else np.array(own)
            advantages[prompts == prompt] = (rewards[prompts == prompt] - known.mean()) / (known.std() + 1e-6)
        return np.clip(advantages, -1.5, 1.5)


def test_prompts_are_normalised_as_by_the_authors_tracker():
    tracker, statistics = Tracker(5, 3), PromptStatistics.empty(4, 5)
    update = jax.jit(lambda *inputs: per_prompt_advantages(*inputs, min_count=3, clip=1.5))
    for _ in range(12):
        prompts = RNG.integers(0, 4, 9)
        prompts[:7] = prompts[0] if RNG.random() < 0.3 else prompts[:7]  # more of one prompt than it remembers
        rewards = RNG.normal(prompts, 1.0).astype(np.float32)
        statistics, found = update(statistics, prompts, rewards)
        np.testing.assert_allclose(found, tracker.update(prompts, rewards), atol=1e-5)
    assert [len(tracker.rewards[prompt]) for prompt in range(4)] == np.minimum(statistics.counts, 5).tolist()


def test_prompts_by_hand():
    # Prompt 1 is new and takes the batch's mean 2 and deviation sqrt(2/3); prompt 0 takes its own, 0, 1, 2 and 3.
    statistics = PromptStatistics(jnp.array([[0.0, 1.0, 0, 0], [0, 0, 0, 0]]), jnp.array([2, 0]))
    rewards = np.array([2.0, 3.0, 1.0], np.float32)
    _, found = per_prompt_advantages(statistics, np.array([0, 0, 1]), rewards, min_count=2, clip=10.0)
    np.testing.assert_allclose(found, [0.5 / 1.25**0.5, 1.5 / 1.25**0.5, -1.0 / (2 / 3) ** 0.5], rtol=1e-5)
    # Equal rewards are worth nothing, and nothing overflows.
    empty, sevens = PromptStatistics.empty(1, 4), np.full(3, 7.0, np.float32)
    _, found = per_prompt_advantages(empty, np.zeros(3, int), sevens, min_count=1, clip=10.0)
    np.testing.assert_array_equal(found, 0.0)


def test_tokens_by_hand():
    """Another's token lies between; what stands where the mask is 0 may be anything. gamma = lambda = 1/2."""
    mask = np.array([[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    rewards = np.array([[9, 1, np.nan, 0, 2, 9], [1, 1, 1, 1, 1, 1]], np.float32)
    values = np.array([[9, 2, 9, 4, 1, np.inf], [1, 1, 1, 1, 1, 1]], np.float32)
    # Last 2 - 1; before it 0 + 1/2 - 4 + 1/4; first, past the gap, 1 + 4/2 - 2 - 3.25/4.
    wanted = [[0, 0.1875, 0, -3.25, 1, 0], [0] * 6]
    np.testing.assert_allclose(token_generalized_advantages(rewards, values, mask, 0.5, 0.5), wanted, rtol=1e-6)


def test_advantages_of_tokens_are_those_of_steps_without_the_gaps():
    mask = (RNG.random((1, 40)) < 0.6).astype(np.float32)
    rewards, values = RNG.normal(size=(2, 1, 40)).astype(np.float32)
    at = np.flatnonzero(mask[0])
    ends, after = np.arange(len(at)) == len(at) - 1, np.append(values[0, at][1:], 0.0).astype(np.float32)
    own = generalized_advantages(rewards[0, at], 1.0 - ends.astype(np.float32), ends, values[0, at], after, 0.9, 0.8)
    found = token_generalized_advantages(rewards, values, mask, 0.9, 0.8)
    np.testing.assert_allclose(found[0, at], own, rtol=1e-4, atol=1e-5)
    undiscounted = token_generalized_advantages(rewards, values, mask, 1.0, 1.0)
    np.testing.assert_allclose(undiscounted, returns_to_go(rewards, mask) - values * mask, rtol=1e-4, atol=1e-4)
    assert not np.any(jax.grad(lambda x: jnp.sum(token_generalized_advantages(rewards, x, mask, 0.9, 0.8)))(values))
