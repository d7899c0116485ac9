"""What SQIRL runs and claims; `python -m experiments.reproduce --paper=sqirl` reads it.

Presets:
  quick   20 MDPs with sticky actions; PPO, DQN and SQIRL with k = 1 to 3; 3 seeds; 300,000 samples at most; SQIRL's
          number of episodes in steps of a factor 4 from 4 on.
  checks  minutes: GORP against the bound on its samples in three deterministic MDPs, 20 seeds; and SQIRL in an MDP
          that is made for k = 2.
  screens an hour: three MDPs, seen as screens; 100,000 samples at most.
  paper   all MDPs that are here, k = 1 to 3, 5 seeds, 5,000,000 samples, the number of episodes doubled from 1 on.
  tiny    one MDP for seconds: what the tests run.

The MDPs and the rules of the claims were fixed before any number of theirs was seen. A score is log10 of the samples
until an MDP is solved (experiments/sqirl/complexity.py), so small is good; SQIRL's is the best of its k, as in the
paper.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from configs.sqirl import MDPS
from experiments.declaration import Claim, Finding, Paper, Preset, Run, Scores
from experiments.sqirl import complexity
from rl_jax.evaluation.figures import plot_scatter
from rl_jax.evaluation.statistics import bootstrap_interval

SQIRL = ("sqirl_k1", "sqirl_k2", "sqirl_k3")
LABELS = {"ppo": "PPO", "dqn": "DQN", **{name: f"SQIRL, k = {name[-1]}" for name in SQIRL}, "gorp_k1": "GORP, k = 1"}
QUICK = (
    "freeway_10_fs30", "maze_easy_l0_30_fs1", "MiniGrid-KeyCorridorS3R1-v0", "MiniGrid-Empty-16x16-DistanceShaped-v0",
    "empty_5x5", "empty_8x8", "empty_8x8_distance", "lava_gap_5", "lava_gap_7", "simple_crossing_9",
    "simple_crossing_9_distance", "door_key_5x5", "multi_room_2", "breakout_8_fs30",
    "asterix_5_fs30", "four_rooms_distance", "unlock", "lava_gap_7_lava", "multi_room_2_doors",
    "door_key_5x5_doors_pick_up",
)
SCREENS = ("freeway_10_fs30_framestack", "lava_gap_5", "empty_5x5")
GORP = ("freeway_10_fs30", "maze_easy_l0_30_fs1", "MiniGrid-KeyCorridorS3R1-v0")
RESAMPLES = 10_000


def _runs(
    methods: Sequence[str], mdps: Sequence[str], overrides: dict, dqn: dict, seen_as: str = ""
) -> tuple[Run, ...]:
    def run(method: str, mdp: str) -> Run:
        agent, _, k = method.partition("_k")
        own = {"agent.k": int(k)} if k else dqn if agent == "dqn" else {}
        return Run(
            method, mdp, "experiments.sqirl.complexity", f"configs/sqirl.py:{agent}{seen_as}/{mdp}", overrides | own
        )

    return tuple(run(method, mdp) for mdp in mdps for method in methods)


def best_of(scores: Scores, methods: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """log10 of the samples of the best method for each seed, and whether it solved the MDP: [S, MDPs] both.

    Raises:
      MissingScores: one of them has not run everywhere.
    """
    declared = [method for method in methods if method in scores.methods]
    samples = np.min([scores.final(method) for method in declared], 0)
    solved = np.max([_solved(scores, method) for method in declared], 0)
    return samples, solved > 0


def _solved(scores: Scores, method: str) -> np.ndarray:
    """1 where a seed solved an MDP, [S, MDPs]."""
    return np.stack([scores.evaluations(method, task).returns[-1].mean(1) for task in scores.tasks], 1)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Spearman's of two [MDPs], and its 95% bootstrap interval over MDPs."""
    rng = np.random.default_rng(0)
    resamples = rng.integers(0, len(x), (RESAMPLES, len(x)))
    # A resample in which all are equal has no correlation.
    drawn = [spearmanr(x[rows], y[rows]).statistic for rows in resamples if np.ptp(x[rows]) > 0 and np.ptp(y[rows]) > 0]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(spearmanr(x, y).statistic), (float(low), float(high))


