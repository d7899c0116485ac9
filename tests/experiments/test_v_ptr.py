"""V-PTR: the learners of video, PTR's update by hand, the data, the probe, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import v_ptr
from experiments.v_ptr.experiment import experiment, mixed_rows, probe, value_scenes
from experiments.v_ptr.tabular import random_walks
from experiments.v_ptr.world import FINAL, GOAL, MAZE, human_video, pictures, robot_data, scenes_of, steps_to
from rl_jax.agents import icvf, ptr, video_encoders
from rl_jax.agents.icvf import Drawn
from rl_jax.data.shifts import random_shift
from rl_jax.data.transitions import Transitions
from rl_jax.networks.icvf import MultilinearValue
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.values import Critic
from tests.agents.cases import QUICK

KEY = jax.random.key(0)
SMALL = {"encoder": "none", "hidden_dims": (8, 8)}


def configured(preset, fields={}):
    config = v_ptr.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


# Learners of video


def test_the_network_is_multilinear_and_starts_near_zero():
    """V is linear in A's output and symmetric in nothing; t reads psi of the intent."""
    s, g, z = jax.random.normal(KEY, (3, 5, 4))
    network = MultilinearValue((8, 8))
    params = network.init(KEY, s, g, z)
    value = network.apply(params, s, g, z)
    assert value.shape == (5,) and np.abs(value).max() < 0.5
    own = params["params"]

    def mlp(name, x):
        for layer in range(2):
            dense, norm = own[name][f"Dense_{layer}"], own[name][f"LayerNorm_{layer}"]
            x = np.maximum(x @ dense["kernel"] + dense["bias"], 0)
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * norm["scale"]
        return x

    t = mlp("t", mlp("psi", z))
    by_hand = ((t * mlp("phi", s)) @ own["a"]["kernel"] * ((t * mlp("psi", g)) @ own["b"]["kernel"])).sum(-1)
    np.testing.assert_allclose(value, by_hand, rtol=1e-3, atol=1e-5)


def test_icvf_follows_the_weights_before_the_update():
    config = icvf.default_config()
    config.update(SMALL | {"tau": 0.25, "learning_rate": 1e-2})
    learner = icvf.icvf(config)
    batch = Drawn(jax.random.normal(KEY, (6, 4, 3)), jnp.zeros((6, 2)).at[0].set(1.0))

    def twice(key):
        first = learner.init(key, batch)
        second, metrics = learner.update(first, batch)
        return first, second, learner.update(second, batch)[0], metrics

    first, second, third, metrics = jax.jit(twice, compiler_options=QUICK)(KEY)
    old, new, later = (jax.tree.leaves(x.params["value"]) for x in (first, second, third))
    targets = [jax.tree.leaves(x.target_params["value"]) for x in (second, third)]
    for before, now, kept, moved in zip(old, new, *targets, strict=True):
        np.testing.assert_array_equal(kept, before)  # the target copy and the weights were the same
        np.testing.assert_allclose(moved, 0.75 * before + 0.25 * now, rtol=1e-5, atol=1e-7)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(new, later)) and np.isfinite(metrics["icvf/loss"])


def test_icvf_draws_successors_goals_and_what_is_reached():
    config = icvf.default_config()
    video = random_walks(np.array([[1, 2], [2, 0], [0, 1]]), 30, 5, 0)
    numbered = video.replace(frames=np.arange(150), next_frames=np.arange(150) + 1000)
    frames, reached = (np.asarray(x) for x in icvf.icvf(config).draw(KEY, numbered, 4000))
    np.testing.assert_array_equal(frames[:, 1], frames[:, 0] + 1000)
    np.testing.assert_array_equal(reached, frames[:, 2:] == frames[:, :1])  # by number, not by looks
    assert 0.2 < reached[:, 0].mean() < 0.45
    drawn = np.asarray(video_encoders.time_contrastive(video_encoders.default_config()).draw(KEY, numbered, 500).frames)
    assert (np.diff(drawn, axis=1) >= 0).all() and (drawn[:, 2] <= video.ends[drawn[:, 0]]).all()


