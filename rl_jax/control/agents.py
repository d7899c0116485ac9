"""The agents that learn control, by name, and what each of them reads."""

from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.agents.awac import awac
from rl_jax.agents.bc import bc
from rl_jax.agents.cpl import cpl
from rl_jax.agents.cql import cql
from rl_jax.agents.discrete_bc import discrete_bc
from rl_jax.agents.discrete_cql import discrete_cql
from rl_jax.agents.dt import dt
from rl_jax.agents.edac import edac
from rl_jax.agents.fdvl import fdvl
from rl_jax.agents.iq_learn import iq_learn
from rl_jax.agents.iql import iql
from rl_jax.agents.oril import oril
from rl_jax.agents.piql import piql
from rl_jax.agents.rebrac import rebrac
from rl_jax.agents.recoil import recoil
from rl_jax.agents.recoil_v import recoil_v
from rl_jax.agents.rlpd import rlpd
from rl_jax.agents.sac import sac
from rl_jax.agents.smodice import smodice
from rl_jax.agents.td3_bc import td3_bc
from rl_jax.agents.xql import xql
from rl_jax.core.config import unknown

AGENTS = {
    "bc": bc, "td3_bc": td3_bc, "awac": awac, "cql": cql, "iql": iql, "xql": xql, "rebrac": rebrac, "sac": sac,
    "edac": edac, "dt": dt, "fdvl": fdvl, "recoil": recoil, "recoil_v": recoil_v, "smodice": smodice, "oril": oril,
    "iq_learn": iq_learn, "rlpd": rlpd, "cpl": cpl, "piql": piql,
    "discrete_bc": discrete_bc, "discrete_cql": discrete_cql,
}
IMITATORS = ("recoil", "recoil_v", "smodice", "oril", "iq_learn")  # they learn from Demonstrations
FROM_SCRATCH = ("sac", "rlpd")  # they explore, and so learn without prior data
TARGET = "target_return"  # a field of the agents that read sequences


def make_agent(config: ConfigDict, action_dim: int) -> Agent:
    """The agent that `config.agent.name` names."""
    if config.agent.name not in AGENTS:
        raise ValueError(unknown("agent", config.agent.name, AGENTS))
    return AGENTS[config.agent.name](config.agent, action_dim)


def context_length(config: ConfigDict) -> int:
    """Steps of a sequence that the agent learns from; 0 for an agent that learns from transitions.

    Raises:
      ValueError: `config.dataset` does not give what the agent reads.
    """
    length, name = config.dataset.context_length, config.agent.name
    reads_sequences = TARGET in config.agent
    if reads_sequences != (length > 0):
        wanted = "sequences: it must be positive" if reads_sequences else "single transitions: it must be 0"
        raise ValueError(f"config.dataset.context_length is {length}, and {name} reads {wanted}")
    if reads_sequences and config.dataset.normalize_rewards:
        raise ValueError(f"config.dataset.normalize_rewards: {name} is asked for a return in the task's own rewards")
    return length
