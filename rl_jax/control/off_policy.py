"""Off-policy evaluation in control: models of candidate policies learn from logged episodes, estimators are judged.

The steps of a run train, for all candidates side by side, fitted Q-evaluation and ratios of visitations of states (SM)
and of states with actions (SAM), once for each of K folds of the episodes: what is said of an episode comes from models
that did not learn from it, as DRL asks. Episodes are drawn in an environment whose policies' values are known by
roll-outs, other ones for each seed, or they are a user's own.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.dice import Marginal, dice
from rl_jax.agents.fqe import PolicyTransitions, fqe
from rl_jax.control.candidates import Candidate, Kernel
from rl_jax.control.off_policy_problems import logged_episodes, problem_of, true_value
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.members import side_by_side
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.logged import LoggedEpisodes, pad_episodes
from rl_jax.data.transitions import Transitions, sample_rows
from rl_jax.evaluation.off_policy.estimators import Logged, available, folds, logged, terms, value
from rl_jax.evaluation.off_policy.intervals import student_t
from rl_jax.evaluation.off_policy.selection import rank_correlation
from rl_jax.networks.distributions import Categorical

CHUNK = 50  # episodes whose values are computed at once
CORRELATION = Metric("eval/rank_correlation", "Spearman's rho of SNDR")

Judge = Callable[[Logged], Evaluation]  # of one run


# What models learn from


def prepared(
    config: ConfigDict, episodes: LoggedEpisodes, candidates: Sequence[Candidate], log_probs: Sequence[np.ndarray]
) -> dict[str, Any]:
    """What a run reads: the episodes, what each of P candidates does in their states, and which steps each fold's
    models learn from; host arrays.

    Args:
      log_probs: log pi(a|s), [n, T], of each candidate.
    """
    count, length = episodes.mask.shape
    own = folds(count, config.folds, seed=0) if config.folds > 1 else np.full(count, -1)
    ahead = [
        candidate.ahead(episodes.observations, config.draws, place) for place, candidate in enumerate(candidates)
    ]
    policies = jax.tree.map(lambda *x: np.stack(x, 2), *ahead)
    log_ratios = np.stack(log_probs, -1) - episodes.behaviour_log_prob[..., None]
    # Rows that a fold's models learn from come first.
    learnt = own != np.arange(config.folds)[:, None]
    steps = (learnt[..., None] & (episodes.mask > 0)).reshape(config.folds, -1)
    shown = episodes.observations[:, :-1][episodes.mask > 0]
    if isinstance(policies, Categorical):
        episodes = episodes.replace(actions=episodes.actions.argmax(-1).astype(np.int32))
    with np.errstate(over="ignore"):
        ratios = np.where(episodes.mask[..., None] > 0, np.exp(log_ratios), 1.0).astype(np.float32)
    return {
        "episodes": episodes, "policies": policies, "log_ratios": log_ratios.astype(np.float32), "ratios": ratios,
        "steps": np.argsort(~steps, axis=1, kind="stable").astype(np.int32), "num_steps": steps.sum(1, dtype=np.int32),
        "starts": np.argsort(~learnt, axis=1, kind="stable").astype(np.int32),
        "num_starts": learnt.sum(1, dtype=np.int32), "folds": np.maximum(own, 0).astype(np.int32),
        "mean": shown.mean(0), "std": shown.std(0) + 1e-6, "mean_length": np.float32(len(shown) / count),
    }


def learning_program(config: ConfigDict, resident: dict[str, Any], judge: Judge) -> Program:
    """Trains the models of all candidates and folds on what `prepared` gives."""
    policies, horizon = resident["policies"], config.horizon
    actions = policies.logits.shape[-1] if isinstance(policies, Categorical) else None
    count, steps, width = resident["ratios"].shape
    shape = (config.folds, width)
    of_states = config.dice.copy_and_resolve_references()
    of_states.marginal = "state"
    agents = {"fqe": fqe(config.fqe, actions), "sam": dice(config.dice, actions), "sm": dice(of_states, actions)}
    # Of all leaves of a batch only those of the policies have an axis of candidates.
    axes = Marginal(PolicyTransitions(None, 1), None, None, 1, 1)

    def of(name: str, whole: Marginal) -> Any:
        return whole.steps if name == "fqe" else whole

    def seen(data: PyTree, observations: jax.Array, times: jax.Array) -> jax.Array:
        """What learners see: standardised observations [..., O] and, where the horizon ends the problem, the time."""
        scaled = (observations - data["mean"]) / data["std"]
        times = jnp.broadcast_to(times, scaled.shape[:-1])
        return jnp.concatenate([scaled, 2.0 * times[..., None] / horizon - 1.0], -1) if horizon else scaled

    def lives(alive: jax.Array, times: jax.Array) -> jax.Array:
        return alive * (times + 1 < horizon) if horizon else alive

    def batch_of(data: PyTree, places: jax.Array, starts: jax.Array) -> Marginal:
        """Steps [B] by their places, and starts of the episodes [B]."""
        episode, time = places // steps, places % steps
        made, ahead = data["episodes"], data["policies"]
        transitions = Transitions(
            seen(data, made.observations[episode, time], time), made.actions[episode, time],
            made.rewards[episode, time], lives(made.alive[episode, time], time),
            seen(data, made.observations[episode, time + 1], time + 1),
        )
        return Marginal(
            PolicyTransitions(transitions, jax.tree.map(lambda x: x[episode, time + 1], ahead)),
            config.discount**time * data["mean_length"], seen(data, made.observations[starts, 0], jnp.zeros(())),
            jax.tree.map(lambda x: x[starts, 0], ahead), data["ratios"][episode, time],
        )

    def init(key: Key, data: PyTree) -> TrainState:
        some = jnp.zeros(1, jnp.int32)
        batch, made = batch_of(data, some, some), {}
        for (name, agent), own in zip(agents.items(), jax.random.split(key, len(agents)), strict=True):
            of_fold = jax.vmap(agent.init, in_axes=(0, of(name, axes)))
            made[name] = jax.vmap(of_fold, in_axes=(0, None))(jax.random.split(own, shape), of(name, batch))
        return TrainState.create(*(
            {name: getattr(one, field) for name, one in made.items()}
            for field in ("params", "opt_state", "target_params")
        ))

    def step(state: TrainState, data: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch

        def of_fold(
            params: PyTree, opt_state: PyTree, target_params: PyTree, rows: PyTree, key: Key
        ) -> tuple[dict[str, TrainState], Metrics]:
            row_key, start_key, *keys = jax.random.split(key, 2 + len(agents))
            places = sample_rows(rows["steps"], row_key, config.batch_size, rows["num_steps"])
            starts = sample_rows(rows["starts"], start_key, config.batch_size, rows["num_starts"])
            drawn, after, metrics = shard_batch(batch_of(data, places, starts)), {}, {}
            for (name, agent), own in zip(agents.items(), keys, strict=True):

                def update(
                    params: PyTree, opt_state: PyTree, target_params: PyTree, batch: Any, key: Key, agent: Any = agent
                ) -> tuple[TrainState, Metrics]:
                    new, info = agent.update(TrainState(state.step, params, target_params, opt_state, {}), batch, key)
                    return new.replace(step=None), info

                after[name], info = jax.vmap(update, in_axes=(0, 0, 0, of(name, axes), 0))(
                    params[name], opt_state[name], target_params[name], of(name, drawn), jax.random.split(own, width)
                )
                metrics |= {f"{name}/{metric}": x for metric, x in info.items()}
            return after, metrics

        rows = {name: data[name] for name in ("steps", "num_steps", "starts", "num_starts")}
        after, metrics = jax.vmap(of_fold)(
            state.params, state.opt_state, state.target_params, rows, jax.random.split(key, config.folds)
        )
        new = {field: {name: getattr(one, field) for name, one in after.items()}
               for field in ("params", "opt_state", "target_params")}
        return state.replace(**new), jax.tree.map(jnp.mean, metrics)

    @jax.jit
    def of_chunk(params: PyTree, data: PyTree, chosen: jax.Array) -> dict[str, jax.Array]:
        made, ahead = jax.tree.map(lambda x: x[chosen], (data["episodes"], data["policies"]))
        shown = seen(data, made.observations, jnp.arange(steps + 1))
        here = shown[:, :-1], made.actions

        def of_candidate(params: PyTree, policy: Any) -> dict[str, jax.Array]:
            if actions is not None:
                v = agents["fqe"].value(params["fqe"], shown, policy, jax.random.key(0))
            else:  # the mean over all draws
                wide = jnp.broadcast_to(shown[:, :, None], (*policy.actions.shape[:-1], shown.shape[-1]))
                v = jnp.mean(agents["fqe"].q(params["fqe"], wide, policy.actions), -1)
            return {
                "q": agents["fqe"].q(params["fqe"], *here), "v": v[:, :-1],
                "next_v": v[:, 1:] * lives(made.alive, jnp.arange(steps)),
                "state_weights": agents["sm"].weights(params["sm"], *here),
                "state_action_weights": agents["sam"].weights(params["sam"], *here),
            }

        return jax.vmap(of_candidate, in_axes=(0, 2))(params, ahead)

    def evaluate(state: TrainState, data: PyTree, key: Key) -> Evaluation:
        del key
        params, data = gather(state.params), jax.device_put(gather(data))
        found: dict[str, np.ndarray] = {}
        for fold in range(config.folds):
            own = jax.device_put(jax.tree.map(lambda x: x[0, fold], params))
            rows = np.flatnonzero(np.asarray(data["folds"]) == fold)
            for part in np.split(rows, range(CHUNK, len(rows), CHUNK)):
                values = jax.device_get(of_chunk(own, data, np.resize(part, CHUNK)))
                for name, x in values.items():
                    whole = found.setdefault(name, np.zeros((width, count, steps), np.float32))
                    whole[:, part] = x[:, : len(part)]
        return judge(data_of(jax.device_get(data), found, config.folds > 1))

    return Program(init, step, evaluate, resident)


def data_of(data: Mapping[str, Any], found: Mapping[str, np.ndarray], crossfit: bool) -> Logged:
    """The episodes of a run, and what its models say of them. Learnt ratios say nothing of what follows an end: 1."""
    mask = np.asarray(data["episodes"].mask, np.float64)
    found = {name: np.where(mask > 0, x, 1.0) if name.endswith("weights") else x for name, x in found.items()}
    return logged(
        data["episodes"].rewards, np.moveaxis(data["log_ratios"], -1, 0), mask=mask, crossfit=crossfit, **found
    )


# The study


def judged(discount: float, truth: np.ndarray, data: Logged) -> Evaluation:
    """Outcomes [1, P]: "estimate/NAME", "low/NAME" and "high/NAME" of 95% intervals, "truth"; "behaviour" [1, 1]."""
    outcomes = {"truth": truth[1:], "behaviour": truth[:1]}
    for name in available(data):
        made = terms(name, data, discount)
        low, high = student_t(made)
        outcomes |= {f"estimate/{name}": value(made), f"low/{name}": low, f"high/{name}": high}
    return Evaluation(
        {CORRELATION.name: rank_correlation(outcomes["estimate/sndr"], truth[1:])},
        {name: np.broadcast_to(x, len(truth) - 1 if name != "behaviour" else 1)[None] for name, x in outcomes.items()},
    )


def off_policy_evaluation(config: ConfigDict) -> Experiment:
    """What a configuration with the task "control" says: each seed logs its own episodes, and the truth is known."""
    problem = problem_of(config)
    policies = [problem.behaviour, *problem.candidates]
    truth = np.array([true_value(problem, candidate, config) for candidate in policies])

    def of_seed(seed: int) -> dict[str, Any]:
        made = logged_episodes(problem, config.trajectories, seed)
        padded = pad_episodes(made, config.horizon)
        log_probs = [
            candidate.log_prob(padded.observations[:, :-1], padded.actions, Kernel(**config.kernel))
            for candidate in problem.candidates
        ]
        return prepared(config, padded, problem.candidates, log_probs)

    residents = [of_seed(config.seed + place) for place in range(config.num_seeds)]
    judge = functools.partial(judged, config.discount, truth)
    return Experiment(
        lambda config: side_by_side([learning_program(config, x, judge) for x in residents], config.seed),
        {"environment": config.environment}, CORRELATION,
        lambda result, workdir: {"truth": truth[1:].tolist(), "behaviour": float(truth[0])},
    )
