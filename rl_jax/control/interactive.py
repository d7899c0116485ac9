"""Interactive imitation: an expert beside the learner takes over or labels, and no reward of the task is seen.

One experiment for RLIF and for what it is held against: DAgger and HG-DAgger, which clone what the expert says, and
cloning of its first episodes alone. Another one fits the reference Q that a value-based expert decides by.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.fqe import PolicyTransitions, fqe
from rl_jax.control.agents import make_agent
from rl_jax.control.online import on_task_actions
from rl_jax.control.tasks import ActionBox, Task, action_box, headline_of, judge_in, references_of
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import evaluated
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.core.runtime import from_main_process
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.data.experts.experts import EXPERT_DIR, Blended, expert_episodes, load_expert, mode_returns
from rl_jax.data.replay import ReplayBuffer
from rl_jax.data.scores import score_between
from rl_jax.data.transitions import Collected, Transitions, mix_with_prior, sample, sample_rows
from rl_jax.envs.interventions import InterventionCollector, Rule, Store
from rl_jax.networks.distributions import Deterministic
from rl_jax.networks.model_file import load_model, save_model
from rl_jax.networks.values import Critic

REFERENCE = "reference.npz"  # in the folder of the run that fitted it
ERROR = Metric("eval/error", "error of Q", "lower", "%")
LEVEL_BLOCKS = 6  # of 16 episodes, by which the expert's own level is measured
FIRST_SEEDS = 1_000_000  # of episodes that are made here: those of runs begin elsewhere


def interactive_experiment(config: ConfigDict) -> Experiment:
    """The agent `config.agent` learns in the task `config.env_id` beside the expert `config.expert`.

    A step is one update, of `config.agent.utd` minibatches where the agent has them. `config.prior.episodes` episodes
    of the expert are resident, with rewards 0; the collector's steps are the feed. Evaluations also have, as outcomes,
    what was asked of the environment and of the expert until then.

    Raises:
      ValueError: a part of the configuration is unknown, or does not fit the task.
    """
    expert, rule = load_expert(config.expert.name), config.intervention
    pool = Task(config.env_id).open(config.num_seeds, savable=True)
    box = action_box(pool)
    prior = shown(expert_episodes(
        config.env_id, expert, config.prior.episodes, FIRST_SEEDS + config.prior.seed, config.expert.stochastic
    ))
    sizes = *pool.observation_space.shape, *pool.action_space.shape
    reference, value, threshold = (), None, rule.alpha
    if rule.kind == "value":
        reference, value = load_reference(config, box, *sizes)
        if rule.threshold == "absolute":
            threshold = rule.delta * float(np.diff(reference["range"])[0])
    utd = config.agent.get("utd", 1)
    steps = InterventionCollector(
        pool, ReplayBuffer(config.num_seeds, config.replay.capacity, *sizes, marks_expert=True), expert=expert,
        rule=Rule(rule.kind, rule.steps, rule.beta, rule.probability, rule.threshold == "relative", threshold),
        store=Store(**config.store), is_stochastic=config.expert.stochastic,
        compared=load_expert(rule.compared) if rule.compared else None, value=value, value_params=reference,
        seed=config.seed, batch_size=config.batch_size * utd, env_steps=config.collect.env_steps,
        first=config.collect.first, every=config.collect.every, for_mixing=True,
    )
    judge = judge_in(Task(config.env_id), config)

    def program(config: ConfigDict) -> Program:
        agent = make_agent(config, sizes[1])

        def init(key: Key, prior: Transitions) -> TrainState:
            return agent.init(key, sample(prior, key, utd))

        def step(state: TrainState, prior: Transitions, batch: Collected, key: Key) -> tuple[TrainState, Metrics]:
            mix_key, update_key = jax.random.split(key)
            own = batch.transitions
            own = batch.replace(transitions=own.replace(actions=box.to_agent(own.actions)))
            mixed = mix_with_prior(prior, own, mix_key, config.replay.offline_fraction)
            state, metrics = agent.update(state, shard_batch(mixed), update_key)
            return state, metrics | {"batch/expert_share": jnp.mean(mixed.expert)}

        act = on_task_actions(agent, box)
        judged = judge(act, None)

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            counts = from_main_process(lambda: {name: x.tolist() for name, x in steps.counts.items()})
            asked = {name: np.array(x, np.float64)[:, None] for name, x in counts.items()}
            return Evaluation(outcomes={**judged(state, resident, key).outcomes, **asked})

        return Program(init, step, evaluate, prior, steps.feed(act))

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        del result, workdir
        returns = mode_returns(config.env_id, expert, LEVEL_BLOCKS, FIRST_SEEDS)
        references = references_of(config.env_id, config)
        levels = returns if references is None else score_between(references, returns)
        return {"expert_return": float(returns.mean()), "expert_level": float(levels.mean())}

    inputs = {"env_id": config.env_id, "expert": config.expert.name, "reference": rule.reference}
    return Experiment(program, inputs, headline_of(config.env_id, config), finish)


def shown(episodes: Episodes) -> Transitions:
    """An expert's steps as the learner sees them: rewards 0."""
    transitions = dataclasses.replace(episodes, rewards=np.zeros_like(episodes.rewards)).to_transitions()
    return transitions.replace(expert=np.ones(len(transitions), np.float32))


