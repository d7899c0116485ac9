"""What policies would earn, from a user's own logged data: every estimator that the data allow, with its interval.

    python -m experiments.scope_rl.evaluate --data=logged.npz --discount=0.99
    python -m experiments.scope_rl.evaluate --data=logged.npz --discount=0.99 --threshold=100 --cdf_figure=cdf.png
    python -m experiments.scope_rl.evaluate --data=logged.npz --estimators=snpdis,sndr --interval=student_t
    python -m experiments.scope_rl.evaluate --data=logged.npz --discount=0.99 --runs=runs/iql,runs/bc --workdir=runs/o

rl_jax/evaluation/off_policy/files.py says which fields the data have: rewards, ends of episodes, log-probs of the
behaviour policy and of each policy; Q, V and ratios of visitations where a model has them. Policies may also be folders
of this project's runs (--runs), which are asked for their log-probs; with --workdir models of them learn from the data,
cross-fitted, so that every estimator is there. Tables go to stderr: estimates, with the effective sample size of the
trajectories' weights (where that is small, no interval of importance sampling can be trusted), and the distribution of
each policy's returns by CD-TIS and CD-SNTIS with bootstrap intervals; the others need a model of returns, which a V of
each state is not. With --threshold, which a policy's value and an episode's return should not be below, every estimate
has a verdict (safe or unsafe where the whole interval is) and every distribution the share of episodes that violate it.
The last line on standard output is one JSON object.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from configs import scope_rl as configs
from experiments.scope_rl.experiment import experiment
from rl_jax.control.candidates import Kernel
from rl_jax.control.off_policy_files import log_prob_fields, model_fields, policies_of_runs
from rl_jax.core import main as core
from rl_jax.core.config import unknown
from rl_jax.core.runtime import run_binary
from rl_jax.evaluation.off_policy.estimators import ESTIMATORS, available, importance_weights, terms, value
from rl_jax.evaluation.off_policy.files import (
    Candidates,
    candidates_of,
    episodes_of,
    has_vectors,
    policies_of,
    read_fields,
)
from rl_jax.evaluation.off_policy.intervals import INTERVALS, Interval
from rl_jax.evaluation.off_policy.kernels import KERNELS
from rl_jax.evaluation.off_policy.return_distribution import (
    DISTRIBUTIONS,
    ReturnDistribution,
    resampled,
    return_distribution,
)
from rl_jax.evaluation.off_policy.selection import (
    error_rates,
    mean_squared_error,
    portfolio,
    rank_correlation,
    regret,
    sharpe_ratio,
)
from rl_jax.reports.off_policy_figures import plot_distributions, plot_estimates
from rl_jax.reports.tables import table

DATA = flags.DEFINE_string("data", None, "An npz file or the folder of a data set.")
RUNS = flags.DEFINE_list("runs", [], "Folders of runs whose policies are evaluated; of several seeds the first.")
WORKDIR = flags.DEFINE_string("workdir", "", "Where models of the runs' policies learn; a run that lies there goes on.")
STEPS = flags.DEFINE_integer("steps", 3000, "Updates of the models.", lower_bound=1)
MODES = flags.DEFINE_bool("modes", False, "Whether runs' policies do their modes, as where they act without noise.")
KERNEL = flags.DEFINE_enum("kernel", "gaussian", list(KERNELS), "Of policies over vectors that have no density.")
BANDWIDTH = flags.DEFINE_float("bandwidth", 0.5, "Of the kernel, in units of a box [-1, 1].", lower_bound=1e-9)
DISCOUNT = flags.DEFINE_float("discount", 1.0, "Of rewards.", lower_bound=0.0, upper_bound=1.0)
CHOSEN = flags.DEFINE_list("estimators", None, "Names, such as snpdis,sndr; all that the data allow if not given.")
INTERVAL = flags.DEFINE_enum("interval", "bootstrap", list(INTERVALS), "How intervals are made.")
CONFIDENCE = flags.DEFINE_float("confidence", 0.95, "Of the intervals.", lower_bound=0.5, upper_bound=0.9999)
VALUE_RANGE = flags.DEFINE_float(
    "value_range", None, "Largest less smallest number that a trajectory can give: for hoeffding and bernstein."
)
ACTIONS = flags.DEFINE_enum(
    "actions", None, ["discrete", "continuous"], "Whether log-probs are of densities; else what the data's actions say."
)
RATIOS = flags.DEFINE_integer("num_ratios", 0, "SOPE: ratios that follow a marginal weight.", lower_bound=0)
MAX_WEIGHT = flags.DEFINE_float("max_weight", None, "A cap on weights, which biases estimates.", lower_bound=1e-9)
CROSSFIT = flags.DEFINE_bool("crossfit", False, "Whether models did not learn from the episodes that they are used on.")
THRESHOLD = flags.DEFINE_float("threshold", None, "What a policy's value and an episode's return are safe from on.")
TAIL = flags.DEFINE_float("tail", 0.1, "Share of the worst returns whose mean is CVaR.", lower_bound=0, upper_bound=1)
FIGURE = flags.DEFINE_string("figure", "", "A PNG to draw: estimates with intervals.")
CDF_FIGURE = flags.DEFINE_string("cdf_figure", "", "A PNG to draw: distributions of returns with bands.")


def with_runs(fields: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The fields with those of --runs, and the policies whose models are cross-fitted."""
    if WORKDIR.value and not RUNS.value:
        raise ValueError("--workdir is where models of --runs learn: give runs, or leave it out")
    given = policies_of(fields)
    crossfit = given if CROSSFIT.value else []
    if not RUNS.value:
        return fields, crossfit
    episodes, kernel = episodes_of(DATA.value, fields), Kernel(KERNEL.value, BANDWIDTH.value)
    policies = policies_of_runs(RUNS.value, episodes, MODES.value)
    for name in set(given).intersection(policies):
        raise ValueError(f"{DATA.value} has a policy {name!r}, as a run is called: rename the run's folder")
    fields = fields | log_prob_fields(policies, episodes, kernel)
    if not WORKDIR.value:
        return fields, crossfit
    config = configs.get_config("logged")
    config.update_from_flattened_dict({
        "data": str(Path(DATA.value).expanduser().absolute()), "runs": tuple(RUNS.value), "modes": MODES.value,
        "kernel.name": kernel.name, "kernel.bandwidth": kernel.bandwidth, "discount": DISCOUNT.value,
        "num_steps": STEPS.value,
    })
    workdir = Path(WORKDIR.value).expanduser().absolute()
    core.run(experiment, config, workdir)
    return fields | model_fields(workdir, list(policies)), [*crossfit, *policies]


