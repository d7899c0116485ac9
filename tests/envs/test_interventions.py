"""Interventions: which step is blamed, what is stored, where it starts anew, and what never gets into a buffer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from rl_jax.data.replay import ReplayBuffer
from rl_jax.envs.gym_pool import EnvPool
from rl_jax.envs.interventions import InterventionCollector, Rule, Store
from tests.envs.test_collector import TOY, assert_same, keys_of, reset_seed, run
from tests.envs.toys import LONG, SHORT

ODD = next(seed for seed in itertools.count() if reset_seed(seed, 0) % 2)  # its first episode is long
CERTAIN = Rule("value", 4, 1.0, 0.5, False, 0.1)  # wherever the policy is worse, and nowhere else


class Expert:
    """Acts 1 in [-1, 1], 0.5 in the toy's box, with noise of 0.1."""

    def act(self, observations, noise):
        return np.ones((len(observations), 1), np.float32) - (0.0 if noise is None else 0.1 * np.abs(noise))


def policy(params, observations, key, temperature):
    return jnp.full((len(observations), 1), 0.25)


def worse_at(times):
    """A reference Q by which the policy's action is worse than the expert's at these times of an episode."""
    def q(params, observations, actions):
        return jnp.where(jnp.isin(observations[:, 1], jnp.array(times)), actions[:, 0], 0.0)

    return q


def make(times=range(LONG), rule=CERTAIN, store=Store(), num_runs=1, seed=ODD, batch_size=64, act=policy, **options):
    pool = EnvPool(TOY, num_runs, savable=True)
    replay = ReplayBuffer(num_runs, 500, 2, 1, marks_expert=True)
    collector = InterventionCollector(
        pool, replay, expert=Expert(), rule=rule, store=store, value=worse_at(list(times)), seed=seed,
        batch_size=batch_size, for_mixing=True, **options,
    )
    return collector, replay, collector.feed(act)


def stored(replay, row=0):
    """(episode's number, time, reward, by the expert) of all rows in their order."""
    saved = replay.save()
    columns = (saved["observations"][row, :, 0], saved["observations"][row, :, 1], saved["rewards"][row],
               saved["expert"][row])
    return [tuple(float(x) for x in one) for one in zip(*columns)][: int(saved["added"][row])]


def by_hand(times, steps, length, expert_steps):
    """The rows of one episode as (time, reward, by the expert), step by step: a take-over is decided where no
    intervention goes on, and the policy has the step after its end."""
    rows, actors, end = [], [], None
    for time in range(length):
        if end is None and time in times:
            end = time + steps
        elif end == time:
            end = None
            actors.append(False)
            continue
        actors.append(end is not None)
    for time in range(length - 1):  # the last step waits for a next one that does not come
        now, following = actors[time], actors[time + 1]
        if now and (expert_steps == "none" or expert_steps == "last" and following):
            continue
        rows.append((time, -1.0 if following and not now else 0.0, float(now)))
    return rows


@pytest.mark.parametrize("times, steps, expert_steps", [
    (range(LONG), 4, "last"), ([0, 7, 11], 2, "last"), ([2, 3, 4, 5], 1, "last"), ([18], 4, "last"),
    ([3, 9], 4, "all"), ([3, 9], 4, "none"),
])
def test_the_step_before_a_take_over_is_blamed(times, steps, expert_steps):
    _, replay, feed = make(times, CERTAIN._replace(steps=steps), Store(expert_steps=expert_steps))
    run(feed, range(LONG), num_runs=1)
    expected = by_hand(times, steps, LONG, expert_steps)
    assert [row[1:] for row in stored(replay)] == expected
    assert all(by == 0.0 for _, reward, by in expected if reward), "only the policy is blamed"
    batch = run(feed, [LONG], num_runs=1)[0][0].transitions
    # The policy's action is stored with the blame, the expert's with its own steps, and each where it happened.
    assert (batch.actions[batch.expert == 0] == 0.25).all() and (batch.actions[batch.expert == 1] > 0.25).all()
    np.testing.assert_array_equal(batch.next_observations[..., 1], batch.observations[..., 1] + 1)


def test_four_expert_steps_then_one_of_the_policy_by_numbers():
    """The trace written out: the expert has steps 0-3, 5-8, ...; 4, 9 and 14 are blamed; of the expert's 3, 8 and 13
    are stored."""
    collector, replay, feed = make()
    run(feed, range(LONG), num_runs=1)
    assert [row[1:] for row in stored(replay)] == [
        (3, 0, 1), (4, -1, 0), (8, 0, 1), (9, -1, 0), (13, 0, 1), (14, -1, 0), (18, 0, 1)
    ]
    assert {name: int(x[0]) for name, x in collector.counts.items()} == {
        "env_steps": 20, "expert_steps": 16, "interventions": 4, "labels": 0
    }