# PTR


@pytest.mark.slow
def test_ptr_is_the_formulas_by_hand():
    """TD to the best of M actions by the smaller critic; the gap by densities, bounds of the policy's actions."""
    config = ptr.default_config()
    config.update(SMALL | {"encoder_learning_rate": 0.0})
    agent, rng = ptr.ptr(config, 2), np.random.default_rng(0)
    seen, ahead = (jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for _ in range(2))
    tasks = jnp.eye(2)[jnp.array([0, 1, 0, 1, 1])]
    actions = jnp.asarray(rng.uniform(-1, 1, (5, 2)), jnp.float32)
    rewards, masks = jnp.asarray(rng.normal(size=5), jnp.float32), jnp.array([1.0, 1, 1, 0, 1])
    batch = Transitions((seen, tasks), actions, rewards, masks, (ahead, tasks), mc_returns=jnp.full(5, 3.0))
    critic, actor = Critic((8, 8)), SquashedGaussianPolicy((8, 8), 2, log_std_min=-5.0)

    def run(key):
        state = agent.init(key, batch)
        new, info = agent.update(state, batch, key)
        _, backup_key, proposal_key = jax.random.split(key, 3)
        here, there = (jnp.concatenate([x, tasks], -1) for x in (seen, ahead))
        q = lambda x, a: critic.apply(state.params["critic"], x, a)  # noqa: E731
        drawn, _ = actor.apply(state.params["actor"], there).sample_and_log_prob(backup_key, (4,))
        next_q = jnp.stack([q(there, action) for action in drawn]).min(1).max(0)
        td = jnp.mean((rewards + 0.96 * masks * next_q - q(here, actions)) ** 2)
        uniform_key, policy_key = jax.random.split(proposal_key)
        uniform = jax.random.uniform(uniform_key, (4, 5, 2), minval=-1.0, maxval=1.0)
        policy = actor.apply(state.params["actor"], here)
        own, _ = policy.sample_and_log_prob(policy_key, (4,))
        logits = [q(here, a) + 2 * jnp.log(2.0) for a in uniform]
        logits += [jnp.maximum(q(here, a), 3.0) - policy.log_prob(a) for a in own]
        gap = jnp.mean(jax.nn.logsumexp(jnp.stack(logits), 0) - q(here, actions))
        return state, new, info, td, gap

    state, new, info, td, gap = jax.jit(run, compiler_options=QUICK)(KEY)
    np.testing.assert_allclose(info["critic/td"], td, rtol=1e-4)
    np.testing.assert_allclose(info["critic/gap"], gap, rtol=1e-3)
    with pytest.raises(ValueError, match="needs batch.mc_returns"):
        agent.init(KEY, batch.replace(mc_returns=None))


@pytest.mark.slow
def test_a_frozen_encoder_stays():
    config = configured("tiny-prior", {"agent.encoder_learning_rate": 0.0, "num_seeds": 1})
    program = experiment(config).program(config)
    state = jax.jit(program.init, compiler_options=QUICK)(KEY, program.resident)
    new, _ = jax.jit(program.step, compiler_options=QUICK)(state, program.resident, None, KEY)
    for name, same in (("encoder", True), ("critic", False), ("actor", False)):
        pairs = zip(*(jax.tree.leaves(x.params[name]) for x in (state, new)), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs) == same


# Data


@pytest.mark.slow
def test_demonstrations_end_in_the_goal_with_shifted_rewards_and_their_returns():
    config = configured("tiny-prior")
    robot = robot_data(config)
    steps, ends = robot.transitions, np.flatnonzero(robot.transitions.masks == 0)
    assert len(ends) == 16 and ends[11] == robot.prior - 1 and len(steps) == ends[-1] + 1
    for begin, end in zip([0, *(ends[:-1] + 1)], ends, strict=True):
        rewards = steps.rewards[begin : end + 1]
        np.testing.assert_array_equal(rewards, [-1.0] * (len(rewards) - FINAL) + [10.0] * FINAL)
        returns = sum(0.96**t * r for t, r in enumerate(rewards))
        assert steps.mc_returns[begin] == pytest.approx(returns, rel=1e-5)
    scenes, tasks = steps.next_observations
    assert (np.abs(scenes[ends[12:], :2] - np.array(GOAL) - 0.5) < 0.5).all() and (tasks[robot.prior :, 4] == 1).all()
    assert not tasks[: robot.prior, 4].any() and robot.video.ends[-1] == robot.prior - 1


