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
from fractions import Fraction
from typing import Literal, Unpack

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.reports.aggregate import interquartile_mean, interquartile_mean_difference, probability_of_improvement
from rl_jax.reports.declaration import Claim, Finding, Published, Reference, Shown
from rl_jax.reports.judging import (
    HOW,
    About,
    By,
    above,
    decided,
    filled,
    ident,
    interval_of,
    make_claim,
    named,
    pair,
    suffix,
)
from rl_jax.reports.measures import Curve, Values, as_curve, change, first, sign, spent_until, words
from rl_jax.reports.scores import Method, Scores

RESAMPLES = 10_000  # of tasks for a correlation, of seeds for a ratio


# Comparisons of two methods


def better_than(method: Method, other: Method, threshold: float = 0.5, **about: Unpack[About]) -> Claim:
    """A run of the method is better than one of the other with a probability above the threshold, mean over tasks.

    A `Published` gives the published probability, with a seed's score normal with its mean and deviation.
    """

    def check(scores: Scores) -> Finding:
        measure, x, y = pair(scores, method, other, about)
        return above(probability_of_improvement(measure.sign * x, measure.sign * y), threshold)

    def published(source: Published, tasks: Sequence[str]) -> float | None:
        return published_probability(source, method, other, tasks)

    return make_claim(
        f"{ident(method)}_better_than_{ident(other)}", f"{named(method)} better than {named(other)}",
        f"P(better) above {threshold:g}: its whole 95% interval", check, (method, other), about, published,
    )


def not_worse_than(method: Method, other: Method, margin: float, **about: Unpack[About]) -> Claim:
    """The method's IQM is worse than the other's by less than the margin.

    A `Published` gives the difference of the published means.
    """

    def check(scores: Scores) -> Finding:
        measure, x, y = pair(scores, method, other, about)
        return above(interquartile_mean_difference(x, y), -measure.sign * margin, measure.sign)

    def published(source: Published, tasks: Sequence[str]) -> float | None:
        return published_difference(source, method, other, tasks)

    return make_claim(
        f"{ident(method)}_not_worse_than_{ident(other)}", f"{named(method)} not worse than {named(other)}",
        f"difference of IQMs: its whole 95% interval less than {margin:g} on the worse side of 0", check,
        (method, other), about, published,
    )


def within_or_better(method: Method, other: Method, **about: Unpack[About]) -> Claim:
    """The method's IQM lies within the 95% interval of the other's or on its better side."""

    def check(scores: Scores) -> Finding:
        measure, x, y = pair(scores, method, other, about)
        own, theirs = interquartile_mean(x), interquartile_mean(y)
        end = theirs.low if measure.sign > 0 else theirs.high
        passed = measure.sign * own.value >= measure.sign * end
        return Finding(own.value, (own.low, own.high), bool(passed), f"the other's end is {end:.3g}")

    return make_claim(
        f"{ident(method)}_within_or_better_than_{ident(other)}",
        f"{named(method)} within the interval of {named(other)} or better",
        f"IQM not worse than the worse end of the 95% interval of {named(other)}", check, (method, other), about,
    )


def close_to(method: Method, other: Method, margin: float, **about: Unpack[About]) -> Claim:
    """The two methods' IQMs differ by less than the margin."""

    def check(scores: Scores) -> Finding:
        _, x, y = pair(scores, method, other, about)
        found = interquartile_mean_difference(x, y)
        return Finding(found.value, (found.low, found.high), bool(-margin < found.low and found.high < margin))

    return make_claim(
        f"{ident(method)}_close_to_{ident(other)}", f"{named(method)} equals {named(other)} within {margin:g}",
        f"difference of IQMs: its whole 95% interval within +-{margin:g}", check, (method, other), about,
    )


def better_by(
    method: Method, other: Method, least: float = 0.0, by: By = "interval", over: Literal["seeds", "tasks"] = "seeds",
    **about: Unpack[About],
) -> Claim:
    """The method is better than the other by more than `least`, seed by seed, on the mean over tasks.

    The value is the advantage: positive is better, whatever the direction of the measure. Over "tasks" the interval is
    of the tasks' means over seeds: where tasks are data sets, of one kind, that the seeds share, it holds for others.
    """

    def check(scores: Scores) -> Finding:
        measure = scores.measure(about.get("measure"), about.get("tasks"))
        own, theirs = (scores.values(name, measure, about.get("tasks")) for name in (method, other))
        gain, known = measure.sign * (own.values - theirs.values), own.known & theirs.known
        other_axis = 1 if over == "seeds" else 0
        return decided(Values(gain.mean(other_axis), known.all(other_axis)), least, 1.0, by)

    beyond = "above" if by == "interval" else "at least"
    how = f"mean over tasks: {HOW[by]}" if over == "seeds" else f"mean over seeds: {HOW[by].replace('seed', 'task')}"
    return make_claim(
        f"{ident(method)}_better_by_than_{ident(other)}", f"{named(method)} better than {named(other)}",
        f"advantage, seeds paired, {how} {beyond} {least:g}", check, (method, other), about,
    )


