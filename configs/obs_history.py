"""Offline RL with observation histories: agents with a memory on recorded episodes that no history occurs in twice.

    python -m experiments.obs_history.train --config=configs/obs_history.py:PRESET --workdir=DIR

Presets:
  quick             CQL with the bisimulation loss on 50 episodes of the stitching gridworld, 3 seeds: a minute on 2 CPU
                    cores.
  <method>/n<N>     the same on N episodes, 50, 200 or 1000. Methods: cql, cql_bisim, cql_bisim_mean and
                    cql_bisim_uniform (distances under the data's policy, or under all actions alike, and not under the
                    data's own actions), cql_transformer, oracle (CQL that sees the state), bc (cloning of the best
                    episodes), iql, iql_bisim.
  <method>/wordle   Wordle with 50 words, a letter a step, from the games of synthetic players, 2 seeds, on a causal
                    transformer: minutes. Methods: bc, ilql, ilql_bisim.
  paper/<method>, paper/wordle-<method>   either at the authors' lengths, as far as they are known; Wordle with all
                    answers and GPT-2's small network: for one GPU.
  paper/vizdoom-<method>   navigation in VizDoom from pictures, on walks of players of ten kinds: for one GPU, with the
                    extra vizdoom. Methods: bc, cql, cql_bisim.
  tiny, tiny-<method>, tiny-wordle-<method>, tiny-vizdoom-<method>   seconds: what the tests run.

Scores that they reached stand in experiments/obs_history/README.md.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from rl_jax.agents import history_bc, history_cql, ilql
from rl_jax.core.config import core_config, from_preset

EPISODES = (50, 200, 1000)
# By method: the agent, and what is set besides, by dotted field.
METHODS: dict[str, tuple[Callable[[], ConfigDict], dict[str, object]]] = {
    "cql": (history_cql.default_config, {}),
    "cql_bisim": (history_cql.default_config, {"agent.eta": 0.1}),
    "cql_bisim_mean": (history_cql.default_config, {"agent.eta": 0.1, "agent.compared": "behaviour"}),
    "cql_bisim_uniform": (history_cql.default_config, {"agent.eta": 0.1, "agent.compared": "uniform"}),
    "cql_transformer": (history_cql.default_config, {"agent.encoder": "transformer"}),
    "oracle": (history_cql.default_config, {"agent.encoder": "none", "data.view": "state"}),
    "bc": (history_bc.default_config, {"data.top_fraction": 0.2}),
    "iql": (ilql.iql_config, {}),
    "iql_bisim": (ilql.iql_config, {"agent.eta": 0.1}),
}


WORDLE: dict[str, tuple[Callable[[], ConfigDict], dict[str, object]]] = {
    "bc": (history_bc.default_config, {"data.top_fraction": 0.3}),
    "ilql": (ilql.default_config, {}),
    "ilql_bisim": (ilql.default_config, {"agent.eta": 0.1}),
}
VIZDOOM = ("bc", "cql", "cql_bisim")


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: grid("cql_bisim", 50), "tiny": lambda: tiny(grid("cql_bisim", 10))}
    for method in METHODS:
        presets[f"paper/{method}"] = lambda method=method: paper(grid(method, 50))
        presets[f"tiny-{method}"] = lambda method=method: tiny(grid(method, 10))
        for episodes in EPISODES:
            presets[f"{method}/n{episodes}"] = lambda method=method, episodes=episodes: grid(method, episodes)
    for method in WORDLE:
        presets[f"{method}/wordle"] = lambda method=method: wordle(method)
        presets[f"paper/wordle-{method}"] = lambda method=method: paper_wordle(wordle(method))
        presets[f"tiny-wordle-{method}"] = lambda method=method: tiny_wordle(wordle(method))
    for method in VIZDOOM:
        presets[f"paper/vizdoom-{method}"] = lambda method=method: vizdoom(method)
        presets[f"tiny-vizdoom-{method}"] = lambda method=method: tiny_vizdoom(vizdoom(method))
    return from_preset("obs_history", presets, preset)


def base(agent: ConfigDict) -> ConfigDict:
    config = core_config()
    config.agent = agent
    config.agent.discount = 0.95
    config.agent.learning_rate = 1e-3
    config.batch_size = 16  # episodes
    config.eval_episodes = 100
    config.judged_rows = 64  # episodes of the data on which L_bis is read
    config.tensorboard = False
    return config


def grid(method: str, episodes: int) -> ConfigDict:
    agent, settings = METHODS[method]
    config = base(agent())
    config.data = {
        "kind": "grid",
        "episodes": episodes,
        "view": "partial",  # or "state"
        "top_fraction": 1.0,  # below 1: the best episodes that hold this share of the steps
        "horizon": 30,
        "noise": 0.1,  # chance of a random move
        "wrong_share": 0.25,  # of the episodes of B that go to the wrong goal
        "seed": 0,
    }
    config.num_seeds = 3
    config.num_steps = 1500
    config.loop.update({"chunk": 250, "log_every": 500, "eval_every": 500})
    config.checkpoint.every = 750
    if "tau" in config.agent:
        config.agent.tau = 0.02  # 16 steps to a goal are learnt in a third of the updates that 0.005 needs
    if config.agent.name == "history_cql":
        config.agent.conservatism = 0.05  # rewards are 1 at most: with the authors' 1 Q is the data's policy alone
    config.update_from_flattened_dict(settings)
    return config


def wordle(method: str) -> ConfigDict:
    agent, settings = WORDLE[method]
    config = base(agent())
    config.data = {
        "kind": "wordle",
        "episodes": 3000,  # a third for each player
        "words": 50,  # that may be asked, and guessed; 0 for all
        "top_fraction": 1.0,
        "seed": 0,
    }
    config.agent.update({"encoder": "transformer", "latent_dim": 48, "hidden_dim": 48, "hidden_dims": (64,)})
    config.agent.update({"discount": 0.99, "learning_rate": 3e-3})
    if "tau" in config.agent:
        config.agent.tau = 0.02
    config.num_seeds = 2
    config.num_steps = 2000
    config.loop.update({"chunk": 50, "log_every": 250, "eval_every": 500})
    config.checkpoint.every = 1000
    config.update_from_flattened_dict(settings)
    return config


def paper(config: ConfigDict) -> ConfigDict:
    config.agent.update({"learning_rate": 3e-4, "discount": 0.99})
    if config.agent.name == "history_cql":
        config.agent.update({"conservatism": 1.0, "tau": 0.005})
    config.batch_size, config.num_steps, config.num_seeds = 32, 20_000, 5
    return config


def paper_wordle(config: ConfigDict) -> ConfigDict:
    """GPT-2's small width and depth, from scratch."""
    config.agent.update(
        {"latent_dim": 768, "hidden_dim": 768, "hidden_dims": (1536,), "num_layers": 12, "num_heads": 12}
    )
    if "tau" in config.agent:
        config.agent.tau = 0.005
    config.update_from_flattened_dict(
        {"agent.learning_rate": 1e-4, "batch_size": 64, "data.words": 2315, "data.episodes": 30_000,
         "num_steps": 100_000, "num_seeds": 1, "loop.eval_every": 5000, "checkpoint.every": 5000}
    )
    return config


