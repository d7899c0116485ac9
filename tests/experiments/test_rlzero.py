"""RLZero's experiment: prompts and their oracle, projection, ways to a latent, rivals, the film, errors."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rlzero
from experiments.rlzero.body import clip_states
from experiments.rlzero.claims import ABOVE_RANDOM, OF_EXPERT
from experiments.rlzero.experiment import experiment
from experiments.rlzero.figure import draw_film, track
from experiments.rlzero.prompts import MAZE, PROMPTS, expert_paths, obeyed
from experiments.rlzero.world import Judge, frames, make_clips, make_world
from rl_jax.agents.fb import default_config, embed, fb
from rl_jax.control.offline import load
from rl_jax.core import loop
from rl_jax.data.transitions import Transitions
from rl_jax.envs.velocity_maze import SPEED, position
from rl_jax.losses.forward_backward import (
    orthonormality_loss,
    successor_loss,
    successor_target,
    value_loss,
    value_target,
)
from rl_jax.networks.forward_backward import ForwardMap
from rl_jax.reports.measures import Evaluations
from tests.agents.cases import QUICK


def configured(preset, fields={}):
    config = rlzero.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


def evaluated(config):
    """What an untrained run says, outcomes [S, E] by name."""
    program = experiment(config).program(config)
    keys = jax.random.split(jax.random.key(0), config.num_seeds)
    state = jax.vmap(lambda key: program.init(key, program.resident).replace(step=None))(keys)
    return program.evaluate(state.replace(step=jnp.int32(0)), program.resident, keys[0]).outcomes


# The agent


def batch_of(count):
    rng = np.random.default_rng(0)
    rows = [rng.uniform(-1, 1, (count, size)).astype(np.float32) for size in (2, 2, 2)]
    masks = (np.arange(count) > 0).astype(np.float32)
    return Transitions(rows[0], rows[1], np.zeros(count, np.float32), masks, rows[2])


def test_an_update_is_the_formulas_step():
    """F, B and the policy move by Adam's first step, which is the sign of their gradients, taken here by hand."""
    config = default_config()
    config.update({"latent_dim": 8, "hidden_dim": 8, "backward_hidden_dim": 8, "policy_noise": 0.0, "goal_share": 1.0,
                   "value_weight": 0.1, "learning_rate": 1e-2, "backward_learning_rate": 1e-2, "tau": 0.5})
    agent, batch, forward = fb(config, 2), batch_of(6), ForwardMap(8)

    def by_hand(state, key):
        goals = embed(config, state.params, batch.next_observations)
        latents = goals[jax.random.permutation(jax.random.split(jax.random.split(key, 3)[0], 3)[1], jnp.arange(6))]
        actions = agent.policy(state.params, (batch.next_observations, latents)).mode()

        def loss(params):
            f = forward.apply(params["forward"], batch.observations, batch.actions, latents)
            b = embed(config, params, batch.next_observations)
            ahead = forward.apply(state.params["forward"], batch.next_observations, actions, latents)
            discounts = config.discount * batch.masks
            total = successor_loss(f, b, successor_target(ahead, goals, discounts))[0] + orthonormality_loss(b)[0]
            return total + 0.1 * value_loss(f, latents, value_target(ahead, b, latents, discounts))[0]

        return goals, *jax.value_and_grad(loss)({name: state.params[name] for name in ("forward", "backward")})

    def both(key):
        state = agent.init(key, batch)
        return state, agent.update(state, batch, key), by_hand(state, key)

    state, (new, metrics), (goals, value, gradients) = jax.jit(both, compiler_options=QUICK)(jax.random.key(0))
    np.testing.assert_allclose(np.linalg.norm(goals, axis=1), 8**0.5, rtol=1e-5)
    np.testing.assert_allclose(metrics["fb/loss"], value, rtol=1e-5)
    for name, gradient in gradients.items():
        trees = [jax.tree.leaves(x[name]) for x in (gradients, state.params, new.params, new.target_params)]
        for g, old, moved, target in jax.tree.map(np.asarray, list(zip(*trees, strict=True))):
            clear = np.abs(g) > 1e-4  # where Adam's epsilon does not show
            np.testing.assert_allclose((moved - old)[clear], -1e-2 * np.sign(g)[clear], rtol=1e-3)
            np.testing.assert_allclose(target, (old + moved) / 2, rtol=1e-4, atol=1e-7)
    assert not np.array_equal(*(jax.tree.leaves(x.params["actor"])[0] for x in (new, state)))


# Prompts


def test_the_oracle_obeys_every_prompt():
    paths = expert_paths(np.array([[4.5, 4.5], [1.2, 1.2]]), 40)
    assert paths.shape == (len(PROMPTS), 2, 40, 2) and MAZE[tuple(np.floor(paths).astype(int).reshape(-1, 2).T)].all()
    obedience = np.asarray(obeyed(jnp.asarray(paths)))
    assert (obedience[..., -10:] == 1.0).all() and (obedience.mean(-1) > 0.3).all()
    everywhere = obeyed(jnp.asarray(np.argwhere(MAZE) + 0.5, jnp.float32)[None])
    assert everywhere.shape == (len(PROMPTS), MAZE.sum()) and (everywhere.sum(1) <= 4).all()  # no prompt is easy


