"""The policy gradient of samplers: signs, ratios, chunks, and a model that learns what is rewarded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.fine_tuning import Rewarded, default_config, fine_tuning
from rl_jax.generative.policy import ancestral_sampler, consistency_sampler, log_prob, sample

LEVELS = np.array([4.0, 2.0, 1.0], np.float32)
SIZE = 64
PROMPTS = jnp.arange(SIZE) % 2
SHAPE = (SIZE, 2)


def denoise(params, x, t, condition):
    """An image for each prompt, whatever the noise."""
    return params["images"][condition] + 0.0 * x


PARAMS = {"images": jnp.zeros((2, 2))}
SAMPLER = consistency_sampler(denoise, LEVELS, 0.002, last_step=False)


def make(sampler=SAMPLER, **fields):
    config = default_config()
    config.update({"learning_rate": 0.05, "tracker_size": 32, "tracker_min_count": 8, "chunk_size": 16, **fields})
    return fine_tuning(config, sampler, 2)


def batch_of(params, key, reward, sampler=SAMPLER):
    trajectory = jax.jit(lambda params, key: sample(sampler, params, SHAPE, PROMPTS, key))(params, key)
    return Rewarded.of(trajectory, PROMPTS, PROMPTS, reward(trajectory))


def first_action_is_high(trajectory):
    return trajectory.actions[0].mean(-1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_update_follows_the_reward(sign):
    tuning = make()
    batch = batch_of(PARAMS, jax.random.key(0), lambda trajectory: sign * first_action_is_high(trajectory))
    state, info = jax.jit(tuning.update)(tuning.init(PARAMS), batch, jax.random.key(1))
    assert (sign * state.params["model"]["images"] > 0).all()
    # One step a batch: ratios are 1 and nothing is clipped.
    assert float(info["actor/clip_fraction"]) == 0.0 and abs(float(info["actor/approx_kl"])) < 1e-6
    assert state.extra["statistics"].counts.tolist() == [32, 32]


def test_the_gradient_is_the_score_times_the_advantage():
    """By hand: d log N / d image = (a - image) / std^2 / 2 for a mean over two numbers, here with an image of 0."""
    tuning = make(max_grad_norm=1e9)
    batch = batch_of(PARAMS, jax.random.key(0), first_action_is_high)
    _, info = jax.jit(tuning.update)(tuning.init(PARAMS), batch, jax.random.key(1))
    rewards = np.asarray(batch.rewards)
    own = [rewards[prompt::2] for prompt in (0, 1)]
    advantages = np.empty(SIZE)
    for prompt in (0, 1):
        advantages[prompt::2] = (own[prompt] - own[prompt].mean()) / (own[prompt].std() + 1e-6)
    score = np.asarray(batch.actions).swapaxes(0, 1) / np.asarray(SAMPLER.stds)[:, None, None] ** 2 / 2
    gradient = np.zeros((2, 2))
    for prompt in (0, 1):
        gradient[prompt] = (advantages[None, :, None] * score)[:, prompt::2].sum((0, 1)) / (2 * SIZE)
    assert float(info["model/grad_norm"]) == pytest.approx(np.linalg.norm(gradient), rel=1e-4)


def test_chunks_change_the_memory_alone():
    batch, states = batch_of(PARAMS, jax.random.key(0), first_action_is_high), []
    for chunk in (4, 128):
        tuning = make(chunk_size=chunk)
        states.append(jax.jit(tuning.update)(tuning.init(PARAMS), batch, jax.random.key(1))[0])
    np.testing.assert_allclose(*(state.params["model"]["images"] for state in states), rtol=1e-5)
    with pytest.raises(ValueError, match="do not divide into updates_per_epoch=1 times chunk_size=5: change one"):
        tuning = make(chunk_size=5)
        tuning.update(tuning.init(PARAMS), batch, jax.random.key(1))


def test_fewer_calls_train_as_the_sampler_of_their_levels():
    """A model with images of each level's own: what is called at two of four levels learns these alone, and the steps
    that are not taken change nothing (Adam's first step has no scale)."""
    levels = np.array([4.0, 2.0, 1.0, 0.5], np.float32)

    def by_level(params, x, t, condition):
        return params["images"][jnp.argmax(t[:, None] == levels, 1)] + 0.0 * x

    def updated(sampler, batch):
        tuning = make(sampler)
        return jax.jit(tuning.update)(tuning.init(params), batch, jax.random.key(1))[0].params["model"]["images"]

    params, num_calls = {"images": jnp.zeros((4, 2))}, jnp.full(SIZE, 2)
    every, two = (consistency_sampler(by_level, own, 0.002) for own in (levels, levels[[0, 2]]))
    trajectory = jax.jit(lambda key: sample(every, params, SHAPE, PROMPTS, key, num_calls))(jax.random.key(0))
    batch = Rewarded.of(trajectory, PROMPTS, PROMPTS, first_action_is_high(trajectory))
    images = updated(every, batch)
    assert (images != 0).all(1).tolist() == [True, False, True, False]
    cut = {name: getattr(batch, name)[:, :2] for name in ("states", "actions", "log_probs")}
    np.testing.assert_allclose(images, updated(two, batch._replace(**cut)), rtol=1e-4)


@pytest.mark.slow
def test_several_updates_a_batch_move_the_ratio_until_the_clip_holds_it():
    batch = batch_of(PARAMS, jax.random.key(0), first_action_is_high)
    tuning = make(num_epochs=30, clip=0.01)
    state, info = jax.jit(tuning.update)(tuning.init(PARAMS), batch, jax.random.key(1))
    free = make(num_epochs=30, clip=1e9)
    free_state, _ = jax.jit(free.update)(free.init(PARAMS), batch, jax.random.key(1))
    assert float(info["actor/clip_fraction"]) > 0.2
    held, moved = (jnp.abs(one.params["model"]["images"]).max() for one in (state, free_state))
    assert held < moved


@pytest.mark.parametrize(
    "sampler, fields",
    [
        pytest.param(SAMPLER, {}, id="rlcm"),
        pytest.param(ancestral_sampler(denoise, LEVELS), {}, id="ddpo", marks=pytest.mark.slow),
        pytest.param(SAMPLER, {"objective": "reward_weighted"}, id="reward_weighted", marks=pytest.mark.slow),
    ],
)
def test_it_learns_what_is_rewarded(sampler, fields):
    """The reward is the last action's nearness to 1 for prompt 0 and to -1 for prompt 1."""
    wanted = jnp.array([1.0, -1.0])[PROMPTS][:, None]
    tuning = make(sampler, **fields)

    def one(state, keys):
        nearness = lambda trajectory: -jnp.abs(trajectory.actions[-1] - wanted).sum(-1)  # noqa: E731
        batch = batch_of(state.params["model"], keys[0], nearness, sampler)
        return tuning.update(state, batch, keys[1])

    keys = jax.random.split(jax.random.key(2), (120, 2))
    state, info = jax.jit(lambda state: jax.lax.scan(one, state, keys))(tuning.init(PARAMS))
    images = state.params["model"]["images"]
    assert (images[0] > 0.4).all() and (images[1] < -0.4).all()


def test_the_divergence_holds_the_model_at_the_pretrained_one():
    batch = batch_of(PARAMS, jax.random.key(0), first_action_is_high)
    moved = []
    for coefficient in (0.0, 100.0):
        tuning = make(kl_coefficient=coefficient, num_epochs=20, clip=1e9)
        state, info = jax.jit(tuning.update)(tuning.init(PARAMS), batch, jax.random.key(1), PARAMS)
        moved.append(float(jnp.abs(state.params["model"]["images"]).max()))
        assert ("actor/kl" in info) == (coefficient > 0) and not state.target_params
    assert moved[1] < 0.2 * moved[0]
    with pytest.raises(ValueError, match="kl_coefficient=100.0 needs the reference"):
        tuning.update(tuning.init(PARAMS), batch, jax.random.key(1))


def test_ratios_are_one_before_the_first_update():
    batch = batch_of(PARAMS, jax.random.key(0), first_action_is_high)
    for step in range(2):
        states, actions, before = batch.states[:, step], batch.actions[:, step], batch.log_probs[:, step]
        found = log_prob(SAMPLER, PARAMS, states, actions, jnp.full(SIZE, step), PROMPTS)
        np.testing.assert_allclose(np.exp(found - before), 1.0, atol=1e-6)


def test_an_unknown_objective_is_named():
    with pytest.raises(ValueError, match="objective is 'pg': choose policy_gradient or reward_weighted"):
        make(objective="pg")
