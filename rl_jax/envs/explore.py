"""Tabular MDPs of deterministic simulators, by exploring every state breadth-first, and merging states that are alike.

Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon", arXiv 2304.09853: so
were the BRIDGE MDPs made of Atari and MiniGrid games.
"""

import copy
import hashlib
import os
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from rl_jax.core.extras import require
from rl_jax.envs.tabular import TERMINAL, TabularMDP, check_mdp

LOG_SECONDS = 10.0
NAVIGATION = 3  # of MiniGrid's actions: left, right, forward; then pick up, drop, toggle; the last, done, is left out
WITHOUT_DONE = 6


class Node(NamedTuple):
    """A simulator's state.

    Attributes:
      identity: bytes that are equal for two states if and only if they behave alike from now on.
      snapshot: what `Simulator.restore` needs; explored states keep it until all of their actions are tried.
    """

    identity: bytes
    snapshot: Any


class Simulator(NamedTuple):
    """A deterministic simulator that can go back to a state.

    Attributes:
      start: where an episode begins.
      restore: snapshot -> None, goes there; it must not change the snapshot.
      step: action -> (node it led to, reward, done), one step from where the simulator is; of a done step the node is
        not read.
      num_actions: how many actions there are.
    """

    start: Node
    restore: Callable[[Any], None]
    step: Callable[[int], tuple[Node, float, bool]]
    num_actions: int


def explore(simulator: Simulator, horizon: int, *, max_states: int = 1_000_000) -> TabularMDP:
    """The MDP of all states that an episode of `horizon` steps can act in, numbered in order of their first visit.

    States that are first reached at the horizon are not part of it: what leads there ends the episode.

    Raises:
      ValueError: there are more than `max_states` states; the message says how far it came.
    """
    if horizon < 1 or max_states < 1:
        raise ValueError(f"horizon is {horizon} and max_states {max_states}: give at least 1 of each")
    numbers = {simulator.start.identity: 0}
    queue = deque([(simulator.start.snapshot, 0)])
    transitions, rewards = [], []
    while queue:
        snapshot, depth = queue.popleft()
        after, earned = [], []
        for action in range(simulator.num_actions):
            simulator.restore(snapshot)
            node, reward, done = simulator.step(action)
            number = TERMINAL
            if not done:
                number = numbers.get(node.identity)
                if number is None and depth + 1 < horizon:
                    number = len(numbers)
                    if number >= max_states:
                        raise ValueError(
                            f"more than max_states={max_states} states within {depth + 1} of {horizon} steps: raise "
                            "max_states (memory grows with it), shorten the horizon or give fewer actions"
                        )
                    numbers[node.identity] = number
                    queue.append((node.snapshot, depth + 1))
            after.append(TERMINAL if number is None else number)
            earned.append(reward)
        transitions.append(after)
        rewards.append(earned)
        logging.log_every_n_seconds(
            logging.INFO, "explored %d of %d states, %d steps deep", LOG_SECONDS, len(rewards), len(numbers), depth
        )
    return check_mdp(TabularMDP(np.array(transitions), np.array(rewards), horizon), "the explored MDP")


def minimise(mdp: TabularMDP) -> tuple[TabularMDP, np.ndarray]:
    """The smallest MDP that behaves alike, and of each state the one that stands for it, int32 [S].

    States are parted until no two of a part differ in a reward or in the part that an action leads to (Moore's
    partition refinement); what is not reachable from the start is left out and has -1. Returns, gaps and lengths of
    look-ahead are the same; how many states an episode visits is not.
    """
    mdp = check_mdp(mdp)
    reachable = _reachable(mdp)
    transitions = mdp.transitions[reachable]
    number = np.full(mdp.num_states, TERMINAL)
    number[reachable] = np.arange(len(reachable))
    transitions = np.where(transitions == TERMINAL, TERMINAL, number[transitions])
    part = _number_rows(np.concatenate([mdp.rewards[reachable] + 0.0, transitions == TERMINAL], 1))  # -0 is 0
    while True:
        rows = np.concatenate([part[:, None], np.where(transitions == TERMINAL, TERMINAL, part[transitions])], 1)
        finer = _number_rows(rows)
        if finer.max() == part.max():
            break
        part = finer
    _, first = np.unique(part, return_index=True)
    parts_of = np.full(mdp.num_states, TERMINAL, np.int32)
    parts_of[reachable] = part
    merged = np.where(transitions == TERMINAL, TERMINAL, part[transitions])[first]
    return check_mdp(TabularMDP(merged, mdp.rewards[reachable][first], mdp.horizon), "the merged MDP"), parts_of


def _reachable(mdp: TabularMDP) -> np.ndarray:
    """States reachable from the start in any number of steps, in order."""
    seen = np.zeros(mdp.num_states, bool)
    seen[0] = True
    frontier = np.zeros(1, np.int64)
    while frontier.size:
        after = mdp.transitions[frontier]
        after = np.unique(after[after != TERMINAL])
        frontier = after[~seen[after]]
        seen[frontier] = True
    return np.flatnonzero(seen)