def vizdoom(method: str) -> ConfigDict:
    agent, settings = METHODS[method]
    config = base(agent())
    config.data = {"kind": "vizdoom", "episodes": 800, "top_fraction": 1.0, "seed": 0}  # 100,000 steps
    config.agent.update(
        {"picture": (60, 80), "latent_dim": 128, "hidden_dim": 256, "hidden_dims": (256,), "learning_rate": 1e-4,
         "discount": 0.99}
    )
    config.num_seeds = 1
    config.num_steps = 50_000
    config.eval_episodes = 50
    config.loop.update({"chunk": 100, "log_every": 500, "eval_every": 5000})
    config.checkpoint.every = 5000
    config.update_from_flattened_dict(settings)
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.agent.update({"latent_dim": 8, "hidden_dim": 8, "hidden_dims": (8,), "num_layers": 1})
    config.update_from_flattened_dict(
        {"num_seeds": 2, "num_steps": 40, "batch_size": 8, "eval_episodes": 4, "judged_rows": 4, "loop.chunk": 10,
         "loop.log_every": 10, "loop.eval_every": 20, "checkpoint.every": 10}
    )
    return config


def tiny_wordle(config: ConfigDict) -> ConfigDict:
    config = tiny(config)
    config.data.update({"episodes": 30, "words": 20})
    return config


def tiny_vizdoom(config: ConfigDict) -> ConfigDict:
    config = tiny(config)
    config.update_from_flattened_dict(
        {"data.episodes": 10, "num_steps": 2, "batch_size": 2, "eval_episodes": 2, "loop.chunk": 1, "loop.log_every": 1,
         "loop.eval_every": 2, "checkpoint.every": 2}
    )
    return config
