"""The claims that papers make, as rows: each constructor makes text, rule and check from the same parameters.

A measure gives the direction; "better" below is what it calls better. All constructors take, beside their own:

    measure     what is compared: a Metric (its last value), a Curve or a Measure; the one that tables show if left out
    tasks       on which tasks; all of the preset if left out
    name, text  in place of the ones that are made; text may name a method's label as {method}
    published   the same statistic of published numbers: a number; or, where stated, a `Published` to compute it from
    beside      metrics that are shown beside the finding, before and after: the guards of a reward

Where a claim is about each seed's number, `by` says how seeds decide:

    "interval"  the whole 95% bootstrap interval of the mean over seeds is beyond the level
    "mean"      the mean over seeds is; the interval is shown
    "every"     every seed is; mean and interval are shown
    "worst"     every seed is; the worst seed and the range over seeds are shown
    "median"    the median seed is; it and the middle 95% of seeds are shown

A seed whose value is only a bound (it never got there) fails, and does not pass as the median.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.reports.aggregate import (
    Estimate,
    interquartile_mean,
    interquartile_mean_difference,
    probability_of_improvement,
)
from rl_jax.reports.declaration import Claim, Finding, Published, Reference, Shown
from rl_jax.reports.measures import (
    Curve,
    Values,
    as_curve,
    as_good,
    as_measure,
    change,
    first,
    sign,
    solved,
    spent_until,
)
from rl_jax.reports.scores import BestOf, Method, Scores, names_of
from rl_jax.reports.statistics import bootstrap_interval

By = Literal["interval", "mean", "every", "worst", "median"]
HOW = {
    "interval": "the 95% interval over seeds", "mean": "the mean over seeds", "every": "every seed",
    "worst": "the worst seed", "median": "the median seed",
}
RESAMPLES = 10_000  # of tasks, for a correlation


class About(TypedDict, total=False):
    """What every constructor takes."""

    measure: Shown | None
    tasks: Sequence[str] | None
    name: str
    text: str
    published: float | Published | None
    beside: Sequence[Metric | Curve]


# Comparisons of two methods


def better_than(method: Method, other: Method, threshold: float = 0.5, **about: Unpack[About]) -> Claim:
    """A run of the method is better than one of the other with a probability above the threshold, mean over tasks.

    A `Published` gives the published probability, with a seed's score normal with its mean and deviation.
    """

    def check(scores: Scores) -> Finding:
        measure, x, y = _pair(scores, method, other, about)
        return _above(probability_of_improvement(measure.sign * x, measure.sign * y), threshold)

    def published(source: Published, tasks: Sequence[str]) -> float | None:
        return published_probability(source, method, other, tasks)

    return _claim(
        f"{_id(method)}_better_than_{_id(other)}", f"{_name(method)} better than {_name(other)}",
        f"P(better) above {threshold:g}: its whole 95% interval", check, (method, other), about, published,
    )


def not_worse_than(method: Method, other: Method, margin: float, **about: Unpack[About]) -> Claim:
    """The method's IQM is worse than the other's by less than the margin.

    A `Published` gives the difference of the published means.
    """

    def check(scores: Scores) -> Finding:
        measure, x, y = _pair(scores, method, other, about)
        return _directed(interquartile_mean_difference(x, y), -measure.sign * margin, measure.sign)

    def published(source: Published, tasks: Sequence[str]) -> float | None:
        return published_difference(source, method, other, tasks)

    return _claim(
        f"{_id(method)}_not_worse_than_{_id(other)}", f"{_name(method)} not worse than {_name(other)}",
        f"difference of IQMs: its whole 95% interval less than {margin:g} on the worse side of 0", check,
        (method, other), about, published,
    )


def within_or_better(method: Method, other: Method, **about: Unpack[About]) -> Claim:
    """The method's IQM lies within the 95% interval of the other's or on its better side."""

    def check(scores: Scores) -> Finding:
        measure, x, y = _pair(scores, method, other, about)
        own, theirs = interquartile_mean(x), interquartile_mean(y)
        end = theirs.low if measure.sign > 0 else theirs.high
        passed = measure.sign * own.value >= measure.sign * end
        return Finding(own.value, (own.low, own.high), bool(passed), f"the other's end is {end:.3g}")

    return _claim(
        f"{_id(method)}_within_or_better_than_{_id(other)}", f"{_name(method)} within or better than {_name(other)}",
        f"IQM not worse than the worse end of the 95% interval of {_name(other)}", check, (method, other), about,
    )


def close_to(method: Method, other: Method, margin: float, **about: Unpack[About]) -> Claim:
    """The two methods' IQMs differ by less than the margin."""

    def check(scores: Scores) -> Finding:
        _, x, y = _pair(scores, method, other, about)
        found = interquartile_mean_difference(x, y)
        return Finding(found.value, (found.low, found.high), bool(-margin < found.low and found.high < margin))

    return _claim(
        f"{_id(method)}_close_to_{_id(other)}", f"{_name(method)} equals {_name(other)} within {margin:g}",
        f"difference of IQMs: its whole 95% interval within +-{margin:g}", check, (method, other), about,
    )