@pytest.mark.slow
def test_own_pictures_are_projected_on_states_near_by():
    config = configured("infer/rlzero", {"maze.episodes": 40, "embedder.states": 2000})
    world = make_world(config)
    clips = make_clips(config, world)
    error = np.abs(position(MAZE, clips.projected) - clips.positions).max(-1)
    assert error.mean() < 0.4 and clips.table.shape[0] == 2000
    rows = {tuple(row) for row in world.transitions.next_observations[:2000].tolist()}
    assert {tuple(row) for row in clips.projected.reshape(-1, 2).tolist()} <= rows  # the data's own states


@pytest.mark.slow
def test_outcomes_of_an_untrained_run():
    found = evaluated(configured("tiny-rlzero"))
    frames, steps, starts, prompts = 4, 12, 2, len(PROMPTS)
    sizes = {"obeyed": starts, "random": starts, "expert": starts, "projection_error": frames, "shown_row": frames,
             "imagined_row": frames, "path_row": steps}
    assert {name: found[name].shape for name in sizes} == {name: (2, prompts * n) for name, n in sizes.items()}
    assert (found["expert"][0] == found["expert"][1]).all() and found["expert"].mean() > found["random"].mean()
    run = Evaluations(np.array([0]), np.array([0.0]), {name: x[None] for name, x in found.items()})
    np.testing.assert_allclose(OF_EXPERT.of(run), found["obeyed"].mean(1)[None] / found["expert"][0].mean(), rtol=1e-5)
    assert ABOVE_RANDOM.of(run).shape == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["true", "reward", "goal", "random"])
def test_each_arm_makes_latents_of_its_own(arm):
    own, other = (evaluated(configured("tiny-rlzero", {"imagine.arm": name, "num_seeds": 1}))
                  for name in (arm, "projected"))
    assert not np.array_equal(own["path_row"], other["path_row"])
    if arm == "random":
        np.testing.assert_array_equal(own["obeyed"], own["random"])


@pytest.mark.slow  # the tiny run draws it too
def test_the_film_is_drawn_from_the_outcomes(tmp_path):
    outcomes = {f"{name}_{axis}": np.full((1, 2, len(PROMPTS) * 5), 1.5 + place)
                for name in ("imagined", "shown", "path") for place, axis in enumerate(("row", "column"))}
    run = Evaluations(np.array([0]), np.array([0.0]), outcomes)
    assert track(run, "path").shape == (len(PROMPTS), 5, 2) and track(run, "path")[0, 0].tolist() == [1.5, 2.5]
    strips = list(zip(track(run, "imagined"), track(run, "shown"), track(run, "path")))
    draw_film(strips, "cross", tmp_path / "film.png")
    assert (tmp_path / "film.png").stat().st_size > 20_000


@pytest.mark.slow
def test_a_clip_of_a_body_is_projected_on_states_that_look_alike(tmp_path):
    """From the data to an evaluation in Hopper; the nearest states have nearly the clip's angles."""
    config = configured("tiny-body", {"dataset.data_dir": os.environ["RL_JAX_TEST_DATA"], "num_seeds": 1,
                                      "imagine.frames": 20, "embedder.states": 400, "embedder.pixels": 32})
    episodes = load(config.dataset).episodes
    config.imagine.arm = "true"
    truth = clip_states(config, episodes, "Hopper-v4")
    config.imagine.arm = "projected"
    shown = clip_states(config, episodes, "Hopper-v4")
    assert truth.shape == shown.shape == (20, 11)
    off = np.abs(shown[:, :5] - truth[:, :5]).mean()
    assert off < 0.5 * np.abs(episodes.observations[:400, None, :5] - truth[None, :, :5]).mean()
    result = loop.run(experiment(config), config, tmp_path / "run")
    assert np.isfinite(np.ravel(result.evaluations[-1]["eval/return"])).all()


@pytest.mark.parametrize(("fields", "message"), [
    ({"task": "inferr"}, "task in config.task 'inferr': did you mean infer"),
    ({"task": "body", "imagine.arm": "goal"}, "arm in config.imagine.arm 'goal': known are projected, reward, true"),
    ({"imagine.arm": "projects"}, "arm in config.imagine.arm 'projects': did you mean projected"),
])
def test_errors_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        experiment(configured("tiny-rlzero", fields))
    with pytest.raises(ValueError, match="sprite in config.imagine.sprite 'crosses': did you mean cross"):
        frames(configured("tiny"), np.zeros((1, 2)), "crosses")


def test_paths_of_a_policy_that_goes_right():
    judge = Judge(np.array([[3.5, 1.5]], np.float32), 4)
    paths = judge.paths(lambda params, seen: jnp.broadcast_to(params, seen.shape), 1)(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(paths[0, 0, :, 1], 1.5 + SPEED * np.arange(1, 5), rtol=1e-6)
    np.testing.assert_allclose(paths[0, 0, :, 0], 3.5)
