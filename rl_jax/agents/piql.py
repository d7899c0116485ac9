"""P-IQL: a reward from comparisons of segments, and IQL on the same steps with that reward.

The two-stage baseline of CPL (Hejna et al. 2023, arXiv 2310.13639, section 4), after Hejna and Sadigh 2023, "Inverse
Preference Learning", arXiv 2305.15363. A batch is `Comparisons`. As in the authors' code of CPL, which is the default,
IQL learns from the first step on, while the reward still does; and its policy is CPL's, whose log-prob is the negative
squared distance.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents import iql
from rl_jax.agents.agent import Agent
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.segments import Comparisons
from rl_jax.data.transitions import Transitions
from rl_jax.losses.preference import cpl_loss, segment_scores
from rl_jax.networks.initializers import orthogonal
from rl_jax.networks.policies import RegressionPolicy
from rl_jax.networks.trained import Networks, Trained, when
from rl_jax.networks.values import Critic


def piql(config: ConfigDict, action_dim: int) -> Agent:
    """Makes P-IQL; `config` has the fields of `default_config`."""
    learner = iql.iql(config, action_dim, RegressionPolicy(config.hidden_dims, action_dim, config.dropout))
    reward = Critic(config.hidden_dims, ensemble_size=1, initializer=orthogonal(1.0))
    networks = Networks({"reward": Trained(reward.init, optax.adam(config.learning_rate))})

    def rewards_of(params: PyTree, steps: Transitions) -> jax.Array:
        """r(s, a), [B, K]."""
        return reward.apply_member(params, steps.observations, steps.actions)

    # Losses

    def reward_loss(params: PyTree, batch: Comparisons) -> tuple[jax.Array, Metrics]:
        sums = segment_scores(rewards_of(params, batch.steps), batch.mask)
        first, second = sums[batch.first], sums[batch.second]
        loss = jnp.mean(cpl_loss(first, second, batch.labels))
        return loss, {"reward/loss": loss, "reward/accuracy": jnp.mean((second > first) == (batch.labels > 0.5))}

    # Update

    def init(key: Key, batch: Comparisons) -> TrainState:
        learner_key, reward_key = jax.random.split(key)
        state = learner.init(learner_key, one_by_one(batch.steps, batch.mask))
        own = networks.init(reward_key, {"reward": (batch.steps.observations, batch.steps.actions)})
        return state.replace(params=state.params | own.params, opt_state=state.opt_state | own.opt_state)

    def update(state: TrainState, batch: Comparisons, key: Key) -> tuple[TrainState, Metrics]:
        def learn_reward(state: TrainState) -> tuple[TrainState, Metrics]:
            return networks.step(state, "reward", reward_loss, batch)

        def learn_policy(state: TrainState) -> tuple[TrainState, Metrics]:
            rewards = rewards_of(state.params["reward"], batch.steps)
            steps = one_by_one(batch.steps.replace(rewards=rewards), batch.mask)
            own, policy_info = learner.update(state, steps, key)
            return own, policy_info | {"reward/mean": jnp.mean(steps.rewards)}

        learning = state.step < config.reward_share * config.decay_steps
        state, reward_info = when(learning, learn_reward, state)
        state, policy_info = when(config.together | ~learning, learn_policy, state)
        return state, reward_info | policy_info

    # Act

    return Agent(init, update, learner.act, learner.policy)


def one_by_one(steps: Transitions, mask: jax.Array) -> Transitions:
    """The steps of segments [B, K, ...] as transitions [B K, ...]; a short segment's stand again where its padding was.
    """
    count, length = mask.shape
    rows = jnp.arange(length) % jnp.sum(mask, 1, dtype=jnp.int32)[:, None] + length * jnp.arange(count)[:, None]
    return jax.tree.map(lambda field: jnp.asarray(field).reshape(-1, *field.shape[2:])[rows.reshape(-1)], steps)


def default_config() -> ConfigDict:
    """Returns the authors' settings for Meta-World from states."""
    config = iql.default_config()
    config.update(
        {
            "name": "piql",
            "hidden_dims": (512, 512),
            "temperature": 3.0,  # 1 / 0.3333: the authors write exp(A / beta)
            "decay_steps": 500_000,
            "dropout": 0.25,  # of the policy
            "reward_share": 0.1,  # of decay_steps, in which the reward learns
            "together": True,  # whether IQL learns in these too, as the authors' code does, or after them
        }
    )
    return config
