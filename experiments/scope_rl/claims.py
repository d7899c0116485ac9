"""What SCOPE-RL runs and claims; `python -m experiments.reproduce --paper=scope_rl` reads it.

Presets:
  quick   the tabular study with exact values and visitations, with Q too large by 1, and with 200 trajectories in the
          place of 2,000: 3 times 600 repetitions.
  control   fitted Q-evaluation and learnt ratios on 1,000 episodes of CartPole and Acrobot, 6 candidates, 3 seeds.
  learned   the same with candidates that learn offline first, and on Hopper with embedded ones.
  paper, paper-control   all of it at the authors' sizes.
  tiny, tiny-control   seconds: what the tests run.

What was asked of each claim before its rule and setting were fixed, by pilots on seeds from 100 on:

- Tabular: values and visitations are exact, so the data can show everything but the tails of importance weights. With
  policies that are a half uniform TIS's RMSE varies by 40% from one 300 repetitions to the next, as the error of few
  trajectories with large weights does; with 70%, the setting, by 5%. That its error grows with 1 / sqrt(n) (3.16 from
  2,000 to 200) could then be seen: 3.2 to 3.6. RMSE(DR) is a fifth of PDIS's and that a third of TIS's; the bias of DR
  with a wrong Q has a standard error of 0.004 at 300 repetitions; medians of CD-SNTIS were 2% off.
- Control: the rules were given. CartPole on seed 100, at 1,000 of 3,000 updates: DM's RMSE is 5.8 from 12 at
  500, SNDR's 0.2, both with a rho of 1. Of Acrobot only the true values and the weights were looked at: of 300 episodes
  those of most candidates are worth fewer than 5, so DM alone can rank them. Several estimators may be the best by one
  criterion. That the two sets are not the same is the first claim; that none is in both, which is more, was added when
  the first of the four runs was known, where it does not hold. Estimators with ratios of states and DRL came later; the
  rules are the same ones over more estimators.
- Learnt candidates and Hopper have the same rules. Of three learners in CartPole the returns were looked at on seed 100
  (26 to 130, where the policy that logs has 25), and Hopper's snapshots are worth 37 to 83: far enough apart to be
  ranked. With 300 episodes of Hopper and 600 updates rho was 0.9 for SNDR, 0.4 for DM and below 0 for TIS and PDIS,
  whose weights vanish. Acrobot had no such pilot.
"""

from collections.abc import Callable, Sequence

import numpy as np

from configs.scope_rl import CONTROL, LEARNERS, RANDOM
from experiments.scope_rl import figures
from rl_jax.control.tabular_evaluation import RMSE
from rl_jax.control.tasks import RETURN
from rl_jax.core.experiment import Metric
from rl_jax.evaluation.off_policy.estimators import ESTIMATORS
from rl_jax.evaluation.off_policy.selection import rank_correlation, regret, sharpe_ratio
from rl_jax.reports.claims import any_of, better_by, passes_in_n_of_m, reaches, within
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid
from rl_jax.reports.measures import Curve, Evaluations, MissingScores, derived, log10, ratio

LABELS = {
    "exact": "exact Q, 2,000 trajectories", "biased": "Q + 1, 2,000 trajectories", "few": "exact Q, 200",
    "cartpole": "CartPole", "cartpole-random": "CartPole, random data", "acrobot": "Acrobot",
    "acrobot-random": "Acrobot, random data", "cartpole-learned": "CartPole, learnt candidates",
    "acrobot-learned": "Acrobot, learnt candidates", "hopper": "Hopper", "bc": "BC", "bc_best": "BC, best 30%",
    "cql_weak": "CQL, 0.1", "cql": "CQL, 1", "cql_strong": "CQL, 5", "cql_sharp": "CQL, 1, sharp",
}
TRAIN = "experiments.scope_rl.train"
STUDIES = ("exact", "biased", "few")
PORTFOLIO = 4  # k of SharpeRatio@k
# The card's four trials, and three more whose candidates were not written down for them.
WRITTEN = ("cartpole", "cartpole-random", "acrobot", "acrobot-random")
OTHERS = ("cartpole-learned", "acrobot-learned", "hopper")
TASK = "control"


def label(name: str) -> str:
    return ESTIMATORS[name].label if name in ESTIMATORS else name.upper().replace("_", "-")