@pytest.mark.parametrize("last_step, rewards", [("dropped", []), ("kept", [0.0]), ("punished", [-1.0])])
def test_the_end_of_an_episode(last_step, rewards):
    """No take-over can follow it; a terminal step is worth -1 if asked, a time-out never is."""
    _, replay, feed = make([], store=Store(last_step=last_step), env_steps=200)
    run(feed, [0], num_runs=1)
    rows = stored(replay)
    short = [row for row in rows if int(row[0]) % 2 == 0 and row[1] == SHORT - 1]
    long = [row for row in rows if int(row[0]) % 2 and row[1] == LONG - 1]
    assert bool(short) == bool(long) == bool(rewards)
    assert {row[2] for row in short} == {*rewards} and {row[2] for row in long} <= {0.0}
    masks = replay.save()["masks"][0, : len(rows)]
    assert (masks == 0).sum() == len(short)


def test_an_intervention_ends_with_its_episode():
    """In episodes of two steps one begins in each first step; none goes on, and nobody is blamed for the next one's."""
    collector, replay, feed = make([0], store=Store(expert_steps="all", last_step="kept"))
    history = run(feed, range(100), num_runs=1)
    rows = stored(replay)
    assert not any(reward for *_, reward, _ in rows), "a take-over in an episode's first step follows no step"
    for number in {row[0] for row in rows if row[0] % 2}:
        long = [row for row in rows if row[0] == number][:LONG]
        assert [by for *_, by in long] == [1.0] * 4 + [0.0] * (len(long) - 4)
    rates = [metrics["collect/intervention_rate"] for _, metrics in history if metrics]
    assert {*np.round(rates, 6)} == {1.0, 4 / LONG}
    assert collector.counts["interventions"][0] == len(rates) + (100 > sum(LONG if r < 1 else SHORT for r in rates))


@pytest.mark.parametrize("store, kind", [
    (Store(), "value"), (Store(expert_steps="all", last_step="kept"), "random"),
    (Store(expert_steps="none", last_step="punished"), "random_segments"),
    (Store("labels", label_share=0.5, unlabelled="own"), "never"), (Store("segments", unlabelled="own"), "value"),
])
def test_no_reward_of_the_task_is_ever_stored(store, kind):
    """The toy pays 1 and more a step; what is stored is -1 or 0."""
    _, replay, feed = make(rule=CERTAIN._replace(kind=kind, beta=0.9), store=store, num_runs=2, env_steps=120)
    batch = run(feed, [0])[-1][0]
    rewards = replay.save()["rewards"]
    assert {*rewards.ravel(), *batch.transitions.rewards.ravel()} <= {-1.0, 0.0}
    assert (rewards < 0).any() == (store.what == "steps")


def test_the_rules():
    own, experts, half = np.array([1.0, 0.9, -2.0, -1.0]), np.array([1.0, 1.0, -1.0, -2.0]), np.full(4, 0.5)
    relative = Rule("value", 4, 0.95, 0.3, True, 0.95)
    np.testing.assert_array_equal(relative.begins(own, experts, half), [False, True, True, False])
    absolute = relative._replace(relative=False, threshold=0.2)
    np.testing.assert_array_equal(absolute.begins(own, experts, half), [False, False, True, False])
    # With a negative Q 0.95 times the expert's lies above it: even the expert's own action would be worse.
    assert relative.begins(experts[2:], experts[2:], half[2:]).all()
    # One time in twenty it is the other way round.
    np.testing.assert_array_equal(absolute.begins(own, experts, np.full(4, 0.04)), [True, True, True, True])
    np.testing.assert_array_equal(absolute.begins(own, experts, np.full(4, 0.96)), [False] * 4)
    np.testing.assert_array_equal(absolute._replace(kind="random").begins(own, experts, np.array([0.1, 0.29, 0.3, 1])),
                                  [True, True, False, False])
    assert not absolute._replace(kind="never").begins(own, experts, np.zeros(4)).any()


@pytest.mark.parametrize("kind, probability, rate", [
    ("value", 0.0, 0.05 * 4 / (0.05 * 5 + 0.95)), ("random", 0.85, 0.85), ("random_segments", 0.3, 1.2 / 2.2),
])
def test_how_often_the_expert_acts(kind, probability, rate):
    """A policy that is never worse is interrupted all the same: a decision in twenty, 4 steps and one of its own."""
    collector, *_, feed = make([], Rule(kind, 4, 0.95, probability, False, 0.1), env_steps=1500)
    run(feed, [0], num_runs=1)
    found = collector.counts["expert_steps"].sum() / collector.counts["env_steps"].sum()
    assert found == pytest.approx(rate, abs=0.04)  # episodes cut some interventions off


