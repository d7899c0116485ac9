"""The decision transformer: what a return-to-go and a memory are good for, and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.data.sequences import Sequences
from tests.agents.cases import as_sequences, make_agent, train, transitions, update_of

RNG = np.random.default_rng(0)
SETTINGS = {"warmup_steps": 20, "return_scale": 1.0, "dropout": 0.0, "clip_norm": 1.0}
BATCH, LENGTH = 32, 4  # of the sequences that cases.as_sequences makes, so that one compilation serves
EMPTY = as_sequences(transitions(0.0, 0.0), LENGTH)


def shown(data: Sequences, params) -> np.ndarray:
    """The modes [B] where the last step of each sequence is the one to act in."""
    data = jax.tree.map(jnp.asarray, data)
    agent = make_agent("dt", **SETTINGS)
    return np.asarray(jax.jit(agent.act)(params, data, jax.random.key(0), 0.0))[:, 0]


@pytest.mark.slow
def test_asked_for_a_high_return_it_takes_the_better_action():
    """A bandit, best at 0.5: of the action of the data it tells more than their mean, which the clone would take."""
    actions = np.clip(np.random.default_rng(0).normal(0.0, 0.4, (BATCH, 1)), -1, 1)
    rewards = 1.0 - np.square(actions - 0.5)
    one = np.arange(LENGTH) == 0  # episodes of one step, padded
    data = EMPTY.replace(
        actions=(actions * one)[:, :, None].astype(np.float32), returns_to_go=(rewards * one).astype(np.float32),
        timesteps=np.zeros_like(EMPTY.timesteps), mask=np.broadcast_to(one, (BATCH, LENGTH)).astype(np.float32),
    )
    state, _ = train("dt", data, steps=600, **SETTINGS)
    asked = np.array([1.0, 0.5, 0.1], np.float32)
    context = Sequences(
        np.zeros((3, 1, 1), np.float32), np.zeros((3, 1, 1), np.float32), asked[:, None], np.zeros((3, 1), np.int32),
        np.ones((3, 1), np.float32),
    )
    best, fair, poor = shown(context, state.params)
    assert best == pytest.approx(0.5, abs=0.1)
    assert best > fair + 0.2 > poor + 0.4
    for asked_for, action in [(1.0, best), (0.1, poor)]:
        assert 1.0 - np.square(action - 0.5) == pytest.approx(asked_for, abs=0.2)


@pytest.mark.slow
def test_it_remembers_the_observation_before():
    """The right action is half the observation before this one, and zero at the beginning."""

    def episodes() -> Sequences:
        observations = RNG.choice([-1.0, 1.0], (BATCH, LENGTH)).astype(np.float32)
        actions = np.concatenate([np.zeros((BATCH, 1)), 0.5 * observations[:, :-1]], axis=1).astype(np.float32)
        mask = np.ones((BATCH, LENGTH), np.float32)
        return EMPTY.replace(observations=observations[:, :, None], actions=actions[:, :, None], mask=mask)

    state, metrics = train("dt", episodes(), steps=600, **SETTINGS)
    unseen = episodes()
    expected = unseen.actions[:, -1, 0].copy()
    unseen.actions[:, -1] = 0.0
    np.testing.assert_allclose(shown(unseen, state.params), expected, atol=0.1)
    # Of actions of deviation 0.5 a policy without a memory cannot explain any.
    unseen.mask[:, :-1] = 0.0
    assert np.abs(shown(unseen, state.params) - expected).mean() > 0.3
    assert metrics["actor/loss"] < 0.05


def test_an_update_draws_its_dropout_from_the_key():
    rows = RNG.normal(size=128)
    data = jax.tree.map(jnp.asarray, as_sequences(transitions(rows, np.tanh(rows), rows), LENGTH))
    state, update = make_agent("dt").init(jax.random.key(0), data), update_of("dt", dropout=0.5, warmup_steps=1)
    losses = [float(update(state, data, jax.random.key(seed))[1]["actor/loss"]) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
