"""Whole steps of PPO and DQN, collection and updates, against stable-baselines3's (PROVENANCE.md)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import dqn, ppo
from rl_jax.envs.environment import Environment, TimeStep
from tests.golden.given import QUICK

HORIZON = 4
SETTINGS = {"hidden_dims": (16, 16), "learning_rate": 0.01, "max_grad_norm": 0.5}


def load(name):
    with np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def under(arrays, prefix):
    return {name.removeprefix(f"{prefix}/"): x for name, x in arrays.items() if name.startswith(f"{prefix}/")}


def mdp(arrays):
    """The small MDP that stable-baselines3 acted in, with its time limit."""
    tables = {name: jnp.asarray(x) for name, x in under(arrays, "mdp").items()}

    def reset(key):
        del key
        return (jnp.int32(0), jnp.int32(0)), tables["observations"][0]

    def step(state, action, key):
        del key
        place, steps = state
        after, terminated = tables["successors"][place, action], tables["terminal"][place, action]
        truncated = (steps + 1 >= HORIZON) & ~terminated
        time_step = TimeStep(tables["observations"][after], tables["rewards"][place, action], terminated, truncated)
        return (after, steps + 1), time_step

    return Environment(reset, step, num_actions=tables["rewards"].shape[1], horizon=HORIZON)


def flat(params):
    """{"0/kernel": ...}: by layer and, of an actor-critic, by head."""
    names = {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        *_, layer, kind = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        names[path] = f"{layer.replace('_Dense_', '/').replace('Dense_', '')}/{kind}", x
    return names


def filled(params, given):
    names = flat(params)
    assert {name: x.shape for name, x in names.values()} == {name: x.shape for name, x in given.items()}
    return jax.tree_util.tree_map_with_path(lambda path, x: jnp.asarray(given[names[path][0]]), params)


def check(params, expected, **tolerance):
    ours = dict(flat(params).values())
    assert ours.keys() == expected.keys()
    for name, x in ours.items():
        np.testing.assert_allclose(x, expected[name], err_msg=name, **tolerance)


def test_ppo_steps_are_stable_baselines3s(monkeypatch):
    golden = load("sb3_ppo")
    steps, num_steps, num_envs = golden["actions"].shape
    config = ppo.default_config()
    config.update(SETTINGS | {
        "activation": "tanh", "num_envs": num_envs, "num_steps": num_steps, "num_epochs": 2,
        "batch_size": num_envs * num_steps,
    })
    agent = ppo.ppo(config, mdp(golden))
    state = agent.init(jax.random.key(0))
    state = state.replace(params={"actor_critic": filled(state.params["actor_critic"], under(golden, "params"))})

    def step(state, key, actions):
        # Noise that outweighs the logits makes the actions those of the other run.
        with monkeypatch.context() as patch:
            patch.setattr(jax.random, "gumbel", lambda key, shape: 1e6 * jax.nn.one_hot(actions, shape[-1]))
            return agent.step(state, key)

    step = jax.jit(step, compiler_options=QUICK)
    for t in range(steps):
        state, metrics = step(state, jax.random.key(t), golden["actions"][t])
        state = state.replace(step=state.step + 1)
        for ours, theirs, sign in [
            ("actor/loss", "policy_gradient_loss", 1), ("value/loss", "value_loss", 1),
            ("actor/entropy", "entropy_loss", -1), ("actor/clip_fraction", "clip_fraction", 1),
        ]:
            expected = sign * golden[f"losses/{theirs}"][t]
            assert metrics[ours] == pytest.approx(expected, rel=2e-4, abs=2e-6), (t, ours)
        check(state.params["actor_critic"], under(golden, f"after/{t}"), rtol=2e-4, atol=2e-5)


def test_dqn_steps_are_stable_baselines3s(monkeypatch):
    golden = load("sb3_dqn")
    steps, train_every = golden["actions"].shape
    config = dqn.default_config()
    config.update(SETTINGS | {
        "train_every": train_every, "batch_size": golden["rows"].shape[1], "buffer_size": 16, "learning_starts": 4,
        "target_every": 8,
    })
    agent = dqn.dqn(config, mdp(golden))
    state = agent.init(jax.random.key(0))
    networks = {
        prefix: {"critic": filled(getattr(state, prefix)["critic"], under(golden, prefix))}
        for prefix in ("params", "target_params")
    }
    state = state.replace(**networks)

    def step(state, key, actions, rows):
        # Every action is a random one, those of the other run, and so are the rows that a batch is drawn from.
        with monkeypatch.context() as patch:
            patch.setattr(jax.random, "uniform", lambda key, shape, *_: jnp.full(shape, -1.0))
            patch.setattr(jax.random, "randint", lambda key, shape, low, high: actions.reshape(shape))
            patch.setattr(jax.random, "bits", lambda key, shape, dtype: rows.astype(dtype))
            return agent.step(state, key)

    step, learnt = jax.jit(step, compiler_options=QUICK), 0
    for t in range(steps):
        state, metrics = step(state, jax.random.key(t), golden["actions"][t], golden["rows"][t])
        state = state.replace(step=state.step + 1)
        if (t + 1) * train_every <= config.learning_starts:
            assert metrics["critic/loss"] == 0
            continue
        assert metrics["critic/loss"] == pytest.approx(golden["losses/critic"][learnt], rel=1e-4)
        for prefix in ("params", "target_params"):
            check(
                getattr(state, prefix)["critic"], under(golden, f"after/{learnt}/{prefix}"), rtol=1e-4, atol=2e-5
            )
        learnt += 1
    assert learnt == len(golden["losses/critic"]) > 3
