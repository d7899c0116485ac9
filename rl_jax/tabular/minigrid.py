"""MiniGrid levels as tabular MDPs, with the shaped rewards of BRIDGE.

Laidlaw, Russell and Dragan 2023, arXiv 2304.09853, appendix; the rules of the rewards are those of the authors' code.
"""

import copy
import hashlib
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.tabular.explore import Node, Simulator, explore
from rl_jax.tabular.mdp import Screens, TabularMDP

NAVIGATION = 3  # of MiniGrid's actions: left, right, forward; then pick up, drop, toggle; the last, done, is left out
WITHOUT_DONE = 6
SHAPING = {  # what is rewarded beside success: each unit of it, as it comes and, negative, as it goes
    "distance": 0.1,  # a step nearer to the goal or to the object asked for, straight and without walls, turns counted
    "open_doors": 0.2,  # a door that is open
    "pick_up": 0.2,  # an object that has been carried
    # To have walked into it. The authors' code looks at the cell ahead after the step, which is lava only where it lies
    # two cells deep; what their paper says is meant here.
    "lava": -1.0,
}


def explore_minigrid(
    env_id: str, *, horizon: int = 100, navigation_only: bool = False, shaping: Collection[str] = (), seed: int = 0,
    max_states: int = 1_000_000,
) -> tuple[TabularMDP, Screens]:
    """The MDP of one level, with 1 for success whatever the time it took, as in BRIDGE, and what its states look like.

    Screens are the whole grid, uint8 [width, height, 3]: MiniGrid's codes of object, colour and state, with the agent
    among them; what it carries is not on them.

    Args:
      env_id: Gymnasium's name, e.g. "MiniGrid-KeyCorridorS3R1-v0". Its layout must not change within an episode by
        chance (no dynamic obstacles).
      navigation_only: left, right and forward alone (BRIDGE's Empty levels); else all actions but "done".
      shaping: names of SHAPING, whose rewards are added.
      seed: of the layout.
    """
    for name in shaping:
        if name not in SHAPING:
            raise ValueError(unknown("shaping", name, SHAPING))
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
    ]
    measures: dict[str, Callable[[], float]] = {
        "distance": lambda: -_way_to_goal(env),
        "open_doors": lambda: sum(getattr(cell, "is_open", False) for cell in env.grid.grid),
        "pick_up": lambda: sum(hasattr(thing, "carried") for thing in _objects(env, world)),
        "lava": lambda: getattr(env.grid.get(*env.agent_pos), "type", "") == "lava",
    }

    def node() -> Node:
        # One copy of all of it: the level's own references go on pointing into the copied grid.
        snapshot = copy.deepcopy({name: getattr(env, name) for name in kept})
        return Node(_identity(env, world), snapshot, _picture(env))

    def restore(snapshot: dict[str, Any]) -> None:
        for name, value in copy.deepcopy(snapshot).items():
            setattr(env, name, value)
        env.step_count = 0

    def step(action: int) -> tuple[Node, float, bool]:
        before = {name: measures[name]() for name in shaping}
        _, reward, terminated, _, _ = env.step(action)
        if env.carrying is not None and "pick_up" in shaping:
            env.carrying.carried = True  # a part of the state from now on
        shaped = sum(SHAPING[name] * (measures[name]() - before[name]) for name in shaping)
        return node(), float(reward > 0) + shaped, bool(terminated)

    simulator = Simulator(node(), restore, step, NAVIGATION if navigation_only else WITHOUT_DONE)
    try:
        return explore(simulator, horizon, max_states=max_states)
    finally:
        env.close()


def _identity(env: Any, world: Any) -> bytes:
    """All that the future of a level depends on: cells, what boxes hold, the agent, what it carries."""

    def description(thing: Any) -> str:
        if thing is None:
            return ""
        inside = f"({description(thing.contains)})" if isinstance(thing, world.Box) else ""
        roles = [name for name, value in vars(env).items() if value is thing and name != "carrying"]
        return f"{thing.encode()}{inside}{roles}{'*' * hasattr(thing, 'carried')}"

    cells = ";".join(map(description, env.grid.grid))
    agent = f"{tuple(map(int, env.agent_pos))} {int(env.agent_dir)} {description(env.carrying)}"
    return hashlib.sha256(f"{cells} {agent}".encode()).digest()


def _picture(env: Any) -> np.ndarray:
    picture = env.grid.encode().astype(np.uint8)
    # MiniGrid's codes of an agent and of red, as its FullyObsWrapper has them.
    picture[tuple(env.agent_pos)] = (10, 0, env.agent_dir)
    return picture


def _objects(env: Any, world: Any) -> list[Any]:
    """All objects of the level: on the grid, carried, and within boxes."""
    found = [thing for thing in (*env.grid.grid, env.carrying) if thing is not None]
    for thing in found:  # grows: a box may hold a box
        if isinstance(thing, world.Box) and thing.contains is not None:
            found.append(thing.contains)
    return found


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
        raise ValueError(
            "shaping by distance: the level has neither a goal nor an object that it asks for: leave it out"
        )
    return float(min(ways))
