"""Tabular MDPs of deterministic simulators, by exploring every state breadth-first, and merging states that are alike.

Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon", arXiv 2304.09853: so
were the BRIDGE MDPs made of Atari and MiniGrid games; `atari.py` and `minigrid.py` do it here.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from rl_jax.tabular.mdp import TERMINAL, Screens, TabularMDP, check_mdp

LOG_SECONDS = 10.0


class Node(NamedTuple):
    """A simulator's state.

    Attributes:
      identity: bytes that are equal for two states if and only if they behave alike from now on.
      snapshot: what `Simulator.restore` needs; explored states keep it until all of their actions are tried.
      screen: what the state looks like, uint8 [height, width(, channels)].
    """

    identity: bytes
    snapshot: Any
    screen: np.ndarray


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


def explore(simulator: Simulator, horizon: int, *, max_states: int = 1_000_000) -> tuple[TabularMDP, Screens]:
    """The MDP of all states that an episode of `horizon` steps can act in, numbered in order of their first visit, and
    what they look like; equal screens are kept once.

    States that are first reached at the horizon are not part of it: what leads there ends the episode.

    Raises:
      ValueError: there are more than `max_states` states; the message says how far it came.
    """
    if horizon < 1 or max_states < 1:
        raise ValueError(f"horizon is {horizon} and max_states {max_states}: give at least 1 of each")
    numbers = {simulator.start.identity: 0}
    queue = deque([(simulator.start.snapshot, 0)])
    transitions, rewards, images = [], [], {}  # images: bytes of a screen -> (its number, screen)
    of_state = [_number_of(images, simulator.start.screen)]
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
                    of_state.append(_number_of(images, node.screen))
                    queue.append((node.snapshot, depth + 1))
            after.append(TERMINAL if number is None else number)
            earned.append(reward)
        transitions.append(after)
        rewards.append(earned)
        logging.log_every_n_seconds(
            logging.INFO, "explored %d of %d states, %d steps deep", LOG_SECONDS, len(rewards), len(numbers), depth
        )
    mdp = check_mdp(TabularMDP(np.array(transitions), np.array(rewards), horizon), "the explored MDP")
    return mdp, Screens(np.stack([screen for _, screen in images.values()]), np.array(of_state, np.int32))


def _number_of(images: dict[bytes, tuple[int, np.ndarray]], screen: np.ndarray) -> int:
    """The number of a screen, which becomes one of `images`."""
    return images.setdefault(screen.tobytes(), (len(images), screen))[0]


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


def merged_screens(screens: Screens, parts: np.ndarray) -> Screens:
    """The screens of merged states: each looks like the first of its states. `parts` [S] is what `minimise` gives."""
    first = [int(np.argmax(parts == part)) for part in range(parts.max() + 1)]
    used, of_state = np.unique(screens.of_state[first], return_inverse=True)
    return Screens(screens.images[used], of_state.astype(np.int32))
