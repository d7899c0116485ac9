"""The collector: what it stores and draws, where its random numbers come from, and that it goes on exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from rl_jax.core.program import Feed, TrainState
from rl_jax.data.replay import ReplayBuffer
from rl_jax.envs.collector import Collector
from rl_jax.envs.gym_pool import EnvPool
from tests.envs.toys import LONG, SHORT

TOY = "tests.envs.toys:SavableToy-v0"


def noisy(policy, observations, key, temperature):
    """Samples around the run's own number, inside the toy's box of 0.5."""
    params, extra = policy
    return params["mean"] + extra["width"] * temperature * jax.random.normal(key, (len(observations), 1))


def state(num_runs: int, first: int = 0) -> TrainState:
    mean = 0.01 * (first + jnp.arange(num_runs, dtype=jnp.float32))
    return TrainState.create({"mean": mean}, {}, extra={"width": jnp.full(num_runs, 0.1)})


def keys_of(step: int, num_runs: int, first: int = 0) -> jax.Array:
    runs = jax.vmap(lambda run: jax.random.fold_in(jax.random.key(3), run))(first + jnp.arange(num_runs))
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(runs, step)


def make(num_runs: int = 2, *, act=noisy, capacity: int = 500, seed: int = 0, batch_size: int = 64, **options):
    replay = ReplayBuffer(num_runs, capacity, 2, 1, discount=options.pop("discount", None))
    pool = EnvPool(TOY, num_runs, savable=True)
    return Collector(pool, replay, seed=seed, batch_size=batch_size, **options).feed(act)


def run(feed: Feed, steps, num_runs: int = 2, first: int = 0) -> list:
    return [feed.collect(state(num_runs, first), (), keys_of(step, num_runs, first), step) for step in steps]


def assert_same(one: list, other: list, rows=slice(None)) -> None:
    for (batch, _), (wanted, _) in zip(one, other, strict=True):
        for name, column in vars(wanted).items():
            if column is not None:
                np.testing.assert_array_equal(getattr(batch, name)[rows], column, err_msg=name)


def reset_seed(run_seed: int, episode: int) -> int:
    return int(np.random.SeedSequence((run_seed, 0, episode)).generate_state(1)[0])


def test_rows_tell_what_happened_and_a_time_out_is_no_terminal():
    feed = make(seed=5, batch_size=4000, env_steps=3)
    batch, _ = run(feed, range(60))[-1]
    for row in range(2):
        number, time = batch.observations[row].T
        assert batch.observations.dtype == batch.rewards.dtype == np.float32
        np.testing.assert_array_equal(batch.next_observations[row, :, 0], number)
        np.testing.assert_array_equal(batch.next_observations[row, :, 1], time + 1)
        np.testing.assert_allclose(batch.rewards[row], 1 + batch.actions[row, :, 0], rtol=1e-6)
        # 180 steps of episodes in a row, each begun with the seed of its number.
        seeds, total = [], 0
        while total < 180:
            seeds.append(reset_seed(5 + row, len(seeds)))
            total += SHORT if seeds[-1] % 2 == 0 else LONG
        assert len(seeds) > 3 and {seed % 1000 for seed in seeds} == {*number.astype(int)}
        even = number % 2 == 0  # 1000 is even, so seed % 1000 tells
        np.testing.assert_array_equal(batch.masks[row], 1.0 - (even & (time == SHORT - 1)))
        assert (time == LONG - 1).any() and time.max() == LONG - 1


def test_finished_episodes_are_reported_with_raw_returns():
    def quarter(policy, observations, key, temperature):
        return jnp.full((len(observations), 1), 0.25)

    feed = make(act=quarter)
    history = run(feed, range(100))
    spans = [[], []]
    for row in range(2):
        end, episode = 0, 0
        while end < 100:
            length = SHORT if reset_seed(row, episode) % 2 == 0 else LONG
            end, episode = end + length, episode + 1
            spans[row].append((end - 1, length))
    for step, (_, metrics) in enumerate(history):
        lengths = [length for row in spans for end, length in row if end == step]
        if lengths:
            assert metrics == {"collect/return": 1.25 * np.mean(lengths), "collect/length": np.mean(lengths)}
        else:
            assert metrics == {}
    batch = history[-1][0]
    np.testing.assert_allclose(batch.rewards, 1.25)
    assert batch.observations[..., 1].min() == 0 and batch.next_observations[..., 1].min() == 1


def test_actions_are_samples_by_the_keys_of_the_step_and_compiled_once():
    traces = []

    def watched(policy, observations, key, temperature):
        traces.append(observations.shape)
        return noisy(policy, observations, key, temperature)

    feed = make(act=watched, env_steps=2, batch_size=3000)
    batch, _ = run(feed, range(30))[-1]
    assert traces == [(1, 2)], "the policy is traced once, for one observation of one run"
    for row in range(2):
        expected = [
            0.01 * row + 0.1 * jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, i), 0), (1, 1))[0, 0]
            for step in range(30) for key in [keys_of(step, 2)[row]] for i in range(2)
        ]
        drawn = np.unique(batch.actions[row])
        np.testing.assert_allclose(drawn, np.unique(np.clip(np.float32(expected), -0.5, 0.5)), atol=1e-6)


def test_random_steps_come_first_and_fill_the_box():
    def forbidden(policy, observations, key, temperature):
        raise AssertionError("the policy acts in the first call")

    feed = make(act=forbidden, random_steps=400, batch_size=4000)
    [(batch, metrics)] = run(feed, [0])
    assert metrics["collect/length"] > 1
    for row in range(2):
        actions = np.unique(batch.actions[row])
        assert len(actions) == 400 and actions.min() > -0.5 and actions.max() < 0.5
        np.testing.assert_allclose(np.quantile(actions, [0.02, 0.25, 0.5, 0.75, 0.98]),
                                   [-0.48, -0.25, 0, 0.25, 0.48], atol=0.06)
    assert not np.isin(batch.actions[0], batch.actions[1]).any(), "two runs explore alike"


@pytest.mark.parametrize("discount", [None, 0.9])
def test_a_fresh_collector_goes_on_bitwise(discount):
    options = {"env_steps": 3, "random_steps": 30, "discount": discount, "capacity": 60}
    unbroken = run(make(**options), range(40))
    for stop in (0, 1, 17):
        first = make(**options)
        run(first, range(stop))
        saved = serialization.msgpack_restore(serialization.msgpack_serialize(first.save()))
        second = make(**options)
        run(second, range(5))  # whatever it did before
        second.restore(saved)
        rest = run(second, range(stop, 40))
        assert_same(rest, unbroken[stop:])
        assert [metrics for _, metrics in rest] == [metrics for _, metrics in unbroken[stop:]]


def test_each_run_is_the_run_alone():
    pair = run(make(random_steps=30), range(20))
    alone = run(make(1, seed=1, random_steps=30), range(20), num_runs=1, first=1)
    assert_same(pair, [(jax.tree.map(lambda x: x[0], batch), {}) for batch, _ in alone], rows=1)


def test_batches_to_be_mixed_say_how_many_steps_they_were_drawn_from():
    """With the returns of whole episodes, nothing is drawn before an episode has ended."""
    feed = make(for_mixing=True, discount=0.9)
    for step in range(LONG + 2):
        [(batch, _)] = run(feed, [step])
        assert batch.transitions.observations.shape == (2, 64, 2)
        expected = []
        for row in range(2):
            lengths = [SHORT if reset_seed(row, episode) % 2 == 0 else LONG for episode in range(LONG)]
            ends = np.cumsum(lengths)
            expected.append(int(max(ends[ends <= step + 1], default=0)))
        np.testing.assert_array_equal(batch.num_drawable, np.broadcast_to(np.array(expected)[:, None], (2, 64)))
    feed.close()
    with pytest.raises(ValueError, match="is closed"):
        run(feed, [LONG + 2])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="env_steps=0, random_steps=0: at least 1 and at least 0"):
        make(env_steps=0)
    with pytest.raises(ValueError, match="2 runs need one environment each, not 3"):
        Collector(EnvPool(TOY, 3, savable=True), ReplayBuffer(2, 9, 2, 1), seed=0, batch_size=4)
    with pytest.raises(ValueError, match="the replay buffer is empty"):
        run(make(discount=0.9), [0])
