"""Builds the MDPs in experiments/sqirl/mdps from MiniGrid levels and Atari games, by exhaustive exploration.

    python -m experiments.sqirl.build --outdir=experiments/sqirl/mdps

Needs the extras minigrid and atari. States that behave alike are merged, as in BRIDGE; rewards of a game are divided by
the largest one. No screen is stored. The last line on standard output is one JSON object: states, actions, horizon and
checksum of each.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags, logging

from rl_jax.core.runtime import run_binary
from rl_jax.envs.explore import explore_atari, explore_minigrid, minimise
from rl_jax.envs.tabular import TabularMDP, checksum, save_mdp

OUTDIR = flags.DEFINE_string("outdir", None, "Where the files go.", required=True)

# name -> (level, whether left, right and forward are all actions, whether the way to the goal is rewarded)
LEVELS = {
    "empty_5x5": ("MiniGrid-Empty-5x5-v0", True, False),
    "empty_8x8": ("MiniGrid-Empty-8x8-v0", True, False),
    "empty_8x8_distance": ("MiniGrid-Empty-8x8-v0", True, True),
    "four_rooms_distance": ("MiniGrid-FourRooms-v0", True, True),
    "lava_gap_5": ("MiniGrid-LavaGapS5-v0", True, False),
    "lava_gap_7": ("MiniGrid-LavaGapS7-v0", True, False),
    "lava_gap_7_distance": ("MiniGrid-LavaGapS7-v0", True, True),
    "simple_crossing_9": ("MiniGrid-SimpleCrossingS9N1-v0", True, False),
    "simple_crossing_9_distance": ("MiniGrid-SimpleCrossingS9N1-v0", True, True),
    "lava_crossing_9": ("MiniGrid-LavaCrossingS9N1-v0", True, False),
    "door_key_5x5": ("MiniGrid-DoorKey-5x5-v0", False, False),
    "door_key_6x6": ("MiniGrid-DoorKey-6x6-v0", False, False),
    "unlock": ("MiniGrid-Unlock-v0", False, False),
    "multi_room_2": ("MiniGrid-MultiRoom-N2-S4-v0", False, False),
}
GAMES = {  # name -> (game, decisions, frames of a decision)
    "breakout_8_fs30": ("breakout", 8, 30),
    "asterix_5_fs30": ("asterix", 5, 30),
}


def level(env_id: str, navigation_only: bool, distance_reward: bool) -> TabularMDP:
    return explore_minigrid(env_id, navigation_only=navigation_only, distance_reward=distance_reward)


def game(rom: str, horizon: int, frameskip: int) -> TabularMDP:
    mdp = explore_atari(rom, horizon=horizon, frameskip=frameskip)
    largest = float(np.abs(mdp.rewards).max())
    if largest == 0.0:
        raise ValueError(f"{rom}: {horizon} decisions earn nothing: raise the horizon")
    return mdp.replace(rewards=mdp.rewards / np.float32(largest))


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}")
    outdir, built = Path(OUTDIR.value), {}
    makers: dict[str, Callable[[], TabularMDP]] = {
        **{name: lambda own=own: level(*own) for name, own in LEVELS.items()},
        **{name: lambda own=own: game(*own) for name, own in GAMES.items()},
    }
    for name, make in makers.items():
        mdp, _ = minimise(make())
        save_mdp(outdir / f"{name}.npz", mdp)
        built[name] = {
            "states": mdp.num_states, "actions": mdp.num_actions, "horizon": mdp.horizon, "checksum": checksum(mdp)
        }  # fmt: skip
        logging.info("%s: %d states, %d actions", name, mdp.num_states, mdp.num_actions)
    print(json.dumps(built), flush=True)


if __name__ == "__main__":
    run_binary(main)