def within_factor(
    method: Method, other: Method, factor: float, by: Literal["interval", "mean"] = "interval", **about: Unpack[About]
) -> Claim:
    """The method's mean over seeds and tasks is at most `factor` of the other's; at least, where higher is better.

    The value is the ratio of the means, its interval of a bootstrap over seeds, which are resampled together. Both
    methods' values are above 0.

    Args:
      by: whether the whole interval has to be, or the ratio itself.
    """

    def check(scores: Scores) -> Finding:
        measure, x, y = pair(scores, method, other, about)
        x, y = x.mean(1), y.mean(1)
        rows = np.random.default_rng(0).integers(0, len(x), (RESAMPLES, len(x)))
        low, high = np.percentile(x[rows].mean(1) / y[rows].mean(1), [2.5, 97.5])
        ratio = x.mean() / y.mean()
        worst = ratio if by == "mean" else high if measure.sign < 0 else low
        return Finding(float(ratio), (float(low), float(high)), bool(measure.sign * worst >= measure.sign * factor))

    return make_claim(
        f"{ident(method)}_within_factor_of_{ident(other)}{suffix(about.get('measure'))}",
        f"{named(method)}: {{measure}} {{at_least}} {_share(factor)} of {named(other)}'s",
        "ratio of the means over seeds of {measure} {how}: "
        + ("its whole 95% interval " if by == "interval" else "") + f"{{at_least}} {_share(factor)}",
        check, (method, other), about,
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
        for task in about.get("tasks") or scores.tasks:
            runs = [scores.evaluations(name, task) for name in (method, other)]
            last = runs[0].steps[-1]
            common = [x for x in np.intersect1d(runs[0].steps, runs[1].steps) if x >= after * last - 1e-9 * last]
            if not common:
                raise ValueError(f"{method} and {other} have no evaluation in common on {task}")
            ours, theirs = (curve.of(run)[np.isin(run.steps, common)].mean(1) for run in runs)
            leads.append(sign(curve.metric) * (ours - theirs))
        low, high = float(np.concatenate(leads).min()), float(np.concatenate(leads).max())
        return Finding(low, (low, high), low >= -margin)

    start = f" after {_share(after)} of the steps" if after else ""
    return make_claim(
        f"{ident(method)}_never_behind_{ident(other)}", f"{named(method)} is never behind {named(other)}{start}",
        f"least lead in {curve.metric.label}, means over seeds, at least {0.0 - margin:g} [least, largest]", check,
        (method, other), about,
    )


def faster_than(
    method: str, other: str, metric: Metric | Curve, *, level: float | None = None, gain: float = 1.0,
    factor: float = 1.0, x: str = "train_seconds", by: By = "every", **about: Unpack[About],
) -> Claim:
    """The method is there in at most `factor` of what the other needs of x. `tasks` names the one task.

    Args:
      level: of the metric; if None it is where the other's mean over seeds has made a share `gain` of its whole change,
        and what the other spent is its x until that mean is there.
      x: "train_seconds", "steps", or an outcome that counts, such as "samples".

    The value is the ratio; infinite where a seed of the method never gets there.
    """
    curve = as_curve(metric)

    def check(scores: Scores) -> Finding:
        (task,) = about.get("tasks") or scores.tasks
        ours, theirs = (scores.evaluations(name, task) for name in (method, other))
        if level is None:
            mean = curve.of(theirs).mean(1)
            goal = float((1.0 - gain) * mean[0] + gain * mean[-1])
            there = int(np.argmax(sign(curve.metric) * mean >= sign(curve.metric) * goal))
            spent = spent_until(theirs, x, curve.of(theirs).shape)[there].mean()
        else:
            goal = level
            spent = first(curve, goal, x).of(theirs).values
        found = first(curve, goal, x).of(ours)
        detail = f"{curve.metric.label} {goal:.4g}: {found.values.mean():.4g} against {np.mean(spent):.4g} {words(x)}"
        spent = spent if np.shape(spent) in ((), found.values.shape) else np.mean(spent)
        with np.errstate(divide="ignore", invalid="ignore"):  # both may be there from the start
            ratios = np.where(found.values == spent, 1.0, found.values / spent)
        if not found.known.all():
            low = float(ratios[found.known].min()) if found.known.any() else math.inf
            return Finding(math.inf, (low, math.inf), False, f"{detail}, {(~found.known).sum()} seeds never there")
        return decided(Values(ratios, found.known), factor, -1.0, by)._replace(detail=detail)

    way = "" if gain == 1.0 else f"{gain:.0%} of the way to "
    end = f"{way}the last {curve.metric.label} of {named(other)}"
    goal = end if level is None else f"{curve.metric.label} {level:g}"
    return make_claim(
        f"{ident(method)}_faster_than_{ident(other)}",
        f"{named(method)} is at {goal} in {_share(factor)} of the {words(x)} that {named(other)} takes",
        f"ratio of {words(x)}: {HOW[by]} at most {_share(factor)}", check, (method, other), about,
    )


# One method against a level, a reference or its own start


def reaches(method: Method, level: float | Reference, by: By = "interval", **about: Unpack[About]) -> Claim:
    """The method is at least as good as a level, given in the metric's own numbers, or as a reference of the task.

    With several tasks "every" and "worst" look at every seed on every task, the others at a seed's mean over tasks.
    """

    def check(scores: Scores) -> Finding:
        measure, tasks = scores.measure(about.get("measure"), about.get("tasks")), about.get("tasks")
        found = scores.values(method, measure, tasks)
        if isinstance(level, Reference):
            goals = scores.reference(level, tasks)
            goal = float(goals.mean())
            if len(goals) > 1:
                found, goal = Values(found.values - goals, found.known), 0.0
        else:
            goal = measure.on_scale(level)
        return decided(found, goal, measure.sign, by)

    goal = _the(level.label) if isinstance(level, Reference) else f"{level:,g}"
    return make_claim(
        f"{ident(method)}_reaches{suffix(about.get('measure'))}",
        f"{named(method)}: {{measure}} {{at_least}} {goal}",
        f"{{measure}} {{how}}: {HOW[by]} {{beyond}} {goal}" if by == "interval" else
        f"{{measure}} {{how}}: {HOW[by]} {{at_least}} {goal}", check, (method,), about,
    )


def within(method: Method, low: float, high: float, by: By = "every", **about: Unpack[About]) -> Claim:
    """The method lies between two levels, both included, given in the metric's own numbers."""

    def check(scores: Scores) -> Finding:
        measure = scores.measure(about.get("measure"), about.get("tasks"))
        found = scores.values(method, measure, about.get("tasks"))
        above = decided(found, measure.on_scale(low), 1.0, by)
        below = decided(found, measure.on_scale(high), -1.0, by)
        return above._replace(passed=above.passed and below.passed)

    return make_claim(
        f"{ident(method)}_within{suffix(about.get('measure'))}",
        f"{named(method)}: {{measure}} between {low:g} and {high:g}",
        f"{{measure}} {{how}}: {HOW[by]} from {low:g} to {high:g}", check, (method,), about,
    )


def changes_by(
    method: Method, metric: Metric | Curve, least: float, *, relative: bool = False, by: By = "every",
    **about: Unpack[About],
) -> Claim:
    """From the first to the last evaluation the metric gets better by at least `least` (a share where relative).

    The value is the change itself, so that it is negative where a metric of which less is better gets better.
    """
    measure = change(metric, relative=relative)
    to = f"{least:.0%}" if relative else f"{least:g}"
    way = "up" if measure.sign > 0 else "down"

    def check(scores: Scores) -> Finding:
        return decided(scores.values(method, measure, about.get("tasks")), measure.sign * least, measure.sign, by)

    return make_claim(
        f"{ident(method)}_changes_{measure.metric.name.removeprefix('eval/')}",
        f"{named(method)}: {as_curve(metric).metric.label} {way} by {to}",
        f"{measure.label}: {HOW[by]} {way} by {'more than' if by == 'interval' else 'at least'} {to}", check,
        (method,), about,
    )


def best_above_reference(methods: Sequence[str], **about: Unpack[About]) -> Claim:
    """The IQM of the advantage over the paper's reference, of the best of several methods, lies above 0.

    The best one is chosen by the scores that judge it, so its interval is at 1 - 0.05 / number of methods
    (Bonferroni): it holds for all methods at once.
    """

    def check(scores: Scores) -> Finding:
        measure, tasks = scores.measure(about.get("measure"), about.get("tasks")), about.get("tasks")
        reference, confidence = scores.reference(None, tasks), 1.0 - 0.05 / len(methods)
        gains = {
            name: interquartile_mean(
                measure.sign * (scores.values(name, measure, tasks).values - reference), confidence=confidence
            )
            for name in methods
        }
        best = max(gains, key=lambda name: gains[name].value)
        return above(gains[best], 0.0)._replace(detail=f"best: {scores.label(best)}")

    return make_claim(
        "best_above_reference", f"the best of {len(methods)} methods better than the {{reference}}",
        f"IQM of the advantage over the {{reference}} above 0: the whole interval at {100 - 5 / len(methods):.4g}%",
        check, tuple(methods), about,
    )


# Over tasks and over methods


def correlates(
    one: Method | Reference, other: Method | Reference, *, measures: tuple[Shown | None, Shown | None] = (None, None),
    least: float = 0.0, negative: bool = False, **about: Unpack[About],
) -> Claim:
    """Two methods, two measures of methods, or a method and a reference rank the tasks alike.

    Spearman's rho of the medians over seeds, over the tasks on which most seeds of both are known, with a 95%
    bootstrap interval over tasks.

    Args:
      measures: of `one` and of `other`; the one that tables show where None.
      least: rho's whole interval lies above it.
      negative: they rank the tasks the opposite way: the whole interval lies below -least.
    """

    def of(scores: Scores, which: Method | Reference, measure: Shown | None) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(which, Reference):
            values = scores.reference(which, about.get("tasks"))
            return values, np.isfinite(values)
        values, known = scores.values(which, measure or about.get("measure"), about.get("tasks"))
        return np.median(values, 0), known.mean(0) > 0.5

    def check(scores: Scores) -> Finding:
        (x, x_known), (y, y_known) = of(scores, one, measures[0]), of(scores, other, measures[1])
        both = x_known & y_known
        if both.sum() < 4:
            return Finding(0.0, (-1.0, 1.0), False, f"only {both.sum()} tasks that both solve")
        value, (low, high) = rank_correlation(x[both], y[both])
        passed = high < -least if negative else low > least
        return Finding(value, (low, high), bool(passed), f"{both.sum()} tasks")

    side = f"below {0.0 - least:g}" if negative else f"above {least:g}"
    return make_claim(
        f"{ident(one)}_correlates_with_{ident(other)}",
        f"{named(one)} and {named(other)} rank tasks {'oppositely' if negative else 'alike'}",
        f"Spearman's rho over the tasks that most seeds of both solve {side}: its whole 95% interval over tasks", check,
        tuple(x for x in (one, other) if not isinstance(x, Reference)), about,
    )


def correlates_over_evaluations(
    methods: Sequence[str], one: Metric | Curve, other: Metric | Curve, least: float = 0.0, **about: Unpack[About]
) -> Claim:
    """Two metrics rank all evaluations of all seeds of some methods alike: Spearman's rho is at least `least`.

    Better goes with better, whatever the metrics' directions are. The interval is of a bootstrap over evaluations,
    which is too narrow: those of one run are alike.
    """
    curves = as_curve(one), as_curve(other)

    def check(scores: Scores) -> Finding:
        tasks = about.get("tasks") or scores.tasks
        runs = [scores.evaluations(name, task) for name in methods for task in tasks]
        x, y = (sign(curve.metric) * np.concatenate([curve.of(run).ravel() for run in runs]) for curve in curves)
        value, interval = rank_correlation(x, y)
        return Finding(value, interval, value >= least, f"{len(x)} evaluations of {len(runs)} runs")

    names = " and ".join(curve.metric.label for curve in curves)
    return make_claim(
        f"correlates_{'_'.join(curve.metric.name.removeprefix('eval/') for curve in curves)}",
        f"{names} get better together", f"Spearman's rho over all evaluations and seeds: at least {least:g}", check,
        tuple(methods), about,
    )


def advantage_shrinks(
    method: Method, other: Method, first: Sequence[str], last: Sequence[str], to: float = 1.0, **about: Unpack[About]
) -> Claim:
    """The method's advantage over the other one is on the tasks `last` at most `to` of that on `first`: seeds' means.

    The value is how much it shrinks; its interval is that of the mean over seeds, paired.
    """

    def check(scores: Scores) -> Finding:
        measure, gains = scores.measure(about.get("measure"), (*first, *last)), []
        for tasks in (first, last):
            ours, theirs = (scores.values(name, measure, tasks).values for name in (method, other))
            gains.append(measure.sign * (ours - theirs).mean(1))
        shrunk = to * gains[0] - gains[1]
        detail = ", ".join(f"{gain.mean():.3g} on {' '.join(tasks)}" for gain, tasks in zip(gains, (first, last)))
        return Finding(float(shrunk.mean()), interval_of(shrunk), bool(shrunk.mean() >= 0.0), detail)

    share = "" if to == 1.0 else f"{_share(to)} of the "
    return make_claim(
        f"{ident(method)}_advantage_over_{ident(other)}_shrinks",
        f"{named(method)} gains no more over {named(other)} on {' '.join(last)} than {share}on {' '.join(first)}",
        f"{share}advantage on the first less that on the second, seeds paired: the mean over seeds at least 0", check,
        (method, other), {**about, "tasks": (*first, *last)},
    )


def solves_as_many_as(method: Method, other: Method, margin: float = 0.0, **about: Unpack[About]) -> Claim:
    """The share of tasks that most seeds of the method solve is at least the other's less the margin.

    Solved is what the measure calls known. The interval is of the bootstrap over tasks.
    """

    def check(scores: Scores) -> Finding:
        measure = scores.measure(about.get("measure"), about.get("tasks"))
        ours, theirs = (
            scores.values(name, measure, about.get("tasks")).known.mean(0) > 0.5 for name in (method, other)
        )
        gap = ours.astype(float) - theirs
        detail = f"{ours.sum()} against {theirs.sum()} of {len(gap)} tasks"
        return Finding(float(gap.mean()), interval_of(gap), float(gap.mean()) >= -margin, detail)

    return make_claim(
        f"{ident(method)}_solves_as_many_as_{ident(other)}",
        f"{named(method)} solves as many tasks as {named(other)}",
        f"difference of the shares of tasks that most seeds solve, at least {0.0 - margin:g}", check, (method, other),
        about,
    )


def at_least_share(method: Method, share: float, level: float, **about: Unpack[About]) -> Claim:
    """At least a share of all seeds on all tasks are as good as a level, given in the metric's own numbers."""

    def check(scores: Scores) -> Finding:
        measure = scores.measure(about.get("measure"), about.get("tasks"))
        values, known = scores.values(method, measure, about.get("tasks"))
        there = known & (measure.sign * values >= measure.sign * measure.on_scale(level))
        found = float(there.mean())
        return Finding(found, interval_of(there.mean(1)), found >= share, f"{there.sum()} of {there.size}")

    return make_claim(
        f"{ident(method)}_at_least_share",
        f"{named(method)}: {share:.0%} of runs with {{measure}} {{at_least}} {level:g}",
        f"share of seeds and tasks with {{measure}} {{how}} {{at_least}} {level:g}: at least {share:g}", check,
        (method,), about,
    )


def monotone(methods: Sequence[str], *, better: bool = True, slack: float = 0.0, **about: Unpack[About]) -> Claim:
    """Each method of a sequence is at least as good as the one before it (or, with better=False, as bad).

    The value is the smallest step between the means over seeds and tasks, and its interval the smallest and largest.
    """

    def check(scores: Scores) -> Finding:
        measure = scores.measure(about.get("measure"), about.get("tasks"))
        means = [scores.values(name, measure, about.get("tasks")).values.mean() for name in methods]
        steps = np.diff(means) * measure.sign * (1.0 if better else -1.0)
        detail = ", ".join(f"{mean:.3g}" for mean in means)
        return Finding(float(steps.min()), (float(steps.min()), float(steps.max())), steps.min() >= -slack, detail)

    way = "better" if better else "worse"
    return make_claim(
        f"monotone_{methods[0]}_to_{methods[-1]}", f"{{measure}} gets {way}: {', '.join(map(named, methods))}",
        f"smallest step between the means {{how}}, positive is {way}: at least {0.0 - slack:g}", check, tuple(methods),
        about,
    )


# Claims made of claims


def all_of(claims: Sequence[Claim], **about: Unpack[About]) -> Claim:
    """All of them pass; value and interval are those of the first one."""

    def check(scores: Scores) -> Finding:
        found = [claim.check(scores) for claim in claims]
        rest = "; ".join(
            f"{filled(claim, scores)[0]}: {one.value:.3g}" for claim, one in zip(claims[1:], found[1:], strict=True)
        )
        return found[0]._replace(passed=all(one.passed for one in found), detail=rest or found[0].detail)

    return _compound("and", claims, check, about)


def any_of(claims: Sequence[Claim], **about: Unpack[About]) -> Claim:
    """One of them passes; value and interval are those of the first that does, or of the last."""

    def check(scores: Scores) -> Finding:
        found = [claim.check(scores) for claim in claims]
        return next((one for one in found if one.passed), found[-1]._replace(passed=False))

    return _compound("or", claims, check, about)


def passes_in_n_of_m(count: int, claims: Sequence[Claim], **about: Unpack[About]) -> Claim:
    """At least `count` of them pass, such as the same claim on several tasks; the value is how many do."""

    def check(scores: Scores) -> Finding:
        passed = [claim.check(scores).passed for claim in claims]
        detail = ", ".join(claim.name for claim, one in zip(claims, passed, strict=True) if one)
        return Finding(float(sum(passed)), (0.0, float(len(passed))), sum(passed) >= count, detail)

    made = _compound("or", claims, check, about)
    return made._replace(rule=f"at least {count} of {len(claims)} pass: {claims[0].rule}")


def elsewhere(claim: Claim, why: str) -> Claim:
    """The claim, declared and not judged in this preset: its verdict is "not run here".

    Args:
      why: such as "needs an accelerator: preset `full`".
    """
    return claim._replace(elsewhere=why)


def _the(label: str) -> str:
    return label if label.startswith("the ") else f"the {label}"


def _share(x: float) -> str:
    """A third as 1/3."""
    near = Fraction(x).limit_denominator(12)
    return str(near) if abs(near - x) < 1e-9 else f"{x:g}"


def _compound(word: str, claims: Sequence[Claim], check: Callable[[Scores], Finding], about: About) -> Claim:
    """The claims' names, texts and rules joined by a word; what is given stands in their place."""
    methods = tuple(dict.fromkeys(method for claim in claims for method in claim.methods))
    tasks = None if any(claim.tasks is None for claim in claims) else tuple(
        dict.fromkeys(task for claim in claims for task in claim.tasks)
    )
    made = make_claim(
        f"_{word}_".join(claim.name for claim in claims), f" {word} ".join(claim.text for claim in claims),
        f" {word} ".join(dict.fromkeys(claim.rule for claim in claims)), check, methods, about,
    )
    return made._replace(tasks=tasks, measure=claims[0].measure)


# Statistics


def published_probability(source: Published, method: str, other: str, tasks: Sequence[str]) -> float | None:
    """P(a seed of the method scores higher than one of the other), each normal with the published moments.

    The mean over those of the tasks that both have numbers for; None where there are none. Higher is better.
    """
    values = []
    for one, two in _published_pairs(source, method, other, tasks):
        z = (one[0] - two[0]) / math.hypot(one[1], two[1])
        values.append(0.5 * (1.0 + math.erf(z / math.sqrt(2.0))))
    return float(np.mean(values)) if values else None


def published_difference(source: Published, method: str, other: str, tasks: Sequence[str]) -> float | None:
    """Difference of the published means, over those of the tasks that both have numbers for; None without any."""
    values = [one[0] - two[0] for one, two in _published_pairs(source, method, other, tasks)]
    return float(np.mean(values)) if values else None


def rank_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Spearman's rho of two [tasks], and its 95% bootstrap interval over tasks."""
    from scipy.stats import rankdata

    def rho(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of every row of two [N, tasks]: Pearson's correlation of the ranks, [N]."""
        x, y = (ranks - ranks.mean(1, keepdims=True) for ranks in (rankdata(x, axis=1), rankdata(y, axis=1)))
        return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))

    rows = np.random.default_rng(0).integers(0, len(x), (RESAMPLES, len(x)))
    # A resample in which all are equal has no correlation.
    drawn = rows[(np.ptp(x[rows], axis=1) > 0) & (np.ptp(y[rows], axis=1) > 0)]
    low, high = np.percentile(rho(x[drawn], y[drawn]), [2.5, 97.5])
    return float(rho(x[None], y[None])[0]), (float(low), float(high))


def _published_pairs(
    source: Published, method: str, other: str, tasks: Sequence[str]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    one, two = source.values.get(method, {}), source.values.get(other, {})
    return [(one[name], two[name]) for name in tasks if name in one and name in two]
