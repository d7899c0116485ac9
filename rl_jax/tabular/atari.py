"""Atari games as tabular MDPs, as in BRIDGE: Laidlaw, Russell and Dragan 2023, arXiv 2304.09853."""

import hashlib

from rl_jax.envs.atari import Emulator
from rl_jax.tabular.explore import Node, Simulator, explore
from rl_jax.tabular.mdp import Screens, TabularMDP


def explore_atari(
    rom: str, *, horizon: int, frameskip: int, max_states: int = 1_000_000, seed: int = 0
) -> tuple[TabularMDP, Screens]:
    """The MDP of the first `horizon` decisions of a game, rewards added up over the frames of each; see Emulator."""
    emulator = Emulator(rom, frameskip, seed)

    def node() -> Node:
        snapshot = emulator.snapshot()
        return Node(hashlib.sha256(snapshot).digest(), snapshot, emulator.screen())

    def step(action: int) -> tuple[Node, float, bool]:
        reward, over = emulator.step(action)
        return node(), reward, over

    simulator = Simulator(node(), emulator.restore, step, emulator.num_actions)
    return explore(simulator, horizon, max_states=max_states)