def test_labels_are_the_experts_mode_in_the_states_of_the_policy():
    never = CERTAIN._replace(kind="never")
    collector, replay, feed = make(rule=never, store=Store("labels"))
    run(feed, range(60), num_runs=1)
    saved = replay.save()
    assert saved["added"][0] == 60 and (saved["actions"] == 0.5).all() and (saved["expert"] == 1).all()
    assert collector.counts["labels"][0] == 60 and collector.counts["expert_steps"][0] == 0
    _, replay, feed = make(rule=never, store=Store("labels", label_share=0.85, unlabelled="own"), env_steps=400)
    run(feed, [0], num_runs=1)
    saved = replay.save()
    np.testing.assert_array_equal(saved["actions"][0, :, 0], np.where(saved["expert"][0] == 1, 0.5, 0.25))
    assert saved["expert"][0].mean() == pytest.approx(0.85, abs=0.06)
    _, replay, feed = make(rule=never, store=Store("labels", label_share=0.85), env_steps=400)
    run(feed, [0], num_runs=1)
    assert (replay.save()["actions"] == 0.5).all() and 300 < replay.added[0] < 380


def test_segments_are_what_the_expert_did():
    _, replay, feed = make([3, 11], store=Store("segments"))
    run(feed, range(LONG), num_runs=1)
    assert [row[1:] for row in stored(replay)] == [(t, 0.0, 1.0) for t in (3, 4, 5, 6, 11, 12, 13, 14)]
    actions = replay.save()["actions"]
    assert (actions < 0.5).all() and len(np.unique(actions)) == 8, "with its noise, as it acted"
    _, replay, feed = make([3, 11], store=Store("segments", unlabelled="own"))
    run(feed, range(LONG), num_runs=1)
    assert [row[1] for row in stored(replay)] == [*range(LONG)]


def test_another_experts_action_may_be_what_is_compared():
    class Zero:
        def act(self, observations, noise):
            assert noise is None, "its mode"
            return np.zeros((len(observations), 1), np.float32)

    collector, *_, feed = make(compared=Zero())  # Q of 0 is below that of the policy's 0.25
    run(feed, range(40), num_runs=1)
    assert collector.counts["interventions"][0] == 0


@pytest.mark.parametrize("kind, what", [
    ("value", "steps"), pytest.param("random", "steps", marks=pytest.mark.slow),
    pytest.param("value", "segments", marks=pytest.mark.slow),
])
def test_it_goes_on_bitwise_and_each_run_is_the_run_alone(kind, what):
    def sampled(policy, observations, key, temperature):
        return 0.5 * jnp.tanh(jax.random.normal(key, (len(observations), 1)))

    rule, store = CERTAIN._replace(kind=kind, beta=0.9), Store(what, last_step="punished")
    options = {"rule": rule, "store": store, "act": sampled}
    whole = run(make(num_runs=2, seed=0, **options)[2], range(50))
    for stop in (0, 3, 27):
        first = make(num_runs=2, seed=0, **options)
        run(first[2], range(stop))
        saved = serialization.msgpack_restore(serialization.msgpack_serialize(first[2].save()))
        second = make(num_runs=2, seed=0, **options)
        second[2].restore(saved)
        rest = run(second[2], range(stop, 50))
        transitions = [[(batch.transitions, metrics) for batch, metrics in part] for part in (rest, whole[stop:])]
        assert_same(*transitions)
        assert [metrics for _, metrics in rest] == [metrics for _, metrics in whole[stop:]]
    alone = run(make(seed=1, **options)[2], range(50), num_runs=1, first=1)
    np.testing.assert_array_equal(whole[-1][0].num_drawable[1], alone[-1][0].num_drawable[0])
    one, other = (jax.tree.map(lambda x: x[row], part[-1][0].transitions) for row, part in ((1, whole), (0, alone)))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_rounds():
    collector, replay, feed = make(rule=CERTAIN._replace(kind="never"), store=Store("labels"), first=4, every=3,
                                   env_steps=10)
    seen = []
    for step in range(11):
        [(batch, _)] = run(feed, [step], num_runs=1)
        seen.append(int(batch.num_drawable[0, 0]))
    assert seen == [0, 0, 0, 0, 10, 10, 10, 20, 20, 20, 30]
    assert keys_of(0, 1).shape == (1,)


@pytest.mark.parametrize("rule, store, message", [
    (CERTAIN._replace(kind="values"), Store(), "unknown config.intervention.kind 'values': did you mean value"),
    (CERTAIN, Store("label"), "unknown config.store.what 'label': did you mean labels"),
    (CERTAIN, Store(expert_steps="lst"), "unknown config.store.expert_steps 'lst': did you mean last"),
    (CERTAIN, Store(last_step="keep"), "unknown config.store.last_step 'keep': did you mean kept"),
])
def test_what_is_unknown_is_named(rule, store, message):
    with pytest.raises(ValueError, match=message):
        make(rule=rule, store=store)


def test_a_value_based_expert_needs_a_reference():
    pool, replay = EnvPool(TOY, 1, savable=True), ReplayBuffer(1, 9, 2, 1, marks_expert=True)
    with pytest.raises(ValueError, match="config.intervention.kind=value: the rule compares a reference Q, and none"):
        InterventionCollector(pool, replay, expert=Expert(), rule=CERTAIN, store=Store(), seed=0, batch_size=4)