# The reference Q


def load_reference(config: ConfigDict, box: ActionBox, observation: int, action: int) -> tuple[PyTree, Any]:
    """The reference Q that `config.intervention.reference` names, a run's folder or one that is embedded: what
    `q(params, observations, actions of the task)` takes, with "range", [2], of its values; and q.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is of another task or another network.
    """
    name = config.intervention.reference
    folder = Path(name).expanduser()
    path = folder / REFERENCE if name and folder.is_dir() else EXPERT_DIR / f"q_{name}.npz"
    if not path.exists():
        known = ", ".join(sorted(found.stem.removeprefix("q_") for found in EXPERT_DIR.glob("q_*.npz")))
        raise FileNotFoundError(
            f"config.intervention.reference={name!r} is neither the folder of a finished run of configs/rlif.py:"
            f"reference/<task> nor embedded; there are {known}"
        )
    critic = Critic(config.intervention.hidden_dims, 1)

    def init(key: Key) -> PyTree:
        shapes = jnp.zeros((1, observation)), jnp.zeros((1, action))
        return {"critic": critic.init(key, *shapes), "range": jnp.zeros(2)}

    def q(params: PyTree, observations: jax.Array, actions: jax.Array) -> jax.Array:
        return critic.apply(params["critic"], observations, box.to_agent(actions))[0]

    return load_model(path, "reference", config.env_id, init), q


def reference_experiment(config: ConfigDict) -> Experiment:
    """Q of the mode of `config.expert`, by fitted Q-evaluation on its own episodes and on ones with random actions.

    An evaluation compares Q(s, pi(s)) with the discounted rewards that followed in episodes it was not fitted on, in
    the first half of each, after which little is missing; the outcome is the error in percent of the range of Q. The
    finished run leaves REFERENCE in its folder.
    """
    expert, gamma = load_expert(config.expert.name), config.agent.discount
    seed = FIRST_SEEDS + config.prior.seed
    made = concatenate_episodes([
        expert_episodes(config.env_id, Blended(expert, share), config.prior.episodes, seed + i)
        for i, share in enumerate(config.prior.shares)
    ])
    policy = Deterministic(expert.act(made.next_observations, None))
    resident = PolicyTransitions(made.to_transitions(), policy)
    held_out = expert_episodes(config.env_id, expert, config.eval_episodes, seed + len(config.prior.shares), False)
    early = np.concatenate([start + np.arange(n // 2) for start, n in zip(held_out.starts, held_out.lengths)])
    observations, actions = held_out.observations[early], held_out.actions[early]
    followed = held_out.returns_to_go(gamma)[early]

    def program(config: ConfigDict) -> Program:
        agent = fqe(config.agent)

        def step(
            state: TrainState, resident: PolicyTransitions, batch: None, key: Key
        ) -> tuple[TrainState, Metrics]:
            batch_key, update_key = jax.random.split(key)
            drawn = sample_rows(resident, batch_key, config.batch_size, len(resident.transitions))
            return agent.update(state, shard_batch(drawn), update_key)

        @evaluated
        def followed_q(params: PyTree) -> jax.Array:
            return agent.q(params, observations, actions)

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            error = np.abs(followed_q(state.params) - followed) / np.ptp(followed)
            return Evaluation(outcomes={"error": 100.0 * error})

        def init(key: Key, resident: PolicyTransitions) -> TrainState:
            return agent.init(key, sample_rows(resident, key, 1, len(resident.transitions)))

        return Program(init, step, evaluate, resident)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        own = first_run(result.state.params["critic"])
        q = np.asarray(Critic(config.agent.hidden_dims, 1).apply(own, made.observations, made.actions)[0])
        ends = np.quantile(q, [0.01, 0.99])
        save_model(workdir / REFERENCE, {"critic": own, "range": ends}, kind="reference", domain=config.env_id)
        return {"q_range": ends.tolist(), "reference": str(workdir / REFERENCE)}

    return Experiment(program, {"env_id": config.env_id, "expert": config.expert.name}, ERROR, finish)
