"""Exploring a simulator finds its table; merging states keeps behaviour; MiniGrid and Atari give the BRIDGE MDPs."""

import numpy as np
import pytest

from rl_jax.core.extras import MissingExtraError
from rl_jax.envs import atari as atari_module
from rl_jax.tabular import minigrid as minigrid_module
from rl_jax.tabular.atari import explore_atari
from rl_jax.tabular.explore import Node, Simulator, explore, merged_screens, minimise
from rl_jax.tabular.files import bridge_mdp
from rl_jax.tabular.mdp import Screens, TabularMDP
from rl_jax.tabular.minigrid import explore_minigrid


class Counter:
    """A number from 0 on: action 0 adds 1, action 1 doubles; `last` ends the episode and pays 7."""

    def __init__(self, last):
        self.last, self.number, self.restored = last, 0, 0

    def node(self):
        return Node(str(self.number).encode(), [self.number], np.full((1, 1), self.number % 2, np.uint8))

    def restore(self, snapshot):
        self.number, self.restored = snapshot[0], self.restored + 1

    def step(self, action):
        self.number = self.number + 1 if action == 0 else 2 * self.number
        done = self.number >= self.last
        return self.node(), 7.0 if done else float(action), done

    def simulator(self):
        return Simulator(self.node(), self.restore, self.step, 2)


def test_exploring_numbers_states_by_their_first_visit():
    counter = Counter(last=4)
    mdp, screens = explore(counter.simulator(), horizon=10)
    # 0 -> 1, 0; 1 -> 2, 2; 2 -> 3, end; 3 -> end, end.
    assert mdp.transitions.tolist() == [[1, 0], [2, 2], [3, -1], [-1, -1]]
    assert mdp.rewards.tolist() == [[0, 1], [0, 1], [0, 7], [7, 7]]
    assert mdp.horizon == 10 and counter.restored == 8
    # What looks alike is kept once.
    assert screens.images.tolist() == [[[0]], [[1]]] and screens.of_state.tolist() == [0, 1, 0, 1]


def test_what_is_first_reached_at_the_horizon_is_no_state():
    mdp, screens = explore(Counter(last=100).simulator(), horizon=3)
    assert len(screens.of_state) == mdp.num_states
    assert mdp.transitions.tolist() == [[1, 0], [2, 2], [-1, -1]]
    assert mdp.rewards.tolist() == [[0, 1]] * 3


def test_too_many_states_are_named():
    with pytest.raises(ValueError, match="more than max_states=5 states within .* of 50 steps: raise max_states"):
        explore(Counter(last=1000).simulator(), horizon=50, max_states=5)
    with pytest.raises(ValueError, match="horizon is 0"):
        explore(Counter(last=4).simulator(), horizon=0)


def test_alike_states_are_merged_and_unreachable_ones_left_out():
    # 1 and 2 are a cycle each that behaves alike, 3 differs by a reward, 4 is not reachable.
    transitions = np.array([[1, 3], [2, -1], [1, -1], [3, -1], [0, 0]])
    rewards = np.array([[0, 0], [0, 1], [-0.0, 1], [0, 2], [9, 9]], np.float32)
    merged, parts = minimise(TabularMDP(transitions, rewards, 6))
    assert parts.tolist() == [0, 1, 1, 2, -1]
    assert merged.transitions.tolist() == [[1, 2], [1, -1], [2, -1]]
    assert merged.rewards.tolist() == [[0, 0], [0, 1], [0, 2]] and merged.horizon == 6
    looks = merged_screens(Screens(np.arange(5, dtype=np.uint8).reshape(5, 1, 1), np.array([4, 2, 2, 0, 1])), parts)
    assert looks.images[looks.of_state].ravel().tolist() == [4, 2, 0] and len(looks.images) == 3
    again, parts = minimise(merged)
    assert parts.tolist() == [0, 1, 2] and again.transitions.tolist() == merged.transitions.tolist()


def every_return(mdp):
    """The return of an episode for each sequence of actions."""
    returns = []
    for sequence in np.ndindex((mdp.num_actions,) * mdp.horizon):
        state, total = 0, 0.0
        for action in sequence:
            total += mdp.rewards[state, action]
            state = mdp.transitions[state, action]
            if state == -1:
                break
        returns.append(total)
    return returns


def test_merging_changes_no_return():
    rng, shrunk = np.random.default_rng(0), 0
    for _ in range(20):
        transitions = rng.integers(-1, 6, (6, 2))
        mdp = TabularMDP(transitions, rng.integers(0, 2, (6, 2)).astype(np.float32), 7)
        merged, parts = minimise(mdp)
        assert every_return(merged) == every_return(mdp)
        shrunk += merged.num_states < mdp.num_states
        # No two states that are left behave alike: some sequence of actions tells them apart.
        assert merged.num_states == parts.max() + 1
    assert shrunk > 5


def returns(mdp):
    """Random, best and worst return, by value iteration."""
    transitions = np.where(mdp.transitions < 0, mdp.num_states, mdp.transitions)
    random, best, worst = np.zeros((3, mdp.num_states + 1))
    for _ in range(mdp.horizon):
        for values, reduce in ((random, np.mean), (best, np.max), (worst, np.min)):
            values[:-1] = reduce(mdp.rewards.astype(np.float64) + values[transitions], 1)
    return random[0], best[0], worst[0]


