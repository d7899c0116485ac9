"""Where off-policy evaluation is judged: tasks with a policy that logs, candidates, and what those earn by roll-outs.

The horizon is part of these problems: nothing is earned after it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.control.agents import make_agent
from rl_jax.control.candidates import Candidate, Kernel, learnt_policy
from rl_jax.control.offline import AgentData, offline_program, standardised
from rl_jax.control.tasks import RETURN
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.data.episodes import Episodes
from rl_jax.data.experts.experts import expert_episodes, load_expert
from rl_jax.data.logged import LOG_PROB
from rl_jax.data.preprocess import prepare_episodes
from rl_jax.data.transitions import sample
from rl_jax.envs.acrobot import acrobot
from rl_jax.envs.cartpole import cartpole
from rl_jax.envs.environment import Environment
from rl_jax.envs.recording import following, limited, record
from rl_jax.evaluation.episodes import episode_returns
from rl_jax.networks.distributions import Categorical, Deterministic, Gaussian, SquashedGaussian

ENVIRONMENTS = {"cartpole": cartpole, "acrobot": acrobot}
SIMULATED = {"hopper": "Hopper-v4"}


class Problem(NamedTuple):
    """A task with its policies.

    Attributes:
      episodes: (candidate, how many, seed) -> what it does.
      behaviour: the policy that logs.
      candidates: those that are evaluated.
      environment: where it is a pure-JAX one.
    """

    episodes: Callable[[Candidate, int, int], Episodes]
    behaviour: Candidate
    candidates: Sequence[Candidate]
    environment: Environment | None = None


def problem_of(config: ConfigDict) -> Problem:
    """The problem of `config.environment`, with candidates that are written down and those of `config.learned`, runs'
    folders by name.

    Raises:
      ValueError: there is no such environment, directions have another length than its observations, or a folder is
        not given.
    """
    given, learned = config.get("candidates", ()), config.get("learned", {})
    if config.environment in SIMULATED:
        env_id = SIMULATED[config.environment]
        behaviour, *candidates = [embedded_policy(*one) for one in (config.behaviour, *given)]
        return Problem(
            lambda candidate, count, seed: expert_episodes(
                env_id, candidate.actor, count, seed, time_limit=config.horizon
            ), behaviour, candidates,
        )
    if config.environment not in ENVIRONMENTS:
        raise ValueError(unknown("config.environment", config.environment, (*ENVIRONMENTS, *SIMULATED)))
    environment = limited(ENVIRONMENTS[config.environment](), config.horizon)
    width, actions = jax.eval_shape(environment.reset, jax.random.key(0))[1].shape[0], environment.num_actions
    directions = [np.array(x, np.float32) for x in (config.behaviour, *given)]
    for direction in directions:
        if direction.shape != (width,):
            raise ValueError(f"config.behaviour or config.candidates has {direction.tolist()}: give directions of "
                             f"{width} numbers, as the observations of {config.environment}")
    policies = [softmax_policy(direction, actions) for direction in directions]
    for name, folder in learned.items():
        if not folder:
            raise ValueError(f"config.learned.{name} is empty: give the --workdir of a run of configs/scope_rl.py:"
                             f"candidate/{config.environment}-{name}")
        policies.append(learnt_policy(folder, width, actions))
    behaviour, *candidates = [Candidate(policy) for policy in policies]
    return Problem(
        lambda candidate, count, seed: record(environment, following(candidate.policy), count, jax.random.key(seed)),
        behaviour, candidates, environment,
    )


def softmax_policy(direction: Any, num_actions: int) -> Partial:
    """The policy whose score of an action is its sign, from -1 to 1, times the product of the observation with a
    direction [O]: observations [..., O] -> Categorical."""
    return Partial(_softmax, jnp.asarray(direction, jnp.float32), jnp.linspace(-1.0, 1.0, num_actions))


def _softmax(direction: jax.Array, signs: jax.Array, observations: jax.Array) -> Categorical:
    return Categorical((observations @ direction)[..., None] * signs)


def embedded_policy(name: str, deviation: float) -> Candidate:
    """One of rl_jax/data/locomotion with Gaussian noise of this deviation before the head, or its mode where that is 0.
    """
    policy = load_expert(name).with_deviation(deviation)

    def distribution(observations: np.ndarray) -> Any:
        mean, log_std = policy.heads(observations)
        if log_std is None:
            return Deterministic(np.tanh(mean) if policy.head == "tanh" else np.clip(mean, -1.0, 1.0))
        return {"tanh": SquashedGaussian, "clip": Gaussian}[policy.head](mean, np.broadcast_to(log_std, mean.shape))

    return Candidate(distribution, actor=policy)


def logged_episodes(problem: Problem, count: int, seed: int) -> Episodes:
    """Episodes of the behaviour policy with its log-probs."""
    made = problem.episodes(problem.behaviour, count, seed)
    log_prob = problem.behaviour.log_prob(made.observations, made.actions, Kernel())
    made.extras[LOG_PROB] = np.asarray(log_prob, np.float32)
    return made


def true_value(problem: Problem, candidate: Candidate, config: ConfigDict) -> float:
    """The mean discounted return of `config.roll_outs` episodes."""
    made = problem.episodes(candidate, config.roll_outs, config.truth_seed)
    return float(made.returns_to_go(config.discount)[made.starts].astype(np.float64).mean())


def learner_experiment(config: ConfigDict) -> Experiment:
    """A candidate of numbered actions learns offline from episodes of the behaviour policy that no evaluation sees.

    Outcome "return", [S, E], of the policy as it draws.
    """
    problem = problem_of(config)
    if problem.environment is None:
        raise ValueError(f"config.environment: {config.environment} has embedded candidates; choose "
                         f"{' or '.join(ENVIRONMENTS)}")
    made = problem.episodes(problem.behaviour, config.trajectories, config.data_seed)
    kept, mean, std = prepare_episodes(
        made, top_fraction=config.top_fraction, normalize_observations=True, scale_rewards=False
    )
    statistics = {"observation_mean": mean, "observation_std": std}
    data = AgentData(kept.to_transitions(), sample, statistics, kept.actions.shape[1:])

    def program(config: ConfigDict) -> Program:
        agent = make_agent(config, *data.action)
        returns = episode_returns(problem.environment, drawing(agent), config.eval_episodes)

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident
            return Evaluation(outcomes={"return": np.asarray(returns(state, key), np.float64)})

        return offline_program(config, data)._replace(evaluate=evaluate)

    return Experiment(
        program, {"environment": config.environment, "episodes": kept.num_episodes}, RETURN,
        lambda result, workdir: {"behaviour_return": float(made.returns.mean())},
    )


def drawing(agent: Agent) -> Callable[[TrainState, jax.Array, jax.Array], jax.Array]:
    """The draws of an agent's policy of numbered actions: (state, raw observations [B, O], time) -> [B] int32."""

    def act(state: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
        policy = agent.policy(state.params, standardised(observations, state.extra))
        return policy.sample(jax.random.fold_in(jax.random.key(0), time))

    return act
