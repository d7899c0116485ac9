"""Off-policy evaluation in control: models of candidate policies learn from logged episodes, estimators are judged.

A run draws its own episodes of the behaviour policy, in a pure-JAX environment, when it starts. Its steps train fitted
Q-evaluation and ratios of visitations for all candidates side by side; its evaluation estimates what each candidate
earns by every estimator, and the truth is the mean of roll-outs. The horizon is part of the problem: nothing is earned
after it, and learners see the time.

Policies are softmax policies with linear scores: the score of an action is its sign, from -1 to 1, times the product of
the observation with the policy's direction.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from ml_collections import ConfigDict

from rl_jax.agents.dice import Marginal, dice
from rl_jax.agents.fqe import PolicyTransitions, expected_value, fqe
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import Transitions, sample_rows
from rl_jax.envs.acrobot import acrobot
from rl_jax.envs.cartpole import cartpole
from rl_jax.envs.environment import Environment
from rl_jax.evaluation.off_policy.estimators import Logged, available, logged, terms, value
from rl_jax.evaluation.off_policy.intervals import student_t
from rl_jax.evaluation.off_policy.selection import rank_correlation
from rl_jax.networks.distributions import Categorical

ENVIRONMENTS = {"cartpole": cartpole, "acrobot": acrobot}
CHUNK = 100  # episodes whose values are computed at once
CORRELATION = Metric("eval/rank_correlation", "Spearman's rho of SNDR")


@struct.dataclass
class Played:
    """n episodes of at most T steps; padding follows the steps. Leaves [n, T, ...]."""

    observations: jax.Array  # [n, T, O]
    actions: jax.Array  # [n, T] int32
    rewards: jax.Array  # [n, T], 0 in padding
    mask: jax.Array  # [n, T], 1 for a step
    alive: jax.Array  # [n, T], 1 where the step led to no terminal
    next_observations: jax.Array  # [n, T, O]


class Rows(NamedTuple):
    """A batch of steps: what the episodes have of them, and their times [B] int32."""

    steps: Played
    times: jax.Array


def scores(directions: jax.Array, observations: jax.Array, num_actions: int) -> jax.Array:
    """Logits [..., A] of observations [..., O] by a direction [O], or [..., P, A] by directions [P, O]."""
    return (observations @ directions.T)[..., None] * jnp.linspace(-1.0, 1.0, num_actions)


def play(environment: Environment, direction: jax.Array, key: Key, count: int, horizon: int) -> Played:
    """Episodes of one policy."""

    def episode(key: Key) -> Played:
        start_key, step_key = jax.random.split(key)
        state, observation = environment.reset(start_key)

        def step(carry: tuple[Any, ...], key: Key) -> tuple[tuple[Any, ...], Played]:
            state, observation, running = carry
            action = jax.random.categorical(key, scores(direction, observation, environment.num_actions))
            state, made = environment.step(state, action, key)
            after = running * (1.0 - made.terminated)
            row = Played(observation, action.astype(jnp.int32), made.reward * running, running, after, made.observation)
            return (state, made.observation, after), row

        return jax.lax.scan(step, (state, observation, jnp.ones(())), jax.random.split(step_key, horizon))[1]

    return jax.vmap(episode)(jax.random.split(key, count))


def true_values(config: ConfigDict, environment: Environment, directions: np.ndarray) -> np.ndarray:
    """What each policy [P, O] earns, [P] float64: the mean discounted return of `config.roll_outs` episodes."""

    @jax.jit
    def returns(direction: jax.Array, key: Key) -> jax.Array:
        played = play(environment, direction, key, config.roll_outs, config.horizon)
        return played.rewards @ config.discount ** jnp.arange(config.horizon)

    keys = jax.random.split(jax.random.key(config.truth_seed), len(directions))
    return np.array([np.asarray(returns(*one), np.float64).mean() for one in zip(jnp.asarray(directions), keys)])


def off_policy_evaluation(config: ConfigDict) -> Experiment:
    """What a configuration with the task "control" says.

    Raises:
      ValueError: there is no such environment, directions have another length than its observations, or the episodes
        do not make whole chunks.
    """
    if config.environment not in ENVIRONMENTS:
        raise ValueError(unknown("config.environment", config.environment, ENVIRONMENTS))
    environment = ENVIRONMENTS[config.environment]()
    candidates, behaviour = (np.array(x, np.float32) for x in (config.candidates, config.behaviour))
    width = jax.eval_shape(environment.reset, jax.random.key(0))[1].shape[0]
    if candidates.shape[1:] != (width,) or behaviour.shape != (width,):
        raise ValueError(f"config.candidates has shape {candidates.shape} and config.behaviour {behaviour.shape}: give "
                         f"directions of {width} numbers, as the observations of {config.environment}")
    if config.trajectories > CHUNK and config.trajectories % CHUNK:
        raise ValueError(f"config.trajectories={config.trajectories}: above {CHUNK} give a multiple of it")
    truth = true_values(config, environment, np.concatenate([candidates, behaviour[None]]))

    def evaluate_with(values: Any) -> Any:
        return functools.partial(judged, config, values, truth)

    def program(config: ConfigDict) -> Program:
        return learning_program(config, environment, candidates, behaviour, evaluate_with)

    return Experiment(
        program, {"environment": config.environment}, CORRELATION,
        lambda result, workdir: {"truth": truth[:-1].tolist(), "behaviour": float(truth[-1])},
    )


def learning_program(
    config: ConfigDict, environment: Environment, candidates: np.ndarray, behaviour: np.ndarray, evaluate_with: Any
) -> Program:
    """Trains the models of all candidates; `evaluate_with(values)` makes the evaluation of what `values` gives."""
    actions, horizon, count = environment.num_actions, config.horizon, config.trajectories
    agents = {"fqe": fqe(config.fqe, actions), "dice": dice(config.dice, actions)}

    def seen(observations: jax.Array, times: jax.Array, extra: PyTree) -> jax.Array:
        """What learners see: standardised observations [..., O] and the time."""
        scaled = (observations - extra["observation_mean"]) / extra["observation_std"]
        return jnp.concatenate([scaled, 2.0 * times[..., None] / horizon - 1.0], -1)

    def batch_of(rows: Rows, starts: jax.Array, extra: PyTree, policies: jax.Array) -> Marginal:
        """Every leaf of a policy is [B, P, A]."""
        steps, times = rows
        masks = steps.alive * (times + 1 < horizon)  # the horizon ends the problem
        transitions = Transitions(
            seen(steps.observations, times, extra), steps.actions, steps.rewards, masks,
            seen(steps.next_observations, times + 1, extra),
        )
        return Marginal(
            PolicyTransitions(transitions, Categorical(scores(policies, steps.next_observations, actions))),
            config.discount**times * extra["mean_length"], seen(starts, jnp.zeros(len(starts)), extra),
            Categorical(scores(policies, starts, actions)),
        )

    # Of all leaves of a batch only those of the policies have an axis of candidates.
    axes = Marginal(PolicyTransitions(None, Categorical(1)), None, None, Categorical(1))

    def init(key: Key, policies: PyTree) -> TrainState:
        play_key, *keys = jax.random.split(key, 1 + len(agents))
        played = play(environment, policies["behaviour"], play_key, count, horizon)
        mask, total = played.mask[..., None], jnp.sum(played.mask)
        mean = jnp.sum(played.observations * mask, (0, 1)) / total
        std = jnp.sqrt(jnp.sum(jnp.square(played.observations - mean) * mask, (0, 1)) / total)
        order = jnp.argsort(-played.mask.reshape(-1), stable=True).astype(jnp.int32)
        extra = {
            "played": played, "order": order, "steps": total.astype(jnp.int32), "mean_length": total / count,
            "observation_mean": mean, "observation_std": std + 1e-6,
        }
        some = Rows(jax.tree.map(lambda x: x[:1, 0], played), jnp.zeros(1, jnp.int32))
        batch = batch_of(some, played.observations[:1, 0], extra, policies["candidates"])
        made = {}
        for (name, agent), own in zip(agents.items(), keys, strict=True):
            given = batch if name == "dice" else batch.steps
            made[name] = jax.vmap(agent.init, in_axes=(0, axes if name == "dice" else axes.steps))(
                jax.random.split(own, len(candidates)), given
            )
        parts = ({name: getattr(one, field) for name, one in made.items()} for field in
                 ("params", "opt_state", "target_params"))
        return TrainState.create(*parts, extra)

    def step(state: TrainState, policies: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        row_key, start_key, *keys = jax.random.split(key, 2 + len(agents))
        extra, size = state.extra, config.batch_size
        places = sample_rows(extra["order"], row_key, size, extra["steps"])
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[places], extra["played"])
        starts = extra["played"].observations[jax.random.randint(start_key, (size,), 0, count), 0]
        rows, starts = shard_batch((Rows(rows, places % horizon), starts))
        made = batch_of(rows, starts, extra, policies["candidates"])
        metrics = {}
        new = {"params": {}, "opt_state": {}, "target_params": {}}
        for (name, agent), own in zip(agents.items(), keys, strict=True):
            given, in_axes = (made, axes) if name == "dice" else (made.steps, axes.steps)

            def update(
                params: PyTree, opt_state: PyTree, target_params: PyTree, batch: Any, key: Key, agent: Any = agent
            ) -> tuple[TrainState, Metrics]:
                own_state = TrainState(state.step, params, target_params, opt_state, {})
                after, info = agent.update(own_state, batch, key)
                return after.replace(step=None), info

            after, info = jax.vmap(update, in_axes=(0, 0, 0, in_axes, 0))(
                state.params[name], state.opt_state[name], state.target_params[name], given,
                jax.random.split(own, len(candidates)),
            )
            for field in new:
                new[field][name] = getattr(after, field)
            metrics |= {f"{name}/{metric}": jnp.mean(x) for metric, x in info.items()}
        return state.replace(**new), metrics

    @jax.jit
    def of_run(run: TrainState, policies: PyTree) -> dict[str, jax.Array]:
        times = jnp.arange(horizon)

        def of_episodes(part: Played) -> dict[str, jax.Array]:
            shown = seen(part.observations, jnp.broadcast_to(times, part.actions.shape), run.extra)
            acting = Categorical(scores(policies["behaviour"], part.observations, actions)).log_prob(part.actions)

            def of_candidate(params: PyTree, direction: jax.Array) -> dict[str, jax.Array]:
                policy = Categorical(scores(direction, part.observations, actions))
                everywhere = [
                    agents["fqe"].q(params["fqe"], shown, jnp.full(part.actions.shape, action))
                    for action in range(actions)
                ]
                return {
                    "q": agents["fqe"].q(params["fqe"], shown, part.actions),
                    "v": expected_value(jnp.stack(everywhere, -1), policy),
                    "ratios": agents["dice"].weights(params["dice"], shown, part.actions),
                    "log_ratios": policy.log_prob(part.actions) - acting,
                }

            return jax.vmap(of_candidate)(run.params, policies["candidates"])

        played = run.extra["played"]
        chunks = jax.tree.map(lambda x: x.reshape(-1, min(CHUNK, count), *x.shape[1:]), played)
        found = jax.lax.map(of_episodes, chunks)  # [chunks, P, CHUNK, T]
        found = {name: jnp.moveaxis(x, 0, 1).reshape(len(candidates), count, horizon) for name, x in found.items()}
        return found | {"rewards": played.rewards, "mask": played.mask}

    def values(state: TrainState, policies: PyTree) -> list[dict[str, np.ndarray]]:
        """Of every run "q", "v", "ratios", "log_ratios" [P, n, T] of what was played, "rewards" and "mask" [n, T]."""
        # One run at a time: the numbers are then those of the run alone, to the last bit.
        whole, policies = gather(state.replace(step=None)), jax.device_put(gather(policies))
        rows = range(len(whole.extra["steps"]))
        runs = (jax.device_put(jax.tree.map(lambda x, row=row: x[row], whole)) for row in rows)
        return [jax.device_get(of_run(run, policies)) for run in runs]

    return Program(
        init, step, evaluate_with(values),
        {"candidates": jnp.asarray(candidates), "behaviour": jnp.asarray(behaviour)},
    )


def judged(
    config: ConfigDict, values: Any, truth: np.ndarray, state: TrainState, policies: PyTree, key: Key
) -> Evaluation:
    """Outcomes [S, P]: "estimate/NAME", "low/NAME" and "high/NAME" of 95% intervals, "truth"; "behaviour" [S, 1]."""
    del key
    found = values(state, policies)
    outcomes: dict[str, list[np.ndarray]] = {}
    for own in found:
        data = data_of(own)
        for name in available(data):
            made = terms(name, data, config.discount)
            low, high = student_t(made)
            for kind, x in (("estimate", value(made)), ("low", low), ("high", high)):
                outcomes.setdefault(f"{kind}/{name}", []).append(x)
    stacked = {name: np.stack(x) for name, x in outcomes.items()}
    stacked |= {"truth": np.tile(truth[:-1], (len(found), 1)), "behaviour": np.full((len(found), 1), truth[-1])}
    return Evaluation({CORRELATION.name: rank_correlation(stacked["estimate/sndr"], truth[:-1])}, stacked)


def data_of(found: dict[str, np.ndarray]) -> Logged:
    """What was played in one run, and what its models say of it."""
    mask = np.asarray(found["mask"], np.float64)
    ratios = np.where(mask > 0, found["ratios"], 1.0)
    return logged(
        found["rewards"], found["log_ratios"], mask=mask, q=found["q"], v=found["v"], state_action_weights=ratios
    )
