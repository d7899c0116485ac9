"""From offline to online: an agent goes on in its task, its batches mixed of prior data and of its own steps."""

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.control.agents import make_agent
from rl_jax.control.offline import agent_data, in_box, offline_program, on_raw_observations, standardised
from rl_jax.control.online import collector
from rl_jax.control.tasks import ActionBox, action_box, check_task, headline_of, judge_in, task_of
from rl_jax.core.experiment import Experiment
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.load import Dataset
from rl_jax.data.preprocess import return_range, scale_rewards_by_return_range
from rl_jax.data.transitions import Collected, Transitions, mix_with_prior


def offline_to_online_experiment(config: ConfigDict, dataset: Dataset) -> Experiment:
    """The agent of `config.init_from`, which learnt from `dataset`, or an untrained one, goes on in the set's task.

    The data set is resident and the replay buffer a feed; `config.replay.offline_fraction` of a batch is prior data.

    Raises:
      ValueError: the agent reads what a replay buffer does not hold, or the share of prior data is above 1.
    """
    fraction = config.replay.offline_fraction
    if fraction > 1.0:
        raise ValueError(f"config.replay.offline_fraction={fraction}: at most 1; below 0 for one buffer of all")
    if config.dataset.context_length or "next_actions" in config.dataset.columns:
        what = "sequences" if config.dataset.context_length else "next_actions"
        raise ValueError(f"{config.agent.name} reads {what}, which a replay buffer does not hold")
    task = task_of(config, dataset)
    pool = task.open(config.num_seeds, savable=True)
    check_task(pool, dataset)
    box = action_box(pool)
    data = agent_data(config, in_box(dataset.episodes, box))
    discount = config.agent.discount if "mc_returns" in config.dataset.columns else None
    own_steps = collector(config, pool, discount=discount, for_mixing=True)
    judge, scale = judge_in(task, config), reward_scale(config, dataset)

    def program(config: ConfigDict) -> Program:
        agent = make_agent(config, *data.action)

        def step(state: TrainState, prior: PyTree, batch: Collected, key: Key) -> tuple[TrainState, Metrics]:
            mix_key, update_key = jax.random.split(key)
            own = batch.replace(transitions=as_prepared(batch.transitions, state, scale, box))
            return agent.update(state, shard_batch(mix_with_prior(prior, own, mix_key, fraction)), update_key)

        feed = own_steps.feed(on_raw_observations(agent, box))
        return offline_program(config, data, judge, box)._replace(step=step, feed=feed)

    return Experiment(program, dataset.inputs | {"env_id": task.label}, headline_of(task.label, config))


def as_prepared(
    own: Transitions, state: TrainState, reward_scale: float, box: ActionBox = ActionBox()
) -> Transitions:
    """Steps of the task [B] in the units of the prepared data set: observations standardised, actions in [-1, 1] and
    rewards scaled."""
    return own.replace(
        observations=standardised(own.observations, state.extra), actions=box.to_agent(own.actions),
        rewards=own.rewards * reward_scale,
        next_observations=standardised(own.next_observations, state.extra),
        mc_returns=None if own.mc_returns is None else own.mc_returns * reward_scale,
    )


def reward_scale(config: ConfigDict, dataset: Dataset) -> float:
    """What a reward of the task is multiplied by in the prepared data set."""
    if not config.dataset.normalize_rewards:
        return 1.0
    kept = dataset.episodes
    if config.dataset.top_fraction != 1.0:
        kept = kept.best_steps(config.dataset.top_fraction)
    return float(scale_rewards_by_return_range(np.ones(1), *return_range(kept))[0])
