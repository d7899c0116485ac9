"""CPL and P-IQL beside what tests/golden and test_agents hold them to: dropout, the mean, padding, the reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import cpl, piql
from tests.agents.cases import as_comparisons, make_agent, transitions, update_of

RNG = np.random.default_rng(0)
BATCH = as_comparisons(transitions(RNG.normal(size=128), RNG.uniform(-1, 1, 128), 0.0, 1.0))


def test_dropout_is_of_training_alone_and_the_mean_acts():
    agent = make_agent("cpl")
    state = agent.init(jax.random.key(0), BATCH)
    one, other = (update_of("cpl")(state, BATCH, jax.random.key(seed))[1]["actor/loss"] for seed in (1, 2))
    assert one != other
    acts = [agent.act(state.params, BATCH.steps.observations[:, 0], jax.random.key(seed), heat)
            for seed, heat in ((1, 0.0), (2, 1.0))]
    np.testing.assert_array_equal(*acts)


def test_padding_takes_no_part():
    """A segment of two steps is worth the same whatever stands behind them."""
    config = cpl.default_config()
    config.update(hidden_dims=(8,), dropout=0.0, cloning_steps=0)
    agent = cpl.cpl(config, 1)
    state = agent.init(jax.random.key(0), BATCH)
    short = BATCH.replace(mask=np.where(np.arange(4) < 2, 1.0, 0.0).astype(np.float32) * BATCH.mask)
    other = short.replace(steps=jax.tree.map(lambda x: np.where(
        (np.arange(4) < 2).reshape(4, *[1] * (x.ndim - 2)), x, 0.5 * x).astype(np.float32), short.steps))
    update = jax.jit(agent.update)
    found, same = (update(state, batch, jax.random.key(0))[1] for batch in (short, other))
    np.testing.assert_allclose(found["actor/score_preferred"], same["actor/score_preferred"], rtol=1e-6)
    np.testing.assert_allclose(found["actor/cloning_loss"], same["actor/cloning_loss"], rtol=1e-6)
    steps = piql.one_by_one(short.steps, jnp.asarray(short.mask))
    np.testing.assert_array_equal(steps.actions.reshape(-1, 4), np.tile(short.steps.actions[:, :2, 0], 2))


def test_the_contrastive_phase_has_a_rate_of_its_own():
    """The first step of a fresh Adam is as long as its learning rate."""
    norms = []
    for rate in (1.0, 0.1):
        agent = make_agent("cpl", cloning_steps=0, warmup_steps=2, contrastive_rate=rate)
        state = agent.init(jax.random.key(0), BATCH)
        metrics = jax.jit(agent.update)(state, BATCH, jax.random.key(0))[1]
        norms.append(metrics["actor/update_norm"])
    np.testing.assert_allclose(norms[1] / norms[0], 0.1, rtol=1e-4)
    moved = sum(x.size for x in jax.tree.leaves(state.params)) ** 0.5 * 3e-3 / 2  # the warm-up is half done
    assert 0.7 * moved < norms[0] < 1.01 * moved


def test_what_to_clone_is_named():
    with pytest.raises(ValueError, match="unknown segments to clone in config.agent.cloned 'best'"):
        make_agent("cpl", cloned="best")


@pytest.mark.slow
def test_screens_are_read_and_shifted():
    screens = RNG.uniform(0, 255, (*BATCH.steps.observations.shape[:2], 44, 44, 3)).astype(np.float32)
    batch = BATCH.replace(steps=BATCH.steps.replace(observations=screens))
    losses = []
    for shift, seed in ((0, 1), (0, 2), (4, 1), (4, 2)):
        agent = make_agent("cpl", encoder="drq_cnn", shift=shift, dropout=0.0)
        state = agent.init(jax.random.key(0), batch)
        losses.append(float(jax.jit(agent.update)(state, batch, jax.random.key(seed))[1]["actor/loss"]))
    assert losses[0] == losses[1] and len(set(losses)) == 3


@pytest.mark.slow
def test_the_reward_of_p_iql_is_the_one_behind_the_comparisons():
    """r(s, a) = s a up to a constant: learned from comparisons of sums of four."""
    observations, actions = RNG.normal(size=(512, 4, 1)), RNG.uniform(-1, 1, (512, 4, 1))
    config = piql.default_config()
    config.update(hidden_dims=(32, 32), decay_steps=600, reward_share=1.0, learning_rate=3e-3)
    agent = piql.piql(config, 1)
    ones = np.ones((512, 4), np.float32)
    sums = (observations * actions).sum((1, 2))
    steps = BATCH.steps.replace(
        observations=observations.astype(np.float32), actions=actions.astype(np.float32), rewards=ones, masks=ones,
        next_observations=observations.astype(np.float32), next_actions=None, mc_returns=None,
    )
    places = np.arange(256)
    batch = BATCH.replace(steps=steps, mask=ones, first=places, second=places + 256,
                          labels=(sums[256:] > sums[:256]).astype(np.float32))
    state, update = agent.init(jax.random.key(0), batch), jax.jit(agent.update)
    for step in range(600):
        state, metrics = update(state.replace(step=jnp.int32(step)), batch, jax.random.key(step))
    assert metrics["reward/accuracy"] > 0.97
