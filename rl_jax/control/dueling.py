"""Rounds of preference-based reinforcement learning in known MDPs: two policies act, a comparison may be asked for.

Wu and Sun 2023, arXiv 2310.14554, algorithms 1 and 2. A step of the Program is a round: the agent's new policy rolls
out tau_0 and that of the round before tau_1; the pair is asked about where the agent is unsure of it; the transitions
of both are counted whatever was asked. Both policies are paid for in regret, by their exact values in the true MDP.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents import pbts, pr_lsvi
from rl_jax.agents.pr_lsvi import DuelingAgent, RewardBelief
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Metric
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.losses.preference_posterior import newton, no_comparisons, with_answer
from rl_jax.tabular.exploration import deep_sea, linear_mdp, of_table, riverswim
from rl_jax.tabular.files import bridge_mdp
from rl_jax.tabular.stochastic import StochasticMDP, best_value, random_mdp

# Tables of BRIDGE whose matrices of transitions fit in memory.
TABLES = ("freeway_10_fs30", "maze_easy_l0_30_fs1", "MiniGrid-KeyCorridorS3R1-v0")
MDPS = ("random", "linear", "riverswim", "deep_sea", *TABLES)
AGENTS = {"pr_lsvi": pr_lsvi.default_config, "pbts": pbts.default_config}
QUERIES = ("active", "always", "random")
REGRET = Metric("eval/regret", "regret of both policies", "lower")


class Problems(NamedTuple):
    """M MDPs of one shape, of which a run has one.

    Attributes:
      transitions: [M, S, A, S].
      rewards: [M, S, A], scaled.
      start: [M, S].
      features: [M, S, A, d]; the end of an episode has none.
      best: [M], the optimal values.
    """

    transitions: jax.Array
    rewards: jax.Array
    start: jax.Array
    features: jax.Array
    best: jax.Array


def problems_of(config: ConfigDict) -> tuple[Problems, int]:
    """(the MDPs that `config.mdp` says, their horizon).

    Raises:
      ValueError: there is no such kind.
    """
    own = config.mdp
    if own.kind not in MDPS:
        raise ValueError(unknown("config.mdp.kind", own.kind, MDPS))
    seeds, features = range(own.seed, own.seed + own.count), None
    if own.kind == "random":
        mdps = [random_mdp(own.states, own.actions, own.horizon, seed) for seed in seeds]
    elif own.kind == "linear":
        made = [linear_mdp(own.states, own.actions, own.dimension, own.horizon, seed) for seed in seeds]
        mdps, features = [mdp for mdp, _ in made], np.stack([features for _, features in made])
    elif own.kind == "riverswim":
        mdps = [riverswim(own.states, own.horizon)]
    else:
        mdps = [deep_sea(own.states) if own.kind == "deep_sea" else of_table(bridge_mdp(own.kind))]
    horizon = mdps[0].horizon
    mdps = [mdp._replace(rewards=mdp.rewards * own.reward_scale / horizon) for mdp in mdps]
    if features is None:
        shape = mdps[0].rewards.shape
        features = np.broadcast_to(np.eye(np.prod(shape)).reshape(*shape, -1), (len(mdps), *shape, np.prod(shape)))
        if own.kind in TABLES:
            features = features[..., : -shape[1]] * (np.arange(shape[0]) < shape[0] - 1)[:, None, None]
    return _stacked(mdps, features), horizon


def _stacked(mdps: Sequence[StochasticMDP], features: np.ndarray) -> Problems:
    arrays = [np.stack([getattr(mdp, name) for mdp in mdps]) for name in ("transitions", "rewards", "start")]
    best = np.array([best_value(mdp) for mdp in mdps])
    return Problems(*(np.asarray(x, np.float32) for x in (*arrays, features, best)))


def policy_value(problem: Problems, actions: jax.Array) -> jax.Array:
    """The exact value of actions [H, S] in one MDP."""
    states = jnp.arange(actions.shape[1])

    def backward(value: jax.Array, actions: jax.Array) -> tuple[jax.Array, None]:
        return problem.rewards[states, actions] + problem.transitions[states, actions] @ value, None

    return problem.start @ jax.lax.scan(backward, jnp.zeros(len(states)), actions, reverse=True)[0]


def roll_out(problem: Problems, actions: jax.Array, key: Key) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(states, actions taken, next states), [H] each, of actions [H, S] in one MDP."""
    uniform = jax.random.uniform(key, (len(actions) + 1,))

    def draw(chances: jax.Array, uniform: jax.Array) -> jax.Array:
        return jnp.sum(uniform > jnp.cumsum(chances)[:-1])  # without the last sum, which may be a rounding below 1

    def step(state: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        actions, uniform = at
        after = draw(problem.transitions[state, actions[state]], uniform)
        return after, (state, actions[state], after)

    return jax.lax.scan(step, draw(problem.start, uniform[0]), (actions, uniform[1:]))[1]


def trajectory_features(features: jax.Array, states: jax.Array, actions: jax.Array, stacked: bool) -> jax.Array:
    """phi(tau) of states and actions [H]: the sum over the steps, [d], or all steps one after another, [H d]."""
    by_step = features[states, actions]
    return by_step.reshape(-1) if stacked else jnp.sum(by_step, 0)


def agent_of(config: ConfigDict) -> Callable[[int], DuelingAgent]:
    """Horizon -> the agent that `config.agent` says.

    Raises:
      ValueError: there is no such agent.
    """
    own = config.agent
    if own.name not in AGENTS:
        raise ValueError(unknown("agent", own.name, AGENTS))
    if own.name == "pbts":
        return lambda horizon: pbts.pbts(own)
    return lambda horizon: pr_lsvi.pr_lsvi(own, config.mdp.reward_scale / horizon, config.mdp.kind != "linear")


def dueling_program(config: ConfigDict, problems: Problems, horizon: int) -> Program:
    """The rounds of one agent; each run draws its MDP."""
    rounds, ridge, agent = config.rounds, config.agent.ridge, agent_of(config)(horizon)
    _, num_states, num_actions, dimension = problems.features.shape
    parameters = dimension * (horizon if rounds.stacked else 1)

    def init(key: Key, problems: Problems) -> TrainState:
        return TrainState.create({"reward": jnp.zeros(parameters)}, {}, extra={
            "which": jax.random.randint(key, (), 0, len(problems.best)),
            "precision": ridge * jnp.eye(parameters), "hessian": ridge * jnp.eye(parameters),
            "comparisons": no_comparisons(rounds.capacity, parameters),
            "counts": jnp.zeros((horizon, num_states, num_actions, num_states)),
            "previous": jnp.zeros((horizon, num_states), jnp.int32),
            "totals": {name: jnp.zeros(()) for name in ("regret", "regret_new", "queries")},
        })

    def step(state: TrainState, problems: Problems, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        extra = state.extra
        problem = jax.tree.map(lambda x: x[extra["which"]], problems)
        plan_key, ask_key, answer_key, *roll_keys = jax.random.split(key, 5)
        belief = RewardBelief(state.params["reward"], extra["precision"], extra["hessian"], extra["comparisons"])
        new = agent.plan(belief, extra["counts"], problem.features, plan_key)
        pair = [roll_out(problem, policy, own) for policy, own in zip((new, extra["previous"]), roll_keys)]

        features = [trajectory_features(problem.features, *one[:2], rounds.stacked) for one in pair]
        returns = [jnp.sum(problem.rewards[one[:2]]) for one in pair]
        x = features[0] - features[1]
        unsure = agent.unsure(x, belief)
        asked = {
            "active": unsure > rounds.epsilon, "always": jnp.array(True),
            "random": jax.random.uniform(ask_key) < rounds.share,
        }[rounds.query]
        answer = jax.random.uniform(answer_key) < jax.nn.sigmoid(returns[0] - returns[1])

        comparisons = with_answer(belief.comparisons, x, answer, asked)
        steps = jnp.where(asked, rounds.newton_steps, 0)  # the most likely reward changes by answers alone
        theta, hessian = newton(belief.theta, belief.hessian, comparisons, ridge, steps)
        # A norm that is too large is that of answers which can be separated.
        most = config.mdp.reward_scale / horizon * jnp.sqrt(1.0 * parameters)
        theta = theta * jnp.minimum(1.0, most / jnp.maximum(jnp.linalg.norm(theta), 1e-6))
        counts = extra["counts"]
        for states, actions, after in pair:
            counts = counts.at[jnp.arange(horizon), states, actions, after].add(1.0)

        lost = [problem.best - policy_value(problem, policy) for policy in (new, extra["previous"])]
        paid = {"regret": lost[0] + lost[1], "regret_new": lost[0], "queries": asked.astype(jnp.float32)}
        extra = {
            "which": extra["which"], "precision": belief.precision + paid["queries"] * jnp.outer(x, x),
            "hessian": hessian, "comparisons": comparisons, "counts": counts, "previous": new,
            "totals": {name: total + paid[name] for name, total in extra["totals"].items()},
        }
        metrics = {f"round/{name}": value for name, value in paid.items()} | {
            "round/unsure": unsure, "reward/norm": jnp.linalg.norm(theta),
        }
        return state.replace(params={"reward": theta}, extra=extra), metrics

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        totals = jax.device_get(gather(state.extra["totals"]))
        return Evaluation(outcomes={name: np.asarray(total)[:, None] for name, total in totals.items()})

    return Program(init, step, evaluate, problems)
