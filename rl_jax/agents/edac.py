"""EDAC: SAC-N whose critics are kept apart, so that tens of them do what hundreds did.

An et al. 2021, "Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble", arXiv 2110.01548. Where
all critics agree, their minimum warns of nothing; critics that agree on the data's actions differ next to them if their
gradients in the action point in different directions. So EDAC is SAC-N (rl_jax/agents/sac.py) with one more term in the
critics' loss, eta times the similarity of those directions, and this file holds that term.

The term takes second derivatives of the critics, in the action and then in their weights. With one action dimension a
direction is a sign, which no small step changes: there EDAC is SAC-N.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.agents import sac
from rl_jax.agents.agent import Agent
from rl_jax.core.program import Metrics, PyTree
from rl_jax.data.transitions import Transitions
from rl_jax.losses.ensembles import gradient_similarity
from rl_jax.networks.values import Critic


def edac(config: ConfigDict, action_dim: int) -> Agent:
    """Makes EDAC; `config` has the fields of `default_config`.

    Raises:
      ValueError: there are fewer than two critics, and nothing to keep apart.
    """
    if config.num_critics < 2:
        raise ValueError(f"num_critics is {config.num_critics}: EDAC compares critics with one another, set 2 or more")

    # Losses

    def similarity_loss(critic: Critic, params: PyTree, batch: Transitions) -> tuple[jax.Array, Metrics]:
        """eta J_ES at the data's actions, section 4."""
        actions = jnp.broadcast_to(batch.actions, (config.num_critics, *batch.actions.shape))
        # Each member has its own copy of the actions, so the gradient of the sum is every member's own.
        gradients = jax.grad(lambda a: critic.apply_members(params, batch.observations, a).sum())(actions)
        similarity = jnp.mean(gradient_similarity(gradients))
        return config.eta * similarity, {"critic/similarity": similarity}

    return sac.sac(config, action_dim, critic_regularizer=similarity_loss)


def default_config() -> ConfigDict:
    """Returns the authors' settings for the MuJoCo locomotion data; what differs by data set is in its recipe."""
    config = sac.sac_n_config()
    config.name = "edac"
    config.num_critics = 10  # 50 for hopper
    config.eta = 1.0  # weight of the similarity
    return config
