"""Learning online in the MuJoCo tasks: SAC from scratch, and the fine-tuning of what was trained offline.

    python -m experiments.offline_rl.finetune --config=configs/offline_to_online.py:PRESET --workdir=DIR

Presets:
  quick           SAC from scratch in Hopper-v4 for 60,000 steps: 10 minutes of CPU time. One seed's policy returned
                  2,447 at 50,000 steps and 837 at 60,000: at this length it jumps from one evaluation to the next.
  sac/<task>      SAC from scratch with its authors' settings and length: hopper, halfcheetah, walker2d.
  iql/<set>       IQL fine-tuned from --config.pretrained=DIR, the finished run of configs/offline_rl.py:iql/<set>.
  cal_ql/<set>    the same of Cal-QL: half of every batch comes from the data set.
  tiny            seconds: SAC in InvertedPendulum-v4, for the tests; tiny-iql and tiny-cal_ql tune runs of
                  configs/offline_rl.py:tiny-iql and tiny-cal_ql.
"""

from ml_collections import ConfigDict

from configs import offline_rl
from rl_jax.agents import sac
from rl_jax.core.config import core_config, from_preset
from rl_jax.data.locomotion.sets import ENV_IDS, SETS

FINE_TUNED = ("iql", "cal_ql")
SAC_STEPS = {"hopper": 1_000_000, "halfcheetah": 3_000_000, "walker2d": 3_000_000}
NEVER = 1_000_000_000  # a cosine schedule so long is constant


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": _quick, "tiny": _tiny_sac}
    presets |= {f"sac/{task}": lambda task=task: _sac(ENV_IDS[task], SAC_STEPS[task]) for task in ENV_IDS}
    for agent in FINE_TUNED:
        presets[f"tiny-{agent}"] = lambda agent=agent: _tiny_tuned(agent)
        presets |= {f"{agent}/{name}": lambda agent=agent, name=name: _tuned(agent, name) for name in SETS}
    return from_preset("offline_to_online", presets, preset)


def _online(config: ConfigDict) -> ConfigDict:
    config.collect = {
        "env_steps": 1,  # of each run's environment at an update
        "random_steps": 0,  # uniformly random ones, before the first update
    }
    config.replay = {
        "capacity": 1_000_000,  # collected steps of each run; the oldest go first
        "offline_fraction": -1.0,  # of a batch from the data set; below 0: every row, old or new, is as likely
    }
    return config


def _sac(env_id: str, num_steps: int) -> ConfigDict:
    config = _online(core_config())
    config.env_id = env_id
    config.agent = sac.default_config()
    config.batch_size = 256
    config.num_steps = num_steps
    config.collect.random_steps = 10_000  # ten episodes of the longest kind, as the authors have it
    config.loop.log_every = 1000
    config.loop.eval_every = 10_000
    config.checkpoint.every = 50_000
    config.eval_episodes = 10
    return config


def _tuned(agent: str, name: str) -> ConfigDict:
    """The agent's own settings for the set, as in its offline run."""
    return _as_tuned(offline_rl.get_config(f"{agent}/{name}"))


def _as_tuned(config: ConfigDict) -> ConfigDict:
    config = _online(config)
    config.pretrained = ""  # the --workdir of the offline run
    # The offline run has annealed the policy's learning rate to nothing; the authors tune with a constant one.
    if "decay_steps" in config.agent:
        config.agent.decay_steps = NEVER
    if "mc_returns" in config.dataset.columns:
        config.replay.offline_fraction = 0.5  # Cal-QL's mixing ratio
    config.loop.eval_every = 10_000
    return config


def _quick() -> ConfigDict:
    config = _sac("Hopper-v4", 60_000)
    config.collect.random_steps = 5_000
    return config


def _tiny(config: ConfigDict) -> ConfigDict:
    config.agent.hidden_dims = (16, 16)
    config.batch_size = 32
    config.num_seeds = 2
    config.num_steps = 40
    config.loop.log_every = 10
    config.loop.eval_every = 20
    config.checkpoint.every = 10
    config.eval_episodes = 2
    config.replay.capacity = 2000
    return config


def _tiny_sac() -> ConfigDict:
    config = _tiny(_sac("InvertedPendulum-v4", 40))
    config.collect.random_steps = 40
    return config


def _tiny_tuned(agent: str) -> ConfigDict:
    return _tiny(_as_tuned(offline_rl.get_config(f"tiny-{agent}")))
