"""SMODICE, ORIL and IQ-Learn: what they read, and probes with a known expert."""

import jax
import numpy as np
import pytest

from rl_jax.data.transitions import Demonstrations
from tests.agents.cases import SIZE, act, train, transitions

RNG = np.random.default_rng(0)
OBSERVATIONS, NEXT = RNG.uniform(-1, 1, (2, SIZE))
EXPERT = 0.5 * OBSERVATIONS  # the expert's action
SHARE = 0.15  # of the offline data: the expert's
UNIFORM = RNG.uniform(-1, 1, SIZE)  # the others
HIDDEN = np.arange(SIZE) % 20 < 20 * SHARE
AGENTS = ("smodice", "oril", "iq_learn")

# A sharp ratio and a steep discriminator: in one dimension the authors' penalty keeps the two kinds of data close.
SHARP = {"smodice": {"state_only": False, "alpha": 0.1, "gradient_penalty": 0.1}, "oril": {"gradient_penalty": 0.1}}
STEPS = 800


def demonstrations(masks=1.0):
    """Expert pairs at all observations; uniform actions, and the expert's in SHARE of the offline rows."""
    mixed = np.where(HIDDEN, EXPERT, UNIFORM)
    return Demonstrations(
        transitions(OBSERVATIONS, EXPERT, masks=masks, next_observations=NEXT),
        transitions(OBSERVATIONS, mixed, masks=masks, next_observations=NEXT),
    )


def settings(name, **overrides):
    return {"policy_freq": 1, **SHARP.get(name, {}), **overrides}


def modes(name, data, **overrides):
    """The modes at the offline observations after STEPS updates on the whole set, [SIZE]."""
    fields = settings(name, **overrides)
    state, _ = train(name, data, STEPS, **fields)
    return act(name, state.params, data.offline.observations[:, 0], **fields)


def trained_params(name, data, **overrides):
    return train(name, data, STEPS, **settings(name, **overrides))[0].params


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow if name in ("oril", "iq_learn") else ()) for name in AGENTS
])
def test_rewards_are_not_read(name):
    data = demonstrations()
    unknown = Demonstrations(
        *(part.replace(rewards=np.full(SIZE, np.nan, np.float32)) for part in (data.expert, data.offline))
    )
    one, other = (trained_params(name, batch) for batch in (data, unknown))
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
def test_smodice_reads_the_experts_actions_only_if_its_discriminator_sees_actions():
    data = demonstrations()
    unknown = data.replace(expert=data.expert.replace(actions=-data.expert.actions))
    for state_only in (True, False):
        one, other = (trained_params("smodice", x, state_only=state_only) for x in (data, unknown))
        same = [np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
        assert all(same) == state_only


@pytest.mark.parametrize("masks", [
    pytest.param(0.0, id="one-step", marks=pytest.mark.slow), pytest.param(1.0, id="continuing"),
])
@pytest.mark.parametrize(
    "name, overrides", [*((name, {}) for name in AGENTS), ("iq_learn", {"expert_only": False})],
    ids=[*AGENTS, "iq_learn_of_both"],
)
def test_the_policy_is_nearer_to_the_expert_than_cloning_all_data(name, overrides, masks):
    error = np.mean(np.square(modes(name, demonstrations(masks), **overrides) - EXPERT))
    # Uniform actions have mean 0: the mean action of a share of experts is that share of the expert's.
    cloning = {part: np.mean(np.square((1 - share) * EXPERT)) for part, share in
               {"offline": SHARE, "both": (1 + SHARE) / 2}.items()}
    assert error < 0.5 * cloning["both"] < 0.2 * cloning["offline"]


def test_smodice_finds_the_expert_from_its_states_alone():
    """An action is the next state, and the expert stays at 0.5; its actions are hidden."""
    actions = np.where(HIDDEN, 0.5, UNIFORM)
    data = Demonstrations(
        transitions(0.5, 0.0, masks=1.0), transitions(np.roll(actions, 7), actions, 0.0, 1.0, next_observations=actions)
    )
    error = np.mean(np.square(modes("smodice", data, state_only=True) - 0.5))
    # How near it comes differs by a few per cent between processors.
    assert error < 0.3 * np.square(0.5 - actions.mean())
