"""Off-policy estimators in a small MDP whose values and visitations are known exactly: how far they are from the truth.

A step of the Program is a batch of repetitions. In each the host draws trajectories of the behaviour policy, evaluates
another policy by every estimator, with exact visitations and with values that are exact but for a constant, and the
state gathers the errors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Feed, Key, Metrics, Program, PyTree, TrainState
from rl_jax.evaluation.off_policy.estimators import Logged, importance_weights, logged, terms, value
from rl_jax.evaluation.off_policy.intervals import student_t
from rl_jax.evaluation.off_policy.return_distribution import ReturnModel, return_distribution
from rl_jax.tabular.stochastic import (
    Sampled,
    StochasticMDP,
    action_values,
    policy_value,
    random_mdp,
    sample,
    state_visitations,
)

# Estimator -> its name in ESTIMATORS and the ratios of SOPE.
COMPARED = {
    name: (name, 0) for name in ("dm", "tis", "pdis", "dr", "sntis", "snpdis", "sndr", "sm_is", "sm_dr", "sam_is",
                                 "sam_dr", "sam_snis", "sam_sndr", "drl")
} | {"sope": ("sam_is", 3), "sope_dr": ("sam_dr", 3)}
DISTRIBUTIONS = ("cd_tis", "cd_sntis", "cd_tdr", "cd_sntdr")
TRUE_RETURNS = 200_000  # of the evaluated policy, for the true median
RMSE = Metric("eval/rmse/dr", "RMSE of DR", "lower")


class Problem(NamedTuple):
    """An MDP, the policy that is evaluated and the one that acts, [S, A] each, with what is known exactly.

    Attributes:
      q: [T, S, A].
      ratios: of the visitations, [T, S].
      value: J.
      median: of the discounted returns, by TRUE_RETURNS of them.
    """

    mdp: StochasticMDP
    policy: np.ndarray
    behaviour: np.ndarray
    q: np.ndarray
    ratios: np.ndarray
    value: float
    median: float


def problem_of(config: ConfigDict) -> Problem:
    """The problem of `config.mdp`: both policies are random, mixed with the uniform one."""
    given = config.mdp
    mdp = random_mdp(given.states, given.actions, given.horizon, given.seed, given.noise)
    rng, uniform = np.random.default_rng(given.seed + 1), np.full(mdp.rewards.shape, 1.0 / given.actions)
    policy, behaviour = (
        (1.0 - given.uniform) * rng.dirichlet(np.ones(given.actions), given.states) + given.uniform * uniform
        for _ in range(2)
    )
    returns = discounted(sample(mdp, policy, TRUE_RETURNS, rng).rewards, config.discount)
    return Problem(
        mdp, policy, behaviour, action_values(mdp, policy, config.discount),
        state_visitations(mdp, policy) / state_visitations(mdp, behaviour), policy_value(mdp, policy, config.discount),
        float(np.median(returns)),
    )


def discounted(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Returns [..., n] of rewards [..., n, T]."""
    return rewards @ discount ** np.arange(rewards.shape[-1])


def with_models(problem: Problem, drawn: Sampled, q_error: float) -> Logged:
    """Trajectories with exact ratios and visitations, and values that are `q_error` too large. They learn from nothing,
    so they count as cross-fitted."""
    times, q = np.arange(problem.mdp.horizon), problem.q + q_error
    states, actions = drawn.states, drawn.actions
    log_ratios = (np.log(problem.policy) - np.log(problem.behaviour))[states, actions]
    state_weights = problem.ratios[times, states]
    return logged(
        drawn.rewards, log_ratios, q=q[times, states, actions], v=(problem.policy * q).sum(-1)[times, states],
        state_weights=state_weights, state_action_weights=state_weights * np.exp(log_ratios), crossfit=True,
    )


def judged(problem: Problem, config: ConfigDict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One repetition: errors [E], whether 95% intervals of Student's t cover the truth [E], and relative errors of the
    medians [D]."""
    drawn = sample(problem.mdp, problem.behaviour, config.trajectories, rng)
    data = with_models(problem, drawn, config.q_error)
    errors, covered = [], []
    for name, ratios in COMPARED.values():
        found = terms(name, data, config.discount, num_ratios=ratios)
        low, high = student_t(found)
        errors.append(value(found) - problem.value)
        covered.append(low <= problem.value <= high)
    q = problem.q[0] + config.q_error
    start = drawn.states[:, 0]
    model = ReturnModel(q[start], problem.policy[start], data.q[:, :1])
    weights = importance_weights("trajectory", data)[:, -1]
    returns = discounted(drawn.rewards, config.discount)
    medians = [return_distribution(name, returns, weights, model=model).quantile(0.5) for name in DISTRIBUTIONS]
    return {
        "error": np.array(errors, np.float32), "covered": np.array(covered, np.float32),
        "median": np.abs(np.array(medians, np.float32) / problem.median - 1.0),
    }


def tabular_evaluation(config: ConfigDict) -> Experiment:
    """`config.batch_size` repetitions a step; all outcomes are over those that were made."""
    problem = problem_of(config)

    def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
        del state, resident, step
        found = []
        for key in np.asarray(jax.random.key_data(keys)).tolist():
            rngs = np.random.default_rng(key).spawn(config.batch_size)
            found.append([judged(problem, config, rng) for rng in rngs])
        return jax.tree.map(lambda *rows: np.stack(rows), *(
            jax.tree.map(lambda *rows: np.stack(rows), *of_run) for of_run in found
        )), {}

    def init(key: Key, resident: PyTree) -> TrainState:
        del key, resident
        sums = {
            "error": jnp.zeros(len(COMPARED)), "squared": jnp.zeros(len(COMPARED)),
            "covered": jnp.zeros(len(COMPARED)), "median": jnp.zeros(len(DISTRIBUTIONS)),
        }
        return TrainState.create({}, {}, extra=sums | {"count": jnp.zeros(())})

    def step(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        del resident, key
        batch = batch | {"squared": jnp.square(batch["error"])}
        added = {name: jnp.sum(x, 0) for name, x in batch.items()} | {"count": jnp.float32(len(batch["error"]))}
        means = jnp.mean(batch["error"], 0)
        metrics = {f"{name}/error": means[place] for place, name in enumerate(COMPARED)}
        return state.replace(extra=jax.tree.map(jnp.add, state.extra, added)), metrics

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident, key
        sums = {name: np.asarray(x, np.float64) for name, x in jax.device_get(gather(state.extra)).items()}
        means = {name: x / sums["count"][:, None] for name, x in sums.items() if name != "count"}
        of_each = {
            "rmse": np.sqrt(means["squared"]), "bias": means["error"], "coverage": means["covered"],
            "std": np.sqrt(np.maximum(means["squared"] - means["error"] ** 2, 0.0)),
        }
        outcomes = {
            f"{kind}/{name}": x[:, place : place + 1]
            for kind, x in of_each.items() for place, name in enumerate(COMPARED)
        }
        medians = {f"median_error/{name}": means["median"][:, [at]] for at, name in enumerate(DISTRIBUTIONS)}
        return Evaluation(outcomes=outcomes | medians)

    feed = Feed(collect)
    inputs = {"value": problem.value, "median": problem.median}
    return Experiment(
        lambda config: Program(init, step, evaluate, feed=feed), inputs, RMSE,
        lambda result, workdir: {"value": problem.value},
    )