def _correlates(one: Callable[[Scores], tuple], other: Callable[[Scores], tuple]) -> Callable[[Scores], Finding]:
    """Medians over seeds have a rank correlation above 0 over the MDPs that both solve with most seeds."""

    def check(scores: Scores) -> Finding:
        (x, x_solved), (y, y_solved) = one(scores), other(scores)
        both = (np.mean(x_solved, 0) > 0.5) & (np.mean(y_solved, 0) > 0.5)
        if both.sum() < 4:
            return Finding(0.0, (-1.0, 1.0), False, f"both solve {both.sum()} MDPs")
        value, interval = rank_correlation(np.median(x, 0)[both], np.median(y, 0)[both])
        return Finding(value, interval, interval[0] > 0.0, f"{both.sum()} MDPs")

    return check


def _sqirl(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    return best_of(scores, SQIRL)


def _of(method: str) -> Callable[[Scores], tuple[np.ndarray, np.ndarray]]:
    return lambda scores: best_of(scores, [method])


def _bound(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    bound = scores.reference()[None]
    return bound, np.isfinite(bound)


def _solves_as_many_as(method: str) -> Callable[[Scores], Finding]:
    """The share of MDPs that SQIRL solves with most seeds is at least `method`'s less 0.1."""

    def check(scores: Scores) -> Finding:
        ours, theirs = (np.mean(solved, 0) > 0.5 for _, solved in (_sqirl(scores), best_of(scores, [method])))
        gap = ours.astype(float) - theirs
        low, high = bootstrap_interval(gap)
        return Finding(float(gap.mean()), (float(low), float(high)), float(gap.mean()) >= -0.1,
                       f"{ours.sum()} against {theirs.sum()} of {len(gap)}")

    return check


def _solves_within(method: str, mdp: str, samples: int) -> Callable[[Scores], Finding]:
    """All seeds solve one MDP within a number of samples."""

    def check(scores: Scores) -> Finding:
        evaluations = scores.evaluations(method, mdp)
        log, solved = evaluations.scores[-1].mean(1), evaluations.returns[-1].min() > 0
        return Finding(float(log.max()), (float(log.min()), float(log.max())),
                       bool(solved and log.max() <= np.log10(samples)))

    return check


def _within_the_bound(mdp: str) -> Callable[[Scores], Finding]:
    """The median seed of GORP needs at most the samples of the bound."""

    def check(scores: Scores) -> Finding:
        evaluations = scores.evaluations("gorp_k1", mdp)
        log, solved = evaluations.scores[-1].mean(1), evaluations.returns[-1].mean(1) > 0
        low, high = np.percentile(log, [2.5, 97.5])
        passed = solved.mean() > 0.5 and np.median(log) <= evaluations.reference_score
        return Finding(float(np.median(log)), (float(low), float(high)), bool(passed),
                       f"{solved.sum()} of {len(log)} seeds solve it")

    return check


def _falls_into_the_trap(scores: Scores) -> Finding:
    """No seed solves it with k = 1, every one with k = 2."""
    first, second = (scores.evaluations(name, "trap").returns[-1].mean(1) for name in ("sqirl_k1", "sqirl_k2"))
    gap = second - first
    return Finding(float(gap.mean()), (float(gap.min()), float(gap.max())), not first.any() and bool(second.all()))


def _checks() -> Preset:
    # Exact regression: an untrained network takes the right way by luck.
    trap = {"num_seeds": 10, "samples": 300_000, "search.first": 1024, "agent.regressor": "table"}
    runs = (
        *(Run("gorp_k1", mdp, "experiments.sqirl.complexity", f"configs/sqirl.py:gorp/{mdp}") for mdp in GORP),
        *_runs(("sqirl_k1", "sqirl_k2"), ("trap",), trap, {}),
    )
    bounds = {"freeway_10_fs30": 11_100, "maze_easy_l0_30_fs1": 16_200, "MiniGrid-KeyCorridorS3R1-v0": 14_640_000}
    return Preset(runs, (
        *(Claim(f"gorp_within_bound_{mdp}", f"GORP needs no more than the bound of {steps:,} samples in {mdp}",
                "log10 of the median seed's samples", _within_the_bound(mdp), float(np.log10(steps)))
          for mdp, steps in bounds.items()),
        Claim("one_step_falls_into_the_trap", "Where min-k is 2, k = 1 fails and k = 2 does not",
              "share of seeds that solve trap, k = 2 less k = 1", _falls_into_the_trap),
    ))


def _claims() -> tuple[Claim, ...]:
    pairs = [
        ("sqirl", "SQIRL's samples", _sqirl, "ppo", "PPO's", _of("ppo")),
        ("sqirl", "SQIRL's samples", _sqirl, "dqn", "DQN's", _of("dqn")),
        ("bound", "The bound of the stochastic effective horizon", _bound, "sqirl", "SQIRL's samples", _sqirl),
        ("bound", "The bound of the stochastic effective horizon", _bound, "ppo", "PPO's samples", _of("ppo")),
        ("bound", "The bound of the stochastic effective horizon", _bound, "dqn", "DQN's samples", _of("dqn")),
    ]
    correlations = [
        Claim(f"{a}_correlates_with_{b}", f"{first} rank MDPs as {second} do",
              "Spearman's rho over MDPs that both solve above 0", _correlates(one, other))
        for a, first, one, b, second, other in pairs
    ]
    return (
        *correlations,
        Claim("sqirl_solves_as_many_as_dqn", "SQIRL solves about as many MDPs as DQN",
              "share solved, difference at least -0.1", _solves_as_many_as("dqn"), (77 - 78) / 155),
        Claim("freeway_within_100000", "SQIRL, k = 1, solves freeway_10_fs30 within 100,000 samples",
              "log10 of the worst seed's samples at most 5", _solves_within("sqirl_k1", "freeway_10_fs30", 100_000)),
        Claim("maze_within_20000", "SQIRL, k = 1, solves maze_easy_l0_30_fs1 within 20,000 samples",
              "log10 of the worst seed's samples at most 4.3",
              _solves_within("sqirl_k1", "maze_easy_l0_30_fs1", 20_000)),
    )


def draw(scores: Scores, outdir: Path) -> list[str]:
    """scatter.png: SQIRL's samples against PPO's and DQN's, one point an MDP; hollow where one does not solve it."""
    panels = {}
    x, x_solved = _sqirl(scores)
    for method in (name for name in scores.methods if name not in SQIRL):
        y, y_solved = best_of(scores, [method])
        both = (np.mean(x_solved, 0) > 0.5) & (np.mean(y_solved, 0) > 0.5)
        panels[LABELS[method]] = (10 ** np.median(x, 0), 10 ** np.median(y, 0), both)
    plot_scatter(
        panels, outdir / "scatter.png", names=scores.tasks, x_label="SQIRL's samples", y_label="samples"
    )
    return ["scatter.png"]


def _screens() -> Preset:
    runs = _runs(
        ("ppo", "dqn", "sqirl_k1", "sqirl_k2"), SCREENS, COMMON | {"samples": 100_000},
        {"agent.exploration_steps": 10_000}, "-screens",
    )
    return Preset(runs, tuple(
        Claim(f"sqirl_solves_{mdp}", f"SQIRL, k = 1, solves {mdp} from screens within 100,000 samples",
              "log10 of the worst seed's samples at most 5", _solves_within("sqirl_k1", mdp, 100_000))
        for mdp in SCREENS
    ))


def _tiny() -> Preset:
    overrides = {"num_seeds": 2, "samples": 2000, "agent.hidden_dims": (16, 16), "loop.eval_every": 1,
                 "search.growth": 64}
    runs = _runs(("sqirl_k1", "ppo"), ("empty_5x5",), overrides, {})
    return Preset(runs, (_claims()[0],))


COMMON = {"num_seeds": 3, "samples": 300_000, "search.growth": 4, "search.first": 4}
PAPER_SCALE = {"num_seeds": 5, "samples": 5_000_000}
PAPER_DQN = {"agent.learning_starts": 100_000, "agent.exploration_steps": 500_000}
PAPER = Paper(
    title="SQIRL",
    labels=LABELS,
    baseline="ppo",
    presets={
        "quick": lambda: Preset(
            _runs(("ppo", "dqn", *SQIRL), QUICK, COMMON, {"agent.exploration_steps": 30_000}), _claims()
        ),
        "checks": _checks,
        "screens": _screens,
        "paper": lambda: Preset(_runs(("ppo", "dqn", *SQIRL), MDPS, PAPER_SCALE, PAPER_DQN), _claims()),
        "tiny": _tiny,
    },
    read=complexity.read,
    score="log10 samples",
    reference="log10 of T^2 A^H",
    draw=draw,
    notes=(
        "A score is log10 of the environment steps until the greedy policy's exact return is 99% of the way from the "
        "random one to the best: small is good. A seed that did not solve an MDP counts with all samples it had. The "
        "reference is log10 of T^2 A^H, H the stochastic effective horizon.",
        "With few seeds a bootstrap interval is too narrow. Intervals of the claims are over MDPs.",
    ),
)
