"""RLEEGNet: an update by hand, what waiting earns, what a learner may not see, and parity with another pipeline."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rleegnet
from experiments.rleegnet import experiment as paper
from rl_jax.agents.trial_dqn import trial_dqn
from rl_jax.core.config import flat
from rl_jax.core.ranges import check_ranges
from rl_jax.data.eeg.folds import Fold

LABELS = jnp.array([0, 1, 2, 0])
KEY = jax.random.key(0)
WAITS = {"wait_cost": 0.01, "discount": 0.9}


def fold_of(labels=LABELS):
    """Four trials of three windows; trial 3 may not be learnt from."""
    signals = jnp.asarray(np.random.default_rng(0).normal(size=(4, 12, 1, 2)), jnp.float32)
    learnt = jnp.array([1.0, 1.0, 1.0, 0.0])[:, None] * jnp.ones((4, 3))
    return Fold(signals, labels, learnt, jnp.ones((1, 1, 1)), jnp.zeros(1), jnp.ones(1))


def observe(fold, trials, windows):
    return fold.signals.reshape(4, 3, 4, 2)[trials, windows]


@functools.cache
def learner(**fields):
    """(agent, its state, its update compiled)"""
    config = rleegnet.get_config("tiny").agent
    config.update({"dropout": 0.0, "pool": 2, "collected": 16, "capacity": 512, "final_epsilon": 1.0, **fields})
    agent = trial_dqn(config, 3, observe)
    return agent, jax.jit(agent.init)(KEY, fold_of()), jax.jit(agent.update)


def steps_of(state):
    count = int(state.extra["added"])
    return jax.tree.map(lambda x: np.asarray(x[:count]), state.extra["replay"])


@pytest.mark.parametrize("fields", [WAITS, *(pytest.param(x, marks=pytest.mark.slow) for x in ({}, {"discount": 0.9}))])
def test_an_update_by_hand(fields):
    """Targets: +-1 for a right or wrong class; with a discount also the best next value of the target network, unless
    the episode ended."""
    agent, state, update = learner(**fields)
    new, metrics = update(state, fold_of(), KEY)
    made = steps_of(new)
    assert set(made.place.trial.tolist() + made.next_place.trial.tolist()) <= {0, 1, 2}
    right = made.action == np.asarray(LABELS)[made.place.trial]
    decided = made.action < 3
    np.testing.assert_array_equal(made.reward[decided], np.where(right, 1.0, -1.0)[decided])
    _, batch_key, _ = jax.random.split(KEY, 3)
    rows = np.asarray(jax.random.bits(batch_key, (8,), jnp.uint32) % np.uint32(16))

    def values(place):
        return np.asarray(agent.values(state.params, observe(fold_of(), place.trial[rows], place.window[rows])))

    mask = np.where(decided, 0.0, 1.0)[rows] if fields == WAITS else 1.0
    target = made.reward[rows] + fields.get("discount", 0.0) * mask * values(made.next_place).max(1)
    error = np.abs(target - values(made.place)[np.arange(8), made.action[rows]])
    want = np.where(error <= 1.0, 0.5 * error**2, error - 0.5).mean()  # Huber
    assert float(metrics["q/loss"]) == pytest.approx(want, rel=1e-4)
    assert float(metrics["train/right"]) == pytest.approx((made.reward == 1.0).mean())


def test_what_waiting_earns():
    """A wait leads to the next window at a small cost, a decision ends the episode; waiting at the end is wrong."""
    _, state, update = learner(**WAITS)
    for number in range(30):
        state, _ = update(state, fold_of(), jax.random.key(number))
    made = steps_of(state)
    waits, last = made.action == 3, made.place.window == 2
    assert 0 < (waits & last).sum() < waits.sum() < len(waits) == 480
    right = made.action == np.asarray(LABELS)[made.place.trial]
    np.testing.assert_allclose(made.reward, np.where(waits & ~last, -0.01, np.where(right, 1.0, -1.0)))
    np.testing.assert_array_equal(made.mask, (waits & ~last).astype(np.float32))
    goes_on = waits & ~last
    np.testing.assert_array_equal(made.next_place.window, np.where(goes_on, made.place.window + 1, 0))
    np.testing.assert_array_equal(made.next_place.trial[goes_on], made.place.trial[goes_on])


@pytest.mark.parametrize("fields", [WAITS, pytest.param({"feedback": "label"}, marks=pytest.mark.slow)])
def test_neither_labels_nor_signals_of_hidden_trials_have_a_part(fields):
    """Another label and other signals in trial 3, of which nothing may be learnt: the same network, bit for bit."""
    _, start, update = learner(**fields)
    other = fold_of(LABELS.at[3].set(2))
    other = other._replace(signals=other.signals.at[3].mul(7.0))
    ends = []
    for fold in (fold_of(), other):
        state = start
        for number in range(3):
            state, _ = update(state, fold, jax.random.key(number))
        ends.append(state)
    jax.tree.map(np.testing.assert_array_equal, *ends)
    assert any(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (start.params, ends[0].params))))


def test_judgement_by_hand():
    """Two folds, two trials of two windows, of three actions the last one waits: it is never named."""
    learnt = np.array([[[0, 0], [1, 1]], [[1, 1], [0, 0]]], np.float32)
    scores = np.zeros((1, 2, 2, 2, 3))
    scores[..., 2] = 9.0
    scores[0, 0, 0] = [[3, 0, 9], [0, 1, 9]]  # fold 0 judges trial 0: right, wrong, right in the mean
    scores[0, 1, 1] = [[2, 0, 9], [0, 1, 9]]  # fold 1 judges trial 1: wrong, right, wrong in the mean
    scores[0, 0, 1] = scores[0, 1, 0] = [[5, 0, 9], [5, 0, 9]]  # on what they have learnt
    found = paper.judgement(scores, np.array([[0, 1]]), learnt, of_windows=False)
    np.testing.assert_array_equal(found["correct"], [[1, 0]])
    np.testing.assert_array_equal(found["window_correct"], [[1, 0, 0, 1]])
    assert found["fitted"][0, 0] == 0.5 and found["kappa"][0, 0] == 0.0
    of_windows = paper.judgement(scores, np.array([[0, 1]]), learnt, of_windows=True)
    np.testing.assert_array_equal(of_windows["correct"], found["window_correct"])
    streamed = paper.streamed(np.array([[[[0, 0, 9], [0, 5, 1]], [[0, 0, 9], [0, 0, 9]]]]), np.array([[1, 0]]),
                              np.array([1.5, 2.0]))
    np.testing.assert_array_equal(streamed["correct"], [[1, 0]])  # the second is waited through
    np.testing.assert_array_equal(streamed["decision_time"], [[2.0, 2.0]])


def outcomes_of(preset):
    config = rleegnet.get_config(preset)
    config.num_seeds = 1
    made = paper.experiment(config)
    program = made.program(config)
    state = jax.jit(program.init)(KEY, program.resident)
    return program.evaluate(jax.tree.map(lambda x: x[None], state), program.resident, KEY).outcomes


@pytest.mark.parametrize("protocol, there", [("runs", 0.467), pytest.param("csp", 0.711, marks=pytest.mark.slow)])
def test_the_real_trials_give_what_another_pipeline_gave(protocol, there):
    """CSP + LDA by runs, and with CSP fitted to all; of 90 trials a standard error is 5 points."""
    found = outcomes_of(f"lda/{protocol}")
    assert found["correct"].shape == (1, 90) and found["pattern/most/left_fist"].shape == (1, 64)
    assert found["correct"].mean() == pytest.approx(there, abs=0.1)


@pytest.mark.slow
def test_neighbouring_windows_know_any_label():
    """1-NN of windows split at random: 100% there, 39.6% of windows by runs; permuted labels are known as well."""
    assert outcomes_of("nearest/windows")["correct"].mean() > 0.95
    assert outcomes_of("nearest/permuted_windows")["correct"].mean() > 0.95
    assert outcomes_of("nearest/runs")["window_correct"].mean() == pytest.approx(0.396, abs=0.1)


@pytest.mark.parametrize("preset, fields, message", [
    ("tiny", {"agent.name": "dqm"}, "unknown config.agent.name 'dqm'"),
    ("tiny", {"agent.feedback": "labels"}, "config.agent.feedback='labels'"),
    ("tiny-streaming", {"agent.feedback": "label"}, "labels say not when to wait"),
    ("tiny-streaming", {"data.protocol": "windows"}, "split by runs"),
    ("tiny", {"data.protocol": "fair"}, "config.data.protocol='fair'"),
    ("tiny", {"data.folder": "nowhere"}, r"nowhere: 0 files \*R04.edf"),
    ("tiny", {"window.hop": 0.0}, "config.window.hop=0.0: must be above 0"),
])
def test_settings_that_cannot_work_are_named(preset, fields, message):
    config = rleegnet.get_config(preset)
    config.update_from_flattened_dict(fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_ranges(flat(config))
        paper.experiment(config).program(config)
