"""Builds the MDPs in experiments/sqirl/mdps from MiniGrid levels and Atari games, by exhaustive exploration.

    python -m experiments.sqirl.build --outdir=experiments/sqirl/mdps

Needs the extras minigrid and atari. States that behave alike are merged, as in BRIDGE, and look like the first of them;
rewards of a game are divided by the largest one. One MDP, `trap`, is made by hand. The last line on standard output is
one JSON object: states, actions, horizon and checksum of each.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags, logging

from rl_jax.core.runtime import run_binary
from rl_jax.tabular.atari import explore_atari
from rl_jax.tabular.explore import merged_screens, minimise
from rl_jax.tabular.files import save_mdp
from rl_jax.tabular.mdp import Screens, TabularMDP, checksum
from rl_jax.tabular.minigrid import explore_minigrid

OUTDIR = flags.DEFINE_string("outdir", None, "Where the files go.", required=True)

# name -> (level, whether left, right and forward are all actions, what is rewarded beside success)
LEVELS = {
    "empty_5x5": ("MiniGrid-Empty-5x5-v0", True, ()),
    "empty_8x8": ("MiniGrid-Empty-8x8-v0", True, ()),
    "empty_8x8_distance": ("MiniGrid-Empty-8x8-v0", True, ("distance",)),
    "four_rooms_distance": ("MiniGrid-FourRooms-v0", True, ("distance",)),
    "lava_gap_5": ("MiniGrid-LavaGapS5-v0", True, ()),
    "lava_gap_7": ("MiniGrid-LavaGapS7-v0", True, ()),
    "lava_gap_7_distance": ("MiniGrid-LavaGapS7-v0", True, ("distance",)),
    "lava_gap_7_lava": ("MiniGrid-LavaGapS7-v0", True, ("lava",)),
    "simple_crossing_9": ("MiniGrid-SimpleCrossingS9N1-v0", True, ()),
    "simple_crossing_9_distance": ("MiniGrid-SimpleCrossingS9N1-v0", True, ("distance",)),
    "lava_crossing_9": ("MiniGrid-LavaCrossingS9N1-v0", True, ()),
    "door_key_5x5": ("MiniGrid-DoorKey-5x5-v0", False, ()),
    "door_key_5x5_doors_pick_up": ("MiniGrid-DoorKey-5x5-v0", False, ("open_doors", "pick_up")),
    "door_key_6x6": ("MiniGrid-DoorKey-6x6-v0", False, ()),
    "unlock": ("MiniGrid-Unlock-v0", False, ()),
    "multi_room_2": ("MiniGrid-MultiRoom-N2-S4-v0", False, ()),
    "multi_room_2_doors": ("MiniGrid-MultiRoom-N2-S4-v0", False, ("open_doors",)),
}
GAMES = {  # name -> (game, decisions, frames of a decision)
    "breakout_8_fs30": ("breakout", 8, 30),
    "asterix_5_fs30": ("asterix", 5, 30),
}


def level(env_id: str, navigation_only: bool, shaping: tuple[str, ...]) -> tuple[TabularMDP, Screens]:
    mdp, screens = explore_minigrid(env_id, navigation_only=navigation_only, shaping=shaping)
    mdp, parts = minimise(mdp)
    return mdp, merged_screens(screens, parts)


def game(rom: str, horizon: int, frameskip: int) -> tuple[TabularMDP, Screens]:
    mdp, screens = explore_atari(rom, horizon=horizon, frameskip=frameskip)
    largest = float(np.abs(mdp.rewards).max())
    if largest == 0.0:
        raise ValueError(f"{rom}: {horizon} decisions earn nothing: raise the horizon")
    mdp, parts = minimise(mdp)
    return mdp.replace(rewards=mdp.rewards / np.float32(largest)), merged_screens(screens, parts)


def trap() -> tuple[TabularMDP, None]:
    """Greedy on Q^1 is wrong and on Q^2 right: the first action leads where half of all actions pay 1, the second to
    where one of four pays 1.5. Q^1 of the start is 0.5 and 0.375, Q^2 1 and 1.5."""
    transitions = np.full((3, 4), -1)
    transitions[0] = (1, 2, 1, 2)
    return TabularMDP(transitions, np.array([[0] * 4, [1, 1, 0, 0], [1.5, 0, 0, 0]], np.float32), 2), None


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}")
    outdir, built = Path(OUTDIR.value), {}
    makers: dict[str, Callable[[], tuple[TabularMDP, Screens | None]]] = {
        "trap": trap,
        **{name: lambda own=own: level(*own) for name, own in LEVELS.items()},
        **{name: lambda own=own: game(*own) for name, own in GAMES.items()},
    }
    for name, make in makers.items():
        mdp, screens = make()
        save_mdp(outdir / f"{name}.npz", mdp, screens)
        built[name] = {
            "states": mdp.num_states, "actions": mdp.num_actions, "horizon": mdp.horizon, "checksum": checksum(mdp)
        }
        logging.info("%s: %d states, %d actions", name, mdp.num_states, mdp.num_actions)
    print(json.dumps(built), flush=True)


if __name__ == "__main__":
    run_binary(main)