def assert_same_mdp(built, stored):
    """The same up to names of states: both are merged, numbered breadth-first and compared entry by entry."""
    tables = []
    for mdp in (built, stored):
        merged, _ = minimise(mdp)
        order = [0]
        for state in order:
            order += [n for n in dict.fromkeys(merged.transitions[state].tolist()) if n >= 0 and n not in order]
        number = np.full(merged.num_states + 1, -1)
        number[order] = np.arange(len(order))
        tables.append((number[merged.transitions[order]], merged.rewards[order]))
    np.testing.assert_array_equal(tables[0][0], tables[1][0])
    np.testing.assert_allclose(tables[0][1], tables[1][1], atol=1e-6)
    np.testing.assert_allclose(returns(built), returns(stored), rtol=1e-6)


def test_minigrid_levels_are_those_of_bridge():
    pytest.importorskip("minigrid")
    corridor, screens = explore_minigrid("MiniGrid-KeyCorridorS3R1-v0")
    assert screens.images.shape[1:] == (7, 3, 3) and screens.of_state.shape == (corridor.num_states,)
    # One agent on each.
    assert ((screens.images[..., 0] == 10).sum((1, 2)) == 1).all()
    assert_same_mdp(corridor, bridge_mdp("MiniGrid-KeyCorridorS3R1-v0"))
    empty, _ = explore_minigrid("MiniGrid-Empty-16x16-v0", navigation_only=True, shaping=["distance"])
    assert_same_mdp(empty, bridge_mdp("MiniGrid-Empty-16x16-DistanceShaped-v0"))


@pytest.mark.slow
def test_doors_and_objects_are_rewarded_as_in_bridge():
    pytest.importorskip("minigrid")
    built, _ = explore_minigrid("MiniGrid-UnlockPickup-v0", shaping=["open_doors", "pick_up"])
    assert_same_mdp(built, bridge_mdp("MiniGrid-UnlockPickup-OpenDoorsPickupShaped-v0"))


def test_lava_costs_one():
    pytest.importorskip("minigrid")
    level = {"env_id": "MiniGrid-LavaGapS5-v0", "navigation_only": True}
    plain, costly = explore_minigrid(**level)[0], explore_minigrid(**level, shaping=["lava"])[0]
    ends = (plain.transitions == -1) & (plain.rewards == 0)
    np.testing.assert_array_equal(costly.transitions, plain.transitions)
    assert ends.any() and (costly.rewards == np.where(ends, -1, plain.rewards)).all()


def test_a_minigrid_level_that_does_not_exist_or_has_no_goal_is_named():
    pytest.importorskip("minigrid")
    with pytest.raises(ValueError, match="no MiniGrid level 'MiniGrid-Nowhere-v0'"):
        explore_minigrid("MiniGrid-Nowhere-v0")
    with pytest.raises(ValueError, match="shaping by distance: the level has neither"):
        explore_minigrid("MiniGrid-GoToDoor-5x5-v0", shaping=["distance"])
    with pytest.raises(ValueError, match="unknown shaping 'distances': did you mean distance"):
        explore_minigrid("MiniGrid-Empty-5x5-v0", shaping=["distances"])


def test_freeway_is_that_of_bridge():
    pytest.importorskip("ale_py")
    built, screens = explore_atari("freeway", horizon=6, frameskip=30)
    assert screens.images.shape[1:] == (84, 84) and len(screens.of_state) == built.num_states
    stored = bridge_mdp("freeway_10_fs30")
    assert (built.num_actions, built.horizon) == (3, 6)
    # A shorter horizon keeps the suite fast: with ten steps of the stored MDP the two agree as well, see below.
    np.testing.assert_allclose(returns(built), returns(stored.replace(horizon=6)), rtol=1e-6)
    with pytest.raises(ValueError, match="no Atari game 'nosuch'"):
        explore_atari("nosuch", horizon=1, frameskip=1)


@pytest.mark.slow
def test_all_of_freeway_is_that_of_bridge():
    pytest.importorskip("ale_py")
    assert_same_mdp(explore_atari("freeway", horizon=10, frameskip=30)[0], bridge_mdp("freeway_10_fs30"))


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        (lambda: explore_minigrid("MiniGrid-Empty-5x5-v0"), "minigrid"),
        (lambda: explore_atari("freeway", horizon=1, frameskip=1), "atari"),
    ],
)
def test_a_missing_extra_is_one_line(monkeypatch, call, extra):
    def missing(module, extra):
        raise MissingExtraError(f"{module} is not installed: pip install 'rl_jax[{extra}]'")

    # The module's own lookup, so that the test means the same with and without the packages.
    monkeypatch.setattr(atari_module, "require", missing)
    monkeypatch.setattr(minigrid_module, "require", missing)
    with pytest.raises(MissingExtraError, match=rf"pip install 'rl_jax\[{extra}\]'"):
        call()