def evaluated(found: Candidates) -> dict[str, dict[str, Any]]:
    """By policy: its estimates with intervals, by estimator, and the effective sample size."""
    if INTERVAL.value in ("hoeffding", "bernstein") and VALUE_RANGE.value is None:
        raise ValueError(f"--interval={INTERVAL.value} is a bound only with --value_range: the largest less the "
                         "smallest number that a trajectory can give")
    options = {"value_range": VALUE_RANGE.value} if INTERVAL.value in ("hoeffding", "bernstein") else {}
    rows = {}
    for policy, data in found.policies.items():
        names = CHOSEN.value or available(data)
        for name in names:
            if name not in ESTIMATORS:
                raise ValueError(f"--estimators: {unknown('estimator', name, ESTIMATORS)}")
        estimates = {}
        for name in names:
            made = terms(name, data, DISCOUNT.value, num_ratios=RATIOS.value, max_weight=MAX_WEIGHT.value)
            low, high = INTERVALS[INTERVAL.value](made, CONFIDENCE.value, **options)
            estimates[name] = {"value": float(value(made)), "low": float(low), "high": float(high)}
            if THRESHOLD.value is not None:
                estimates[name]["verdict"] = (
                    "safe" if low >= THRESHOLD.value else "unsafe" if high < THRESHOLD.value else "undecided"
                )
        weights = importance_weights("trajectory", data)[:, -1]
        weights = weights / (weights.max() or 1.0)  # squares of the smallest would vanish
        size = float(weights.sum() ** 2 / (weights**2).sum()) if weights.any() else 0.0
        rows[policy] = {"estimates": estimates, "effective_sample_size": size}
    return rows


def read_off(found: ReturnDistribution) -> dict[str, np.ndarray]:
    """What a distribution says, [...] each."""
    numbers = {"mean": found.mean(), "variance": found.variance(), "cvar": found.cvar(TAIL.value)}
    numbers |= zip(("lower_quartile", "median", "upper_quartile"), found.interquartile(), strict=True)
    return numbers | ({} if THRESHOLD.value is None else {"violations": found.below(THRESHOLD.value)})


def distributions(found: Candidates) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """By policy and estimator: what the distribution of returns says, with intervals; and F itself with its band."""

    def between(drawn: np.ndarray) -> Interval:
        return Interval(*np.percentile(drawn, [50 - 50 * CONFIDENCE.value, 50 + 50 * CONFIDENCE.value], axis=0))

    numbers, curves = {policy: {} for policy in found.policies}, {policy: {} for policy in found.policies}
    for policy, data in found.policies.items():
        weights = importance_weights("trajectory", data)[:, -1]
        if MAX_WEIGHT.value is not None:
            weights = np.minimum(weights, MAX_WEIGHT.value)
        for name in ("cd_tis", "cd_sntis"):
            made, drawn = (make(name, found.returns, weights) for make in (return_distribution, resampled))
            curves[policy][name] = made, between(drawn.cdf)
            of_drawn = read_off(drawn)
            numbers[policy][name] = {
                kind: dict(zip(("value", "low", "high"), map(float, (number, *between(of_drawn[kind])))))
                for kind, number in read_off(made).items()
            }
    return numbers, curves


