"""The swing-up against MuJoCo's own steps, and against dm_control's where it is installed; surrogates of it."""

import importlib.util
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from rl_jax.core.extras import MissingExtraError
from rl_jax.envs import cartpole_swingup as swingup
from rl_jax.envs import control_suite
from rl_jax.envs.gym_pool import EnvPool
from rl_jax.envs.surrogate import WORLDS, on_the_circle, roll_out, surrogate

INSTALLED = pytest.mark.skipif(importlib.util.find_spec("dm_control") is None, reason="the extra dm_control")
MODEL = """<mujoco><option timestep="0.01" integrator="RK4"><flag contact="disable"/></option><worldbody><body>
<joint name="slider" type="slide" axis="1 0 0" limited="true" range="-1.8 1.8" solreflimit=".08 1" damping="5e-4"/>
<geom type="box" size=".2 .15 .1" mass="1"/><body><joint type="hinge" axis="0 1 0" damping="2e-6"/>
<geom type="capsule" fromto="0 0 0 0 0 1" size=".045" mass=".1"/></body></body></worldbody>
<actuator><motor joint="slider" gear="10" ctrllimited="true" ctrlrange="-1 1"/></actuator></mujoco>"""
KEY = jax.random.key(0)
WORLD = WORLDS["swingup"]
BOX = tuple(jnp.asarray(end, jnp.float32) for end in WORLD.box)


def test_every_step_is_mujocos():
    """From 1.5 m under held pushes, which throw the cart against both ends of the rail."""
    model = mujoco.MjModel.from_xml_string(MODEL)
    data, rows = mujoco.MjData(model), []
    data.qpos[:], data.qvel[:] = [1.5, np.pi], [1.0, 0.3]
    for step in range(400):
        data.ctrl[0] = (0.7, -0.9)[step // 100 % 2]
        before = np.concatenate([data.qpos, data.qvel])
        mujoco.mj_step(model, data)
        rows.append((before, data.ctrl[0], np.concatenate([data.qpos, data.qvel])))
    before, pushes, after = (np.array(column) for column in zip(*rows, strict=True))
    assert before[:, 0].max() > swingup.RAIL and before[:, 0].min() < -swingup.RAIL
    with jax.enable_x64(True):
        ours = jax.jit(jax.vmap(swingup.moved))(jnp.asarray(before), jnp.asarray(pushes))
        np.testing.assert_allclose(ours, after, atol=1e-11)


def test_rewards_by_hand():
    upright, off = np.array([0.0, 1.0, 0.0, 0.0, 0.0]), np.array([2.0, 0.0, 1.0, 0.0, 5.0])
    assert swingup.swingup_reward(upright, np.zeros(1)) == pytest.approx(1.0)
    assert swingup.swingup_reward(upright, np.ones(1)) == pytest.approx(0.8)
    assert swingup.swingup_reward(off, np.zeros(1)) == pytest.approx(0.5 * 0.55 * 0.55)
    assert swingup.swingup_reward(-upright, np.zeros(1)) == 0.0


def test_episodes_hang_at_the_start_and_end_by_time_alone():
    environment = swingup.cartpole_swingup()
    state, seen = environment.reset(KEY)
    assert seen[1] < -0.99 and abs(float(seen[0])) < 0.1
    state, last = environment.step(state._replace(steps=jnp.int32(swingup.TIME_LIMIT - 1)), jnp.array([3.0]), KEY)
    assert last.truncated and not last.terminated
    np.testing.assert_array_equal(state.motion, swingup.moved(environment.reset(KEY)[0].motion, 1.0))  # clipped


@INSTALLED
def test_episodes_are_dm_controls():
    with EnvPool("dm_control-cartpole-swingup-v0", 1, savable=True) as pool:
        seen = pool.reset(np.array([3]))
        x, cos, sin, v, w = seen[0]
        motion, rng, step = np.array([x, np.arctan2(sin, cos), v, w]), np.random.default_rng(0), jax.jit(swingup.moved)
        with jax.enable_x64(True):
            for time in range(200):
                action = rng.uniform(-1, 1, (1, 1)).astype(np.float32) if time % 30 == 0 else action  # noqa: F821
                if time == 100:
                    saved = pool.save()
                seen, reward, *_ = pool.step(action, np.ones(1, bool))
                motion = step(jnp.asarray(motion), float(action[0, 0]))
                np.testing.assert_allclose(swingup.observed(motion), seen[0], atol=1e-9)
                assert swingup.swingup_reward(seen[0], action[0]) == pytest.approx(reward[0], abs=1e-6)
        np.testing.assert_allclose(pool.restore(saved), saved["observations"], atol=1e-12)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(MissingExtraError, match=r"rl_jax\[dm_control\]"):
        control_suite.ControlSuite("cartpole", "swingup")


# Surrogates


def test_a_surrogate_ends_where_it_leaves_its_box_and_stays_finite():
    """A model that doubles the position; from 4 it leaves the box of 5, and a NaN does at once."""
    def doubling(observation, action):
        return observation.at[0].set(2.0 * observation[0] + 0.0 * action[0])

    start = jnp.array([[2.0, -1.0, 0.0, 0.0, 0.0]])
    environment = surrogate(WORLD, doubling, swingup.swingup_reward, start, BOX, horizon=3)
    state, seen = environment.reset(KEY)
    state, first = environment.step(state, jnp.zeros(1), KEY)
    state, second = environment.step(state, jnp.zeros(1), KEY)
    assert not first.terminated and first.observation[0] == 4.0
    assert second.terminated and not second.truncated and second.observation[0] == 5.0
    broken = surrogate(WORLD, lambda *_: jnp.full(5, jnp.nan), swingup.swingup_reward, start, BOX, 3)
    _, stepped = broken.step(broken.reset(KEY)[0], jnp.zeros(1), KEY)
    assert stepped.terminated and np.isfinite(stepped.observation).all() and np.isfinite(stepped.reward)


def test_a_surrogate_clips_actions_projects_and_is_timed_out():
    def pushed(observation, action):
        return observation + jnp.array([0.0, 0.3, 0.4, 1.0, 0.0]) * action

    environment = surrogate(
        WORLD, pushed, swingup.swingup_reward, jnp.array([[0.0, 0.6, 0.8, 0.0, 0.0]]), BOX, horizon=1
    )
    _, stepped = environment.step(environment.reset(KEY)[0], jnp.array([9.0]), KEY)
    assert stepped.terminated  # cosine and sine beyond 1.1, before they are projected
    _, stepped = environment.step(environment.reset(KEY)[0], jnp.array([-0.5]), KEY)
    np.testing.assert_allclose(stepped.observation, [0.0, 0.6, 0.8, -0.5, 0.0], atol=1e-6)
    assert stepped.truncated and not stepped.terminated
    np.testing.assert_allclose(jnp.linalg.norm(on_the_circle(jnp.ones((2, 5)))[:, 1:3], axis=1), 1.0, rtol=1e-6)


def test_roll_outs_of_the_true_dynamics_are_the_environments():
    def true(observation, action):
        x, cos, sin, v, w = observation
        return swingup.observed(swingup.moved(jnp.array([x, jnp.arctan2(sin, cos), v, w]), action[0]))

    environment, actions = swingup.cartpole_swingup(), jnp.linspace(-1.0, 1.0, 20)[:, None]
    state, seen = environment.reset(KEY)
    expected = jax.lax.scan(lambda s, a: (lambda out: (out[0], out[1].observation))(environment.step(s, a, KEY)), state,
                            actions)[1]
    np.testing.assert_allclose(roll_out(WORLD, true, seen, actions, BOX), expected, atol=1e-4)