def test_rows_are_mixed_by_the_share():
    rows = np.asarray(mixed_rows(KEY, 5000, 30, 40, 0.9))
    assert abs((rows < 30).mean() - 0.9) < 0.02 and set(rows) == set(range(40))
    assert (np.asarray(mixed_rows(KEY, 500, 30, 40, 1.0)) < 30).all()


@pytest.mark.slow
def test_the_video_moves_through_the_maze_and_its_things_lie_still():
    config = configured("tiny")
    video = human_video(config)
    inside = np.asarray(video.frames[:, :2]).astype(int)
    assert MAZE[tuple(inside.T)].all() and video.ends.tolist() == sorted(np.repeat(np.arange(1, 21) * 24 - 1, 24))
    going = np.arange(len(video.ends)) != video.ends
    np.testing.assert_array_equal(video.next_frames[going], video.frames[1:][going[:-1]])
    np.testing.assert_array_equal(video.next_frames[:, 2:], video.frames[:, 2:])
    assert len(np.unique(video.frames[:, 2])) == 20  # a colour a clip
    human, robot = (np.asarray(pictures(config, video.frames[:2], name)) for name in ("square", "own"))
    assert human.shape == (2, 16, 16, 3) and (human != robot).any()
    bare = np.asarray(pictures(config, value_scenes(config)[:1], "own"))
    np.testing.assert_array_equal(bare[0, 1], bare[0, 2])  # the goal, with nothing lying about


@pytest.mark.slow
def test_a_step_is_shifted_as_one_picture():
    scenes = scenes_of(jnp.full((3, 2, 2), 4.5), KEY, 1, "own")
    frames = random_shift(pictures(configured("tiny"), scenes, "own"), KEY, 2)
    np.testing.assert_array_equal(frames[:, 0], frames[:, 1])


def test_the_probe_finds_what_is_linear_and_no_more():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(800, 5))
    found = probe(features, np.stack([features @ np.arange(5.0) + 3, rng.normal(size=800)], 1))
    assert found[0] > 0.999 and found[1] < 0.1
    assert steps_to((1, 1))[1, 3] == 2 and steps_to((1, 1))[7, 7] == 12 and steps_to((1, 1))[1, 1] == 0


@pytest.mark.parametrize(("fields", "message"), [
    ({"task": "robots"}, "task in config.task 'robots': did you mean robot"),
    ({"video": "humans"}, "source in config.video 'humans': did you mean human"),
    ({"world.human": "squares"}, "sprite in config.world.human 'squares': did you mean square"),
])
def test_errors_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        experiment(configured("tiny", fields))


def test_the_tabular_encoder_counts_the_mazes_states():
    with pytest.raises(ValueError, match="config.agent.encoder=one_hot_7: the maze has 20 states"):
        experiment(configured("tiny-tabular", {"agent.encoder": "one_hot_7"}))
    config = configured("tiny", {"agent.name": "icvff"})
    with pytest.raises(ValueError, match="learner in config.agent.name 'icvff': did you mean icvf"):
        experiment(config).program(config).init(KEY, None)


@pytest.mark.slow
def test_the_encoder_of_every_learner_is_the_robots():
    """One sub-tree of the same names and shapes, and a slow copy of it: what `init_from` takes over."""
    shapes = []
    for preset in ("tiny", "tiny-reconstruction", "tiny-time_contrastive", "tiny-prior"):
        config = configured(preset)
        program = experiment(config).program(config)
        state = jax.eval_shape(program.init, KEY, program.resident)
        trees = (state.params, state.target_params)
        shapes.append([jax.tree.map(lambda x: x.shape, tree["encoder"]) for tree in trees])
    assert all(found == shapes[0] for found in shapes)
