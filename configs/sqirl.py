"""SQIRL and, beside it, PPO and DQN in tabular MDPs with sticky actions.

    python -m experiments.sqirl.train --config=configs/sqirl.py:PRESET --workdir=DIR

Presets:
  quick           SQIRL with k = 1 and 256 episodes a timestep, 3 seeds, in freeway_10_fs30 with sticky actions: seconds
                  on 2 CPU cores; expected return 1.0, the best there is.
  <agent>/<MDP>   3 seeds with the authors' settings, for 500,000 samples (theirs: 5,000,000). Agents: sqirl, ppo, dqn;
                  MDPs: those of rl_jax/tabular/bridge and of experiments/sqirl/mdps. Networks see the number of a
                  state. SQIRL's number of episodes is doubled, from 1 on, until it solves the MDP.
  <agent>-screens/<MDP>   the same with networks that see the screen, as the authors' do, many times slower on a CPU;
                  MDPs that have screens: freeway_10_fs30_framestack and those of experiments/sqirl/mdps but trap.
  <agent>-atari/freeway   the first 10 decisions of the game itself, on the host, judged by episodes.
  gorp/<MDP>      GORP without sticky actions: 20 seeds.
  tiny-<agent>, tiny-atari-<agent>    seconds: what the tests run.

Any other MDP: --config.mdp=FILE.npz --config.horizon=STEPS; without sticky actions: --config.sticky=0.
"""

from pathlib import Path

from ml_collections import ConfigDict

from rl_jax.agents import dqn, gorp, ppo, sqirl
from rl_jax.core.config import core_config, from_preset
from rl_jax.tabular.files import BRIDGE

AGENTS = {"sqirl": sqirl.default_config, "ppo": ppo.default_config, "dqn": dqn.default_config}
BUILT = Path(__file__).parent.parent / "experiments" / "sqirl" / "mdps"
MDPS = (*BRIDGE, *sorted(path.stem for path in BUILT.glob("*.npz")))
SAMPLES = 500_000
# Where the authors do not discount: games of BRIDGE, not the sticky MiniGrid levels.
UNDISCOUNTED = ("freeway", "maze", "breakout", "asterix", "trap")


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": _quick}
    presets |= {f"gorp/{mdp}": lambda mdp=mdp: _gorp(mdp) for mdp in MDPS}
    for agent in AGENTS:
        presets[f"tiny-{agent}"] = lambda agent=agent: _tiny(_config(agent, "lava_gap_5"))
        presets[f"tiny-atari-{agent}"] = lambda agent=agent: _tiny_atari(agent)
        presets[f"{agent}-atari/freeway"] = lambda agent=agent: _atari(agent)
        for mdp in MDPS:
            presets[f"{agent}/{mdp}"] = lambda agent=agent, mdp=mdp: _config(agent, mdp)
            presets[f"{agent}-screens/{mdp}"] = lambda agent=agent, mdp=mdp: _screens(_config(agent, mdp))
    return from_preset("sqirl", presets, preset)


def _config(agent: str, mdp: str) -> ConfigDict:
    config = core_config()
    config.mdp = mdp  # a name, or a file of transitions and rewards
    config.horizon = 0  # of an episode; 0: the MDP's own
    config.observations = "state"  # its number; or "screen"
    # A game in place of the MDP: its name or ROM, "" for none; frames of a decision and of an observation; what rewards
    # are multiplied by; episodes of an evaluation.
    config.atari = {"rom": "", "frameskip": 30, "frame_stack": 4, "reward_scale": 1.0, "episodes": 32}
    config.sticky = 0.25  # chance that the previous action is executed again
    config.samples = SAMPLES  # environment steps, at most
    config.agent = AGENTS[agent]()
    config.agent.discount = 1.0 if mdp.startswith(UNDISCOUNTED) else 0.99
    config.side_by_side = ("agent.*", "agent.num_episodes")
    config.num_seeds = 3
    config.num_steps = 0  # 0: as many as the samples take
    config.loop.eval_every = 250 if agent == "dqn" else 1  # about 1000 samples of PPO and DQN, a timestep of SQIRL
    config.tensorboard = False
    if agent == "sqirl":
        config.agent.update({"num_episodes": 1, "growth": 2})
    if agent == "dqn":
        config.agent.num_envs = 1
        config.agent.learning_starts = 10_000  # theirs is 100,000 of 5,000,000 samples; so is the share explored
        config.agent.exploration_steps = SAMPLES // 10
    return config


def _quick() -> ConfigDict:
    config = _config("sqirl", "freeway_10_fs30")
    config.agent.update({"num_episodes": 256, "growth": 1})
    return config


def _gorp(mdp: str) -> ConfigDict:
    config = _config("sqirl", mdp)
    config.agent = gorp.default_config()
    config.sticky, config.num_seeds, config.samples = 0.0, 20, 20_000_000
    return config


def _screens(config: ConfigDict) -> ConfigDict:
    config.observations = "screen"
    config.agent.hidden_dims = ()  # the heads stand on the encoder
    if config.agent.name == "sqirl":
        config.agent.num_envs = 8
    if "buffer_size" in config.agent and config.mdp.endswith(("_fs30", "_framestack")):
        config.agent.buffer_size = 20_000  # a step is two screens, of up to 28 kB each
    return config


def _atari(agent: str) -> ConfigDict:
    config = _screens(_config(agent, "freeway_10_fs30"))
    config.horizon, config.atari.rom = 10, "freeway"
    config.samples = 100_000
    if agent == "sqirl":
        config.agent.update({"num_episodes": 64, "growth": 1})
    else:
        config.loop.eval_every = 50
    return config


def _tiny(config: ConfigDict) -> ConfigDict:
    """Few states, and time for few attempts, none of which solves the level by luck."""
    config.update_from_flattened_dict(
        {"num_seeds": 2, "samples": 20_000, "horizon": 14, "agent.hidden_dims": (16, 16)}
    )
    if config.agent.name == "sqirl":
        config.agent.update({"num_episodes": 8, "growth": 16})
    if config.agent.name == "dqn":
        config.agent.buffer_size = 1000
    return config


def _tiny_atari(agent: str) -> ConfigDict:
    config = _tiny(_atari(agent))
    config.update_from_flattened_dict(
        {"num_seeds": 1, "samples": 128, "horizon": 3, "agent.hidden_dims": (), "atari.episodes": 2}
    )
    if agent == "sqirl":
        config.agent.update({"num_epochs": 1, "num_episodes": 8, "growth": 1})
    if agent == "ppo":
        config.agent.update({"num_steps": 8, "batch_size": 64, "num_epochs": 1})
    if agent == "dqn":
        config.agent.update({"learning_starts": 64, "batch_size": 16, "buffer_size": 100})
    return config