def rmse(name: str) -> Curve:
    metric = Metric(f"eval/thousandths/{name}", f"RMSE of {label(name)} in thousandths", "lower")
    return derived(metric, lambda x: 1000.0 * x, f"rmse/{name}")


def ratio_of(one: str, other: str, kind: str = "rmse", words: str = "RMSE"):
    metric = Metric("eval/ratio", f"{words} of {label(one)} over {label(other)}'s", "lower")
    return ratio(Metric(f"eval/{kind}/{one}", ""), Metric(f"eval/{kind}/{other}", ""), metric)


def absolute(name: str, words: str) -> Metric:
    return derived(Metric(f"eval/absolute/{name}", words, "lower"), np.abs, name)


def tabular(task: str, preset: str, common: dict) -> Preset:
    runs = grid(STUDIES, (task,), module=TRAIN, config=preset, common=common)
    tis = log10(Metric("eval/rmse/tis", "RMSE of TIS", "lower"))
    return Preset(
        runs,
        (
            reaches("exact", 1.0, measure=ratio_of("dr", "pdis"), name="dr_below_pdis",
                    text="DR has a smaller error than PDIS"),
            reaches("exact", 1.0, measure=ratio_of("pdis", "tis"), name="pdis_below_tis",
                    text="PDIS has a smaller error than TIS"),
            reaches("biased", 0.1, by="every", measure=absolute("bias/dr", "absolute bias of DR"), name="dr_unbiased",
                    text="With Q too large by 1 DR has no bias to speak of ..."),
            within("biased", 0.9, 1.1, measure=absolute("bias/dm", "absolute bias of DM"), name="dm_biased",
                   text="... and DM the whole one"),
            reaches("exact", 1.0, measure=ratio_of("snpdis", "pdis", "std", "deviation"), name="snpdis_varies_less",
                    text="SNPDIS varies less than PDIS"),
            better_by("exact", "few", float(np.log10(3.0)), by="mean", measure=tis, name="tis_grows",
                      text="TIS's error grows at least threefold from 2,000 to 200 trajectories"),
            reaches("exact", 0.05, by="every", name="median_found",
                    measure=Metric("eval/median_error/cd_sntis", "relative error of CD-SNTIS's median", "lower"),
                    text="The median of the returns is found within 5%"),
        ),
        measure=rmse("dr"),
        beside=tuple(rmse(name) for name in ("dm", "tis", "pdis", "snpdis", "sam_is", "sam_dr")),
        figures={"errors.png": figures.errors},
    )


# Control


def of_estimator(name: str, words: str, better: str, metric: Callable[[np.ndarray, np.ndarray, float], float]) -> Curve:
    """A metric of one estimator's choice among the candidates, [T, S]; an undefined one counts as 0."""

    def of(evaluations: Evaluations) -> np.ndarray:
        if f"estimate/{name}" not in evaluations.outcomes:
            raise MissingScores(f"a run has no estimate of {name}")
        outcomes = evaluations.outcomes
        found = [
            [metric(estimates, truth, behaviour[0]) for estimates, truth, behaviour in zip(*rows, strict=True)]
            for rows in zip(outcomes[f"estimate/{name}"], outcomes["truth"], outcomes["behaviour"], strict=True)
        ]
        return np.nan_to_num(np.array(found, np.float64))

    return Curve(Metric(f"eval/{words}/{name}", f"{words} of {label(name)}", better), of)


def rho(name: str) -> Curve:
    return of_estimator(name, "Spearman's rho", "higher", lambda x, truth, _: rank_correlation(x, truth))


def chosen(evaluations: Evaluations) -> tuple[np.ndarray, np.ndarray]:
    """Which of a run's estimators have the least regret, and which the largest SharpeRatio@k, [estimators, T, S] bool
    each."""
    names = [name for name in ESTIMATORS if f"estimate/{name}" in evaluations.outcomes]

    def of_all(metric: Callable[[np.ndarray, np.ndarray, float], float]) -> np.ndarray:
        return np.stack([of_estimator(name, "", "higher", metric).of(evaluations) for name in names])

    lost = of_all(lambda x, truth, _: regret(x, truth))
    ratios = of_all(lambda x, truth, one: sharpe_ratio(x, truth, one, min(PORTFOLIO, len(truth))))
    return np.isclose(lost, lost.min(0)), np.isclose(ratios, ratios.max(0))


