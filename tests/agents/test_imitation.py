"""SMODICE, ORIL and IQ-Learn: what they train and read, and probes with a known expert."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import iq_learn, oril, smodice
from rl_jax.data.transitions import Demonstrations
from tests.agents.cases import FAST, SIZE, SMALL, transitions

RNG = np.random.default_rng(0)
OBSERVATIONS, NEXT = RNG.uniform(-1, 1, (2, SIZE))
EXPERT = 0.5 * OBSERVATIONS  # the expert's action
SHARE = 0.15  # of the offline data: the expert's
UNIFORM = RNG.uniform(-1, 1, SIZE)  # the others
HIDDEN = np.arange(SIZE) % 20 < 20 * SHARE
AGENTS = {
    "smodice": (smodice.smodice, smodice.default_config, {"actor", "discriminator", "value"}, set()),
    "oril": (oril.oril, oril.default_config, {"actor", "critic", "discriminator"}, {"actor", "critic"}),
    "iq_learn": (iq_learn.iq_learn, iq_learn.default_config, {"actor", "critic"}, {"critic"}),
}

# A sharp ratio and a steep discriminator: in one dimension the authors' penalty keeps the two kinds of data close.
SHARP = {"smodice": {"state_only": False, "alpha": 0.05, "gradient_penalty": 0.1}, "oril": {"gradient_penalty": 0.1}}
STEPS = 800


def make_config(name, **overrides):
    config = AGENTS[name][1]()
    settings = {**SMALL, **FAST, "policy_freq": 1, **SHARP.get(name, {}), **overrides}
    config.update({field: value for field, value in settings.items() if field in config})
    return config


def make_agent(name, **overrides):
    return AGENTS[name][0](make_config(name, **overrides), 1)


def demonstrations(masks=1.0):
    """Expert pairs at all observations; uniform actions, and the expert's in SHARE of the offline rows."""
    mixed = np.where(HIDDEN, EXPERT, UNIFORM)
    return Demonstrations(
        transitions(OBSERVATIONS, EXPERT, masks=masks, next_observations=NEXT),
        transitions(OBSERVATIONS, mixed, masks=masks, next_observations=NEXT),
    )


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


@functools.cache
def compiled(name, **overrides):
    """(data, steps) -> (initial state, state after `steps` updates on the whole set, metrics of the last)."""
    agent = make_agent(name, **overrides)

    @jax.jit
    def run(data, steps):
        key = jax.random.key(0)
        before = agent.init(key, data)
        metrics = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(agent.update, before, data, key)[1])

        def one(step, carry):
            state, metrics = agent.update(carry[0], data, jax.random.fold_in(key, step))
            return state.replace(step=state.step + 1), metrics

        return before, *jax.lax.fori_loop(0, steps, one, (before, metrics))

    return run


def train(name, data, steps, **overrides):
    """The modes at the offline observations, [SIZE]."""
    _, state, _ = compiled(name, **overrides)(data, steps)
    act = make_agent(name, **overrides).act
    return np.asarray(act(state.params, data.offline.observations, jax.random.key(0), 0.0))[:, 0]


def params_after_two_updates(name, data, **overrides):
    return compiled(name, **overrides)(data, 2)[1].params


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_trains_every_network_and_reports_finite_scalars(name):
    before, after, metrics = compiled(name)(demonstrations(), 2)
    _, default_config, networks, targets = AGENTS[name]
    assert default_config().name == name
    assert set(before.params) == set(before.opt_state) == networks and set(before.target_params) == targets
    for old, new in [(before.params, after.params), (before.target_params, after.target_params)]:
        assert jax.tree.structure(old) == jax.tree.structure(new)
        for (path, x), y in zip(leaves(old), jax.tree.leaves(new), strict=True):
            assert np.any(x != y), jax.tree_util.keystr(path)
    assert {metric.split("/")[0] for metric in metrics} == networks
    for metric, value in metrics.items():
        assert value.shape == () and np.isfinite(value), metric


@pytest.mark.parametrize("name", AGENTS)
def test_rewards_are_not_read(name):
    data = demonstrations()
    unknown = Demonstrations(
        *(part.replace(rewards=np.full(SIZE, np.nan, np.float32)) for part in (data.expert, data.offline))
    )
    one, other = (params_after_two_updates(name, batch) for batch in (data, unknown))
    for (path, x), y in zip(leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def test_smodice_reads_the_experts_actions_only_if_its_discriminator_sees_actions():
    data = demonstrations()
    unknown = data.replace(expert=data.expert.replace(actions=-data.expert.actions))
    for state_only in (True, False):
        one, other = (params_after_two_updates("smodice", x, state_only=state_only) for x in (data, unknown))
        same = [np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
        assert all(same) == state_only


@pytest.mark.parametrize("name", AGENTS)
def test_floats_may_be_traced(name):
    data, config = demonstrations(), make_config(name)
    floats = {field: jnp.float32(value) for field, value in config.items() if isinstance(value, float)}

    def updated(floats):
        swept = config.copy_and_resolve_references()
        with swept.ignore_type():
            swept.update(floats)
        agent = AGENTS[name][0](swept, 1)
        return agent.update(agent.init(jax.random.key(0), data), data, jax.random.key(0))

    jax.eval_shape(updated, floats)


@pytest.mark.parametrize("name", AGENTS)
def test_actions_are_in_the_box_and_temperature_zero_is_the_mode(name):
    agent, data = make_agent(name), demonstrations()
    params, observations = compiled(name)(data, 2)[1].params, 10.0 * data.offline.observations
    modes = [agent.act(params, observations, jax.random.key(seed), 0.0) for seed in range(2)]
    hot = agent.act(params, observations, jax.random.key(0), 1.0)
    assert modes[0].shape == hot.shape == (SIZE, 1)
    np.testing.assert_array_equal(modes[0], modes[1])
    assert np.abs(modes[0]).max() <= 1 and np.abs(hot).max() <= 1
    assert np.any(hot != modes[0]) or name == "oril"  # TD3+BC's policy is deterministic


@pytest.mark.parametrize("masks", [0.0, 1.0], ids=["one-step", "continuing"])
@pytest.mark.parametrize("name", AGENTS)
def test_the_policy_is_nearer_to_the_expert_than_cloning_all_data(name, masks):
    error = np.mean(np.square(train(name, demonstrations(masks), STEPS) - EXPERT))
    # Uniform actions have mean 0: the mean action of a share of experts is that share of the expert's.
    cloning = {part: np.mean(np.square((1 - share) * EXPERT)) for part, share in
               {"offline": SHARE, "both": (1 + SHARE) / 2}.items()}  # fmt: skip
    assert error < 0.5 * cloning["both"] < 0.2 * cloning["offline"]


def test_smodice_finds_the_expert_from_its_states_alone():
    """An action is the next state, and the expert stays at 0.5; its actions are hidden."""
    actions = np.where(HIDDEN, 0.5, UNIFORM)
    data = Demonstrations(
        transitions(0.5, 0.0, masks=1.0), transitions(np.roll(actions, 7), actions, 0.0, 1.0, next_observations=actions)
    )
    error = np.mean(np.square(train("smodice", data, STEPS, state_only=True) - 0.5))
    assert error < 0.2 * np.square(0.5 - actions.mean())
