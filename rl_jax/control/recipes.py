"""Recipes: the settings that an agent's authors publish, some by data set, and the configurations made of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rl_jax.agents import awac, bc, cql, dt, edac, iql, rebrac, sac, td3_bc, xql
from rl_jax.core.config import core_config
from rl_jax.data.adroit import sets as adroit
from rl_jax.data.locomotion.sets import FAMILY, SETS
from rl_jax.data.pointmaze import sets as pointmaze

# What presets call the sets: hopper-medium is locomotion-2/hopper-medium, pointmaze-umaze is pointmaze/umaze.
POINTMAZE = tuple(f"pointmaze-{name}" for name in pointmaze.SETS)
DATA_SETS = {name: f"{FAMILY}/{name}" for name in SETS}
DATA_SETS |= {f"pointmaze-{name}": f"pointmaze/{name}" for name in pointmaze.SETS}
DATA_SETS |= {f"adroit-{name}": f"adroit/{name}" for name in adroit.SETS}


class Recipe(NamedTuple):
    """An agent's own settings, as its authors publish them.

    Attributes:
      default_config: of the agent.
      settings: what the authors set besides, by dotted field of the whole configuration.
      by_set: what they set for one data set, by its name in presets.
    """

    default_config: Callable[[], ConfigDict]
    settings: Mapping[str, Any] = {}
    by_set: Mapping[str, Mapping[str, Any]] = {}


def from_recipe(recipe: Recipe, name: str) -> ConfigDict:
    """An agent's authors' settings on a data set of `DATA_SETS`, at their length."""
    config = core_config()
    config.agent = recipe.default_config()
    config.batch_size = 256
    config.num_steps = 1_000_000
    if "decay_steps" in config.agent:
        config.agent.decay_steps = config.get_oneway_ref("num_steps")
    config.loop.chunk = 1000
    config.loop.log_every = 1000
    config.loop.eval_every = 50_000
    config.checkpoint.every = 50_000
    config.eval_episodes = 10
    config.rival = ""  # the --workdir of a finished run on the same data, to be held against
    config.dataset = {
        "name": DATA_SETS[name],
        "path": "",  # a D4RL HDF5 file, a Minari or RLDS folder, an npz: read instead of the built-in set
        "env_id": "",  # the task to evaluate in, where the data do not say
        # Returns that score 0 and 100, such as (-1200.0, -150.0), where a task has none published or these are to hold.
        "reference_returns": (),
        "num_steps": 0,  # 0: the set's full size
        "seed": 0,
        "data_dir": "~/.cache/rl_jax",
        "top_fraction": 1.0,  # below 1: the best episodes that hold this share of the steps (10%-BC)
        "normalize_observations": False,
        "normalize_rewards": False,  # by the range of returns, as IQL's authors do
        "columns": (),  # more columns of a batch: next_actions, mc_returns
        "context_length": 0,  # above 0: batches of sequences of so many steps, for an agent with a memory
    }
    config.update_from_flattened_dict({**recipe.settings, **recipe.by_set.get(name, {})})
    return config


def tiny(recipe: Recipe, name: str = "hopper-medium") -> ConfigDict:
    """Seconds on 2000 steps, with small networks: what the tests run."""
    config = from_recipe(recipe, name)
    small = {"hidden_dims": (16, 16), "num_critics": 3, "embedding_dim": 16, "num_layers": 1}
    config.agent.update({field: value for field, value in small.items() if field in config.agent})
    config.batch_size = 32
    config.num_seeds = 2
    config.num_steps = 40
    config.loop.chunk = 10
    config.loop.log_every = 10
    config.loop.eval_every = 20
    config.checkpoint.every = 10
    config.eval_episodes = 2
    config.dataset.num_steps = 2000
    return config


# By data set, of CORL's configurations: weights of ReBRAC's penalties in the policy and in the critic.
_REBRAC = {
    "hopper-random": (0.001, 0.01),
    "hopper-medium": (0.01, 0.01),
    "hopper-medium-replay": (0.05, 0.5),
    "hopper-medium-expert": (0.1, 0.01),
    "hopper-expert": (0.1, 0.1),
    "halfcheetah-random": (0.001, 0.1),
    "halfcheetah-medium": (0.001, 0.01),
    "halfcheetah-medium-replay": (0.01, 0.001),
    "halfcheetah-medium-expert": (0.01, 0.1),
    "halfcheetah-expert": (0.01, 0.01),
    "walker2d-random": (0.01, 0.0),
    "walker2d-medium": (0.05, 0.1),
    "walker2d-medium-replay": (0.05, 0.01),
    "walker2d-medium-expert": (0.01, 0.01),
    "walker2d-expert": (0.01, 0.5),
}
# Numbers of SAC-N's and EDAC's critics by task. CORL has none for the random and the expert sets: ours are the task's.
_CRITICS = {"hopper": (500, 50), "halfcheetah": (10, 10), "walker2d": (20, 10)}
_SAC_N = {name: {"agent.num_critics": _CRITICS[name.split("-")[0]][0]} for name in SETS}
_SAC_N |= {f"hopper-{level}": {"agent.num_critics": 200} for level in ("medium-replay", "medium-expert")}
_EDAC = {name: {"agent.num_critics": _CRITICS[name.split("-")[0]][1]} for name in SETS}
_EDAC |= {f"{task}-medium-expert": {"agent.eta": 5.0} for task in ("halfcheetah", "walker2d")}

# XQL's scripts by data set; the others keep the consistent settings, beta 2 and clip 7 at batches of 256.
_XQL = {
    "hopper-medium": {"agent.beta": 5.0, "batch_size": 1024},
    "hopper-medium-expert": {"agent.random_actions": 1, "batch_size": 1024},
    "halfcheetah-medium": {"agent.beta": 1.0, "agent.noise_std": 0.1, "batch_size": 1024},
    "halfcheetah-medium-replay": {"agent.beta": 1.0, "agent.max_clip": 5.0},
    "halfcheetah-medium-expert": {"agent.beta": 1.0, "agent.max_clip": 5.0, "batch_size": 1024},
    "walker2d-medium": {"agent.beta": 10.0, "batch_size": 1024},
    "walker2d-medium-replay": {"agent.beta": 5.0, "agent.max_clip": 5.0, "batch_size": 1024},
    "walker2d-medium-expert": {"agent.max_clip": 5.0},
}

# Returns that the decision transformer's authors ask for, by task.
_TARGETS = {"hopper": 3600.0, "halfcheetah": 12000.0, "walker2d": 5000.0}
_DT = {name: {"agent.target_return": _TARGETS[name.split("-")[0]]} for name in SETS}


def _mazes(settings: Mapping[str, Any] = {}, dense: bool = True) -> dict[str, Mapping[str, Any]]:
    """By set: what CORL sets for maze2d, the same for all mazes. It judges by 100 episodes.

    Not here are CQL, which learns its weight there, SAC-N, EDAC and DT; ReBRAC has no settings for dense rewards.
    """
    return {name: {"eval_episodes": 100, **settings} for name in POINTMAZE if dense or not name.endswith("-dense")}


_MAZE_IQL = {"dataset.normalize_observations": True, "dataset.normalize_rewards": False}
_MAZE_REBRAC = {"batch_size": 256, "agent.actor_penalty": 0.003, "agent.critic_penalty": 0.001}


def _door(settings: Mapping[str, Any] = {}) -> dict[str, Mapping[str, Any]]:
    """By set: what CORL sets for door-human, but judged by 100 episodes and not 10, where one that opens the door moves
    the mean by several points. CORL's policy of IQL also has a dropout of 0.1, which ours has not.
    """
    return {"adroit-door-human": {"eval_episodes": 100, **settings}}


_AWAC = {"agent.temperature": 10.0}  # CORL: lambda = 0.1, here and for the mazes
_DOOR_CQL = {"agent.conservatism": 1.0, "agent.actor_learning_rate": 1e-4}
_DOOR_IQL = {"agent.expectile": 0.8, "dataset.normalize_observations": True, "dataset.normalize_rewards": False}

RECIPES = {
    "bc": Recipe(bc.default_config, {"dataset.normalize_observations": True}, _mazes() | _door()),
    "bc10": Recipe(
        bc.default_config, {"dataset.normalize_observations": True, "dataset.top_fraction": 0.1}, _mazes() | _door()
    ),
    "td3_bc": Recipe(td3_bc.default_config, {"dataset.normalize_observations": True}, _mazes() | _door()),
    "awac": Recipe(awac.default_config, {"dataset.normalize_observations": True}, _mazes(_AWAC) | _door(_AWAC)),
    "iql": Recipe(iql.default_config, {"dataset.normalize_rewards": True}, _mazes(_MAZE_IQL) | _door(_DOOR_IQL)),
    "xql": Recipe(xql.default_config, {"dataset.normalize_rewards": True}, _XQL),
    "cql": Recipe(
        cql.default_config, {"dataset.normalize_observations": True},
        {"hopper-medium": {"dataset.normalize_rewards": True}, **_door(_DOOR_CQL)},
    ),
    "cal_ql": Recipe(
        cql.cal_ql_config,
        # The returns in the data are of one discount.
        {"dataset.normalize_observations": True, "dataset.columns": ("mc_returns",),
         "side_by_side": ("agent.*", "!agent.discount")},
    ),
    "sac_n": Recipe(sac.sac_n_config, {"num_steps": 3_000_000}, _SAC_N),
    "edac": Recipe(edac.default_config, {"num_steps": 3_000_000}, _EDAC),
    "rebrac": Recipe(
        rebrac.default_config, {"batch_size": 1024, "dataset.columns": ("next_actions",)},
        {name: {"agent.actor_penalty": actor, "agent.critic_penalty": critic}
         for name, (actor, critic) in _REBRAC.items()} | _mazes(_MAZE_REBRAC, dense=False),
    ),
    # CORL's own results come from batches of 4096 at a learning rate of 8e-4.
    "dt": Recipe(
        dt.default_config,
        {"num_steps": 100_000, "batch_size": 64, "loop.eval_every": 10_000, "checkpoint.every": 10_000,
         "dataset.normalize_observations": True, "dataset.context_length": 20},
        _DT,
    ),
}


def sets_of(agent: str) -> tuple[str, ...]:
    """The sets of `DATA_SETS` that the agent has settings for: all of locomotion, and those named in its recipe."""
    return tuple(name for name in DATA_SETS if name in SETS or name in RECIPES[agent].by_set)
