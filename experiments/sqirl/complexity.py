"""How many samples until an MDP is solved? Of PPO or DQN, or of SQIRL or GORP with one k and ever more episodes.

    python -m experiments.sqirl.complexity --config=configs/sqirl.py:sqirl/freeway_10_fs30 --workdir=runs/complexity
    python -m experiments.reproduce --paper=sqirl --preset=quick --jobs=2     all agents and MDPs

A seed has solved the MDP at the first evaluation whose greedy policy has at least 99% of what the best policy earns
above the random one, in exact expectation; its sample complexity is the number of environment steps by then. PPO and
DQN are evaluated every `config.loop.eval_every` steps of theirs, SQIRL after every timestep. SQIRL's number of episodes
starts at `config.search.first` and is multiplied by `config.search.growth` until every seed has solved the MDP or
`config.samples` are spent; a seed's complexity is that of the least number of episodes that solves it, the samples of
the smaller ones left out, as in the paper. GORP is searched alike; it is for deterministic MDPs, --config.sticky=0. A
seed that solves nothing counts with `config.samples`.

Writes complexity.npz into --workdir (samples and solved, by seed) and prints one JSON object as the last line on
standard output: samples, what was solved, and the exact figures of the MDP.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.declaration import Evaluations
from experiments.sqirl.problem import Problem, load_problem
from experiments.sqirl.train import Experiment, make_experiment, settle
from rl_jax.core import provenance
from rl_jax.core.fused import unrecorded_runs
from rl_jax.envs.tabular import TabularMDP
from rl_jax.evaluation.gorp import gorp, gorp_bound
from rl_jax.evaluation.planning import Analysis, analyze

SHARE = 0.99  # of the best return above the random one's


def threshold(analysis: Analysis) -> float:
    """The return from which on an MDP counts as solved."""
    return analysis.random_return + SHARE * (analysis.best_return - analysis.random_return)


def samples_to_solve(config: ConfigDict, experiment: Experiment, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples of each seed at its first evaluation of `least` or more, [S], infinite where there is none; and at its
    first evaluation at all."""
    chunk = 1 if config.agent.name == "sqirl" else min(config.loop.eval_every, config.num_steps)
    state, advance = unrecorded_runs(experiment.program, chunk, seed=config.seed, num_seeds=config.num_seeds)
    found, first, key = np.full(config.num_seeds, np.inf), None, jax.random.key(config.seed)
    for _ in range(config.num_steps // chunk):
        state, _ = advance(state)
        samples = experiment.samples(state)
        first = samples if first is None else first
        solves = (experiment.returns(state, key) >= least) & (samples <= config.samples)
        found = np.where(np.isinf(found) & solves, samples, found)
        if np.isfinite(found).all() or (samples >= config.samples).all():
            break
    return found, first


def search(config: ConfigDict, problem: Problem, least: float) -> np.ndarray:
    """The same of SQIRL, at the least number of episodes that solves it for each seed."""

    def attempt(number: int) -> tuple[np.ndarray, bool]:
        own = config.copy_and_resolve_references()
        own.agent.num_episodes = number
        own = settle(own, problem)
        found, first = samples_to_solve(own, make_experiment(own, problem), least)
        return found, bool((first >= config.samples).all())  # one timestep takes all there is

    return least_number(config, attempt)


def search_gorp(config: ConfigDict, mdp: TabularMDP, least: float) -> np.ndarray:
    """The same of GORP."""
    if config.sticky:
        raise ValueError(f"config.sticky is {config.sticky}: GORP fixes actions ahead, give 0")
    key = jax.random.key(config.seed)

    def attempt(number: int) -> tuple[np.ndarray, bool]:
        keys = jax.random.split(jax.random.fold_in(key, number), config.num_seeds)
        done = gorp(mdp, keys, k=config.agent.k, episodes=number)
        solves = (done.returns >= least) & (done.steps <= config.samples)
        return np.where(solves, done.steps, np.inf), bool((done.steps >= config.samples).all())

    return least_number(config, attempt)


def least_number(config: ConfigDict, attempt: Callable[[int], tuple[np.ndarray, bool]]) -> np.ndarray:
    """Samples of each seed, [S], at the least number of episodes that solves the MDP for it; infinite for none.

    Args:
      attempt: number of episodes -> (samples of each seed with it, infinite where it solves nothing; whether more are
        not to be had).
    """
    found, number, spent = np.full(config.num_seeds, np.inf), config.search.first, False
    while np.isinf(found).any() and not spent:
        now, spent = attempt(number)
        found = np.where(np.isinf(found), now, found)
        logging.info("%d episodes: %s samples", number, now.tolist())
        number *= config.search.growth
    return found


def read(workdir: Path, summary: Mapping[str, Any]) -> Evaluations:
    """A finished run for `experiments.reproduce`: the score is log10 of the samples, of a seed that solved nothing of
    all that it had; the raw outcome is whether the MDP was solved, 1 or 0. The reference is log10 of T^2 A^H with H
    the stochastic effective horizon, or of the bound on GORP's samples."""
    with np.load(workdir / "complexity.npz") as file:
        samples, solved = file["samples"], file["solved"]
    by_seed = lambda x: np.asarray(x, np.float64)[None, :, None]  # noqa: E731
    return Evaluations(
        np.array([summary["step"]]), by_seed(np.log10(samples)), by_seed(solved), summary["log10_bound"]
    )


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    if config.search.growth < 2 or config.search.first < 1:
        raise ValueError("config.search: growth must be at least 2 and first at least 1")
    workdir.mkdir(parents=True, exist_ok=True)
    provenance.check_same_run(workdir, config)
    problem = load_problem(config)
    mdp = problem.data
    if not isinstance(mdp, TabularMDP):
        raise ValueError("config.atari.rom: what solves a game is known of its table alone, give config.mdp")
    analysis = analyze(mdp, sticky=config.sticky)
    least, horizon = threshold(analysis), analysis.stochastic_effective_horizon
    bound = 2.0 * math.log10(mdp.horizon) + horizon * math.log10(mdp.num_actions)
    provenance.record(workdir, config, 0, problem.inputs)
    if config.agent.name == "gorp":
        samples = search_gorp(config, mdp, least)
        bound = math.log10(gorp_bound(mdp, max_k=config.agent.k).steps.get(config.agent.k, math.inf))
    elif config.agent.name == "sqirl":
        samples = search(config, problem, least)
    else:
        settled = settle(config, problem)
        samples, _ = samples_to_solve(settled, make_experiment(settled, problem), least)
    solved = np.isfinite(samples)
    samples = np.where(solved, samples, config.samples)
    np.savez(workdir / "complexity.npz", samples=samples, solved=solved)
    return {
        "paper": config.paper, "preset": config.preset, "step": config.samples, "workdir": str(workdir),
        "samples": samples.tolist(), "solved": solved.tolist(), "min_k": analysis.min_k,
        "effective_planning_window": analysis.effective_planning_window, "best_return": analysis.best_return,
        "random_return": analysis.random_return, "stochastic_effective_horizon": horizon, "log10_bound": bound,
    }


if __name__ == "__main__":
    run_experiment(main, "configs/sqirl.py:quick")