def metrics(rows: dict[str, dict[str, Any]], found: Candidates) -> dict[str, dict[str, float]]:
    """By estimator: how well it ranks the policies, where the file knows what all of them earn."""
    if len(found.values) < max(len(rows), 2):
        return {}
    truth, behaviour = np.array([found.values[policy] for policy in rows]), float(found.returns.mean())
    shared = [name for name in ESTIMATORS if all(name in row["estimates"] for row in rows.values())]
    made = {}
    for name in shared:
        estimates, most = np.array([row["estimates"][name]["value"] for row in rows.values()]), min(4, len(truth))
        made[name] = {
            "rmse": float(np.sqrt(mean_squared_error(estimates, truth))),
            "rank_correlation": float(rank_correlation(estimates, truth)),
            "regret_at_1": float(regret(estimates, truth)),
            f"sharpe_ratio_at_{most}": float(sharpe_ratio(estimates, truth, behaviour, most)),
        }
        if THRESHOLD.value is not None:
            errors = map(float, error_rates(estimates, truth, THRESHOLD.value))
            made[name] |= zip(("type_1_error", "type_2_error"), errors, strict=True)
            violations = portfolio(estimates, truth, THRESHOLD.value).violations[most - 1]
            made[name][f"violations_at_{most}"] = float(violations)
    return made


def cell(one: dict[str, Any]) -> str:
    """A number with its interval, and its verdict if there is one."""
    return f"{one['value']:.4g} [{one['low']:.4g}, {one['high']:.4g}] {one.get('verdict', '')}".strip()


def finite(tree: Any) -> Any:
    """The same with None for a NaN, which JSON does not know."""
    if isinstance(tree, dict):
        return {name: finite(x) for name, x in tree.items()}
    return None if isinstance(tree, float) and not np.isfinite(tree) else tree


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: all is set by flags, see --help")
    fields, crossfit = with_runs(read_fields(Path(DATA.value).expanduser()))
    discrete = ACTIONS.value == "discrete" if ACTIONS.value else not has_vectors(fields)
    found = candidates_of(DATA.value, fields, DISCOUNT.value, discrete=discrete, crossfit=crossfit)
    rows = evaluated(found)
    numbers, curves = distributions(found)
    names = [name for name in ESTIMATORS if any(name in row["estimates"] for row in rows.values())]
    header = ["policy", *(ESTIMATORS[name].label for name in names), "effective trajectories", "true"]
    print(table(header, [
        [policy, *(cell(row["estimates"][name]) if name in row["estimates"] else "" for name in names),
         f"{row['effective_sample_size']:.1f} of {len(found.returns)}",
         f"{found.values[policy]:.4g}" if policy in found.values else ""]
        for policy, row in rows.items()
    ]), file=sys.stderr)
    lines = [(policy, name, said) for policy, row in numbers.items() for name, said in row.items()]
    print(table(["policy", "returns", *(kind.replace("_", " ") for kind in lines[0][2])], [
        [policy, DISTRIBUTIONS[name], *map(cell, said.values())] for policy, name, said in lines
    ]), file=sys.stderr)
    print(f"behaviour policy: {found.returns.mean():.4g} over {len(found.returns)} trajectories", file=sys.stderr)
    if found.unfinished:
        print(f"{found.unfinished} episodes were cut by time-outs and no next_v is given: nothing counts after them",
              file=sys.stderr)
    judged = metrics(rows, found)
    if judged:
        first = next(iter(judged.values()))
        print(table(["estimator", *first], [
            [ESTIMATORS[name].label, *(f"{x:.3g}" for x in one.values())] for name, one in judged.items()
        ]), file=sys.stderr)
    if FIGURE.value:
        plot_estimates(
            {policy: row["estimates"] for policy, row in rows.items()}, FIGURE.value, truth=found.values,
            behaviour=float(found.returns.mean()), labels={name: how.label for name, how in ESTIMATORS.items()},
        )
    if CDF_FIGURE.value:
        plot_distributions(curves, CDF_FIGURE.value, truth=found.values, behaviour=found.returns, labels=DISTRIBUTIONS,
                           threshold=THRESHOLD.value)
    sys.stderr.flush()
    print(json.dumps(finite({
        "policies": rows, "behaviour": float(found.returns.mean()), "trajectories": len(found.returns),
        "interval": INTERVAL.value, "confidence": CONFIDENCE.value, "selection": judged, "distributions": numbers,
        "tail": TAIL.value, "threshold": THRESHOLD.value,
    })), flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("data")
    run_binary(main)