def _number_rows(rows: np.ndarray) -> np.ndarray:
    """Equal rows get equal numbers, 0, 1, ... in order of their first appearance."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse.reshape(-1)]


def explore_minigrid(
    env_id: str, *, horizon: int = 100, navigation_only: bool = False, distance_reward: bool = False, seed: int = 0,
    max_states: int = 1_000_000,
) -> TabularMDP:  # fmt: skip
    """The MDP of one MiniGrid level, with 1 for success whatever the time it took, as in BRIDGE.

    Args:
      env_id: Gymnasium's name, e.g. "MiniGrid-KeyCorridorS3R1-v0". Its layout must not change within an episode by
        chance (no dynamic obstacles).
      navigation_only: left, right and forward alone (BRIDGE's Empty levels); else all actions but "done".
      distance_reward: adds 0.1 for every step by which an action shortens the way to the goal or to the object asked
        for, straight and without walls, turns counted (BRIDGE's DistanceShaped levels).
      seed: of the layout.
    """
    gymnasium = require("gymnasium", "minigrid")
    require("minigrid", "minigrid")  # registers its levels
    world = require("minigrid.core.world_object", "minigrid")
    grids = require("minigrid.core.grid", "minigrid")
    try:
        env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    except gymnasium.error.Error as error:
        raise ValueError(f"no MiniGrid level {env_id!r} ({error}): give an id of minigrid's, ending in -v0") from error
    env.reset(seed=seed)
    kept = [
        name for name, value in vars(env).items()
        if isinstance(value, (world.WorldObj, grids.Grid)) or name in ("agent_pos", "agent_dir", "carrying")
    ]  # fmt: skip

    def node() -> Node:
        # One copy of all of it: the level's own references go on pointing into the copied grid.
        return Node(_minigrid_identity(env, world), copy.deepcopy({name: getattr(env, name) for name in kept}))

    def restore(snapshot: dict[str, Any]) -> None:
        for name, value in copy.deepcopy(snapshot).items():
            setattr(env, name, value)
        env.step_count = 0

    def step(action: int) -> tuple[Node, float, bool]:
        before = _way_to_goal(env) if distance_reward else 0.0
        _, reward, terminated, _, _ = env.step(action)
        earned = float(reward > 0)
        if distance_reward:
            earned += 0.1 * (before - _way_to_goal(env))
        return node(), earned, bool(terminated)

    simulator = Simulator(node(), restore, step, NAVIGATION if navigation_only else WITHOUT_DONE)
    try:
        return explore(simulator, horizon, max_states=max_states)
    finally:
        env.close()


def _minigrid_identity(env: Any, world: Any) -> bytes:
    """All that the future of a MiniGrid level depends on: cells, what boxes hold, the agent, what it carries."""

    def description(thing: Any) -> str:
        if thing is None:
            return ""
        inside = f"({description(thing.contains)})" if isinstance(thing, world.Box) else ""
        roles = [name for name, value in vars(env).items() if value is thing and name != "carrying"]
        return f"{thing.encode()}{inside}{roles}"

    cells = ";".join(map(description, env.grid.grid))
    agent = f"{tuple(map(int, env.agent_pos))} {int(env.agent_dir)} {description(env.carrying)}"
    return hashlib.sha256(f"{cells} {agent}".encode()).digest()


def _way_to_goal(env: Any) -> float:
    """Steps and turns to the nearest goal, or to the object that the level asks for, as if there were no walls."""
    wanted = getattr(env, "obj", None)
    if wanted is not None and env.carrying is wanted:
        return 0.0
    ways = []
    for index, cell in enumerate(env.grid.grid):
        if cell is None or not (cell.type == "goal" or cell is wanted):
            continue
        way = np.array([index % env.grid.width, index // env.grid.width]) - np.array(env.agent_pos)
        ahead = int(np.sign(way) @ np.sign(env.dir_vec))  # 1 is straight ahead, -1 behind
        if not way.any():
            turns = 0
        elif not way.all():
            turns = 1 - ahead
        else:
            turns = 2 if ahead < 0 else 1
        ways.append(turns + np.abs(way).sum())
    if not ways:
        raise ValueError("distance_reward: the level has neither a goal nor an object that it asks for: leave it out")
    return float(min(ways))


def explore_atari(
    rom: str, *, horizon: int, frameskip: int, max_states: int = 1_000_000, seed: int = 0
) -> TabularMDP:
    """The MDP of the first `horizon` decisions of an Atari game, rewards added up over the frames of each.

    Args:
      rom: the game's name, e.g. "freeway", or a ROM file.
      frameskip: frames for which an action is held.
      seed: of the emulator.
    """
    ale_py = require("ale_py", "atari")
    ale = ale_py.ALEInterface()
    ale.setLoggerMode(ale_py.LoggerMode.Error)
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.0)
    path = rom if os.path.isfile(rom) else os.path.join(os.path.dirname(ale_py.__file__), "roms", f"{rom}.bin")
    if not os.path.isfile(path):
        raise ValueError(f"no Atari game {rom!r}: give a name such as freeway, as ale-py writes it, or a ROM's path")
    ale.loadROM(path)
    ale.reset_game()
    actions = ale.getMinimalActionSet()

    def node() -> Node:
        state = ale.cloneSystemState()
        return Node(hashlib.sha256(state.serialize()).digest(), state)

    def step(action: int) -> tuple[Node, float, bool]:
        earned = sum(ale.act(actions[action]) for _ in range(frameskip))
        return node(), float(earned), ale.game_over()

    simulator = Simulator(node(), ale.restoreSystemState, step, len(actions))
    return explore(simulator, horizon, max_states=max_states)