def differs(evaluations: Evaluations) -> np.ndarray:
    least, most = chosen(evaluations)
    return (least != most).any(0).astype(float)


def disagrees(evaluations: Evaluations) -> np.ndarray:
    least, most = chosen(evaluations)
    return (~(least & most).any(0)).astype(float)


DIFFERS = Curve(Metric("eval/differs", "share of trials with an estimator best by one only"), differs)
DISAGREES = Curve(Metric("eval/disagrees", "share of trials in which no estimator is best by both"), disagrees)


def learners(tasks: Sequence[str]) -> tuple[Run, ...]:
    """The runs that learn candidates, as the tasks <task>-candidates."""
    called = {f"{task}-candidates": task for task in tasks}
    return grid(tuple(LEARNERS), tuple(called), module=TRAIN, config="configs/scope_rl.py:candidate/{task}-{method}",
                presets=called)


def control(config: str, tasks: Sequence[str]) -> Preset:
    """A method is a task with its data, since one run judges all estimators."""
    made = tuple(task for task in RANDOM if f"{task}-learned" in tasks)
    runs = learners(made) + tuple(
        run._replace(needs={
            f"learned.{name}": f"{name}-{run.method.removesuffix('-learned')}-candidates" for name in LEARNERS
        }) if run.method.endswith("-learned") else run
        for run in grid(tasks, (TASK,), module=TRAIN, config=config)
    )

    def in_one(chosen: Sequence[str], measure: Curve, name: str, text: str) -> Claim:
        rows = [reaches(one, 0.5, by="mean", measure=measure, tasks=(TASK,), text="{" + one + "}") for one in chosen]
        return passes_in_n_of_m(1, rows, name=name, text=text)

    claims = []
    for kind, words in ((WRITTEN, ""), (OTHERS, ", with candidates that were not written down")):
        if chosen := [task for task in tasks if task in kind]:
            suffix = "_others" if kind is OTHERS else ""
            claims += [
                in_one(chosen, DIFFERS, f"criteria_differ{suffix}",
                       f"Regret@1 and SharpeRatio@4 do not choose the same estimators{words}"),
                in_one(chosen, DISAGREES, f"criteria_disagree{suffix}",
                       f"No estimator is the best by both Regret@1 and SharpeRatio@4{words}"),
            ]
    claims += [
        any_of([reaches(task, 0.5, by="mean", measure=rho(name), tasks=(TASK,)) for name in ("dm", "sndr")],
               name=f"{task}_ranks", text=f"{{{task}}}: DM or SNDR ranks with a rho of at least 0.5")
        for task in tasks
    ]
    return Preset(
        runs, tuple(claims), measure={TASK: rho("sndr")} | {f"{task}-candidates": RETURN for task in made},
        beside=tuple(rho(name) for name in ("dm", "pdis", "dr", "snpdis", "sm_is", "sam_is", "drl")),
        figures={"estimates.png": figures.estimates, "selection.png": figures.selection},
    )


def tiny() -> Preset:
    runs = grid(("exact", "biased"), ("random MDP",), module=TRAIN,
                config="configs/scope_rl.py:tiny", by_method={"biased": {"q_error": 1.0}})
    return Preset(
        runs, (better_by("exact", "biased", measure=rmse("dm"), text="{exact} is better for DM"),),
        figures={"errors.png": figures.errors},
    )


PAPER = Paper(
    title="SCOPE-RL",
    labels=LABELS,
    baseline="biased",
    measure=RMSE,
    presets={
        "quick": lambda: tabular("random MDP", "configs/scope_rl.py:tabular/{method}", {}),
        "paper": lambda: tabular("random MDP", "configs/scope_rl.py:tabular/{method}", {"num_seeds": 10}),
        "control": lambda: control("configs/scope_rl.py:control/{method}", WRITTEN),
        "learned": lambda: control("configs/scope_rl.py:control/{method}", OTHERS),
        "paper-control": lambda: control("configs/scope_rl.py:paper/{method}", tuple(CONTROL)),
        "tiny": tiny,
        "tiny-control": lambda: control("configs/scope_rl.py:tiny-control", ("cartpole",)),
    },
    notes=(
        "Behaviour policies of CartPole and Acrobot are softmax policies with linear scores that were written down, a "
        "stand-in for the authors' learnt ones; so are the candidates where they are not said to be learnt.",
        "Intervals over 3 seeds are too narrow.",
    ),
)