def better_by(method: Method, other: Method, least: float = 0.0, by: By = "interval", **about: Unpack[About]) -> Claim:
    """The method is better than the other by more than `least`, seed by seed, on the mean over tasks.

    The value is the advantage: positive is better, whatever the direction of the measure.
    """

    def check(scores: Scores) -> Finding:
        measure = scores.measure(about.get("measure"), about.get("tasks"))
        own, theirs = (scores.values(name, measure, about.get("tasks")) for name in (method, other))
        gain = measure.sign * (own.values - theirs.values).mean(1)
        return _decided(Values(gain, (own.known & theirs.known).all(1)), least, 1.0, by)

    beyond = "above" if by == "interval" else "at least"
    return _claim(
        f"{_id(method)}_better_by_than_{_id(other)}", f"{_name(method)} better than {_name(other)}",
        f"advantage, seeds paired, mean over tasks: {HOW[by]} {beyond} {least:g}", check, (method, other), about,
    )


def never_behind(
    method: Method, other: Method, metric: Metric | Curve, after: float = 0.0, margin: float = 0.0,
    **about: Unpack[About],
) -> Claim:
    """At every evaluation that both have after a share of the steps the mean over seeds is not worse than the other's.

    The value is the least lead, its interval the least and the largest one; positive is better.
    """
    curve = as_curve(metric)

    def check(scores: Scores) -> Finding:
        leads = []
        for task in _tasks(scores, about):
            runs = [scores.evaluations(name, task) for name in (method, other)]
            last = runs[0].steps[-1]
            common = [x for x in np.intersect1d(runs[0].steps, runs[1].steps) if x >= after * last - 1e-9 * last]
            if not common:
                raise ValueError(f"{method} and {other} have no evaluation in common on {task}")
            ours, theirs = (curve.of(run)[np.isin(run.steps, common)].mean(1) for run in runs)
            leads.append(sign(curve.metric) * (ours - theirs))
        low, high = float(np.concatenate(leads).min()), float(np.concatenate(leads).max())
        return Finding(low, (low, high), low >= -margin)

    start = f" after {after:.0%} of the steps" if after else ""
    return _claim(
        f"{_id(method)}_never_behind_{_id(other)}", f"{_name(method)} is never behind {_name(other)}{start}",
        f"least lead in {curve.metric.label}, means over seeds, at least {-margin:g} [least, largest]", check,
        (method, other), about,
    )


def faster_than(
    method: str, other: str, metric: Metric | Curve, *, level: float | None = None, factor: float = 1.0,
    x: str = "train_seconds", by: By = "every", **about: Unpack[About],
) -> Claim:
    """The method is there in at most `factor` of what the other needs of x. `tasks` names the one task.

    Args:
      level: of the metric; if None it is the other's last mean over seeds, and what the other spent is all of its x.
      x: "train_seconds", "steps", or an outcome that counts, such as "samples".

    The value is the ratio; infinite where a seed of the method never gets there.
    """
    curve = as_curve(metric)

    def check(scores: Scores) -> Finding:
        (task,) = _tasks(scores, about)
        ours, theirs = (scores.evaluations(name, task) for name in (method, other))
        if level is None:
            last = curve.of(theirs)
            goal, spent = float(last[-1].mean()), spent_until(theirs, x, last.shape)[-1].mean()
        else:
            goal = level
            spent = first(curve, goal, x).of(theirs).values
        found = first(curve, goal, x).of(ours)
        detail = f"{curve.metric.label} {goal:.4g}: {found.values.mean():.4g} against {np.mean(spent):.4g} {x}"
        ratios = found.values / (spent if np.shape(spent) in ((), found.values.shape) else np.mean(spent))
        if not found.known.all():
            low = float(ratios[found.known].min()) if found.known.any() else math.inf
            return Finding(math.inf, (low, math.inf), False, f"{detail}, {(~found.known).sum()} seeds never there")
        return _decided(Values(ratios, found.known), factor, -1.0, by)._replace(detail=detail)

    to = f"to the last {curve.metric.label} of {_name(other)}" if level is None else f"to {curve.metric.label} {level:g}"
    return _claim(
        f"{_id(method)}_faster_than_{_id(other)}",
        f"{_name(method)} is {to.removeprefix('to ') if False else 'there'} in {factor:.2g} of the {x.replace('_', ' ')} "
        f"of {_name(other)}: {to}",
        f"ratio {to}: {HOW[by]} at most {factor:.3g}", check, (method, other), about,
    )
