"""What a run is worth: reductions of its named outcomes to one number a seed, each with the direction that is good.

A `Curve` is one number an evaluation and seed, [T, S]; a `Measure` reduces it to one number a seed, [S]. A `Metric`
stands for the curve of its outcome, and, where a measure is asked for, for that curve's last value. The direction is
always that of the metric.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rl_jax.core.experiment import Metric


class MissingScores(LookupError):
    """What a statistic needs and is not there; its arguments name the runs, or say which outcome."""


class Evaluations(NamedTuple):
    """The T evaluations of a finished run of S seeds.

    Attributes:
      steps: [T] int64, increasing.
      train_seconds: [T] float64, of training until then, all seeds together.
      outcomes: by name [T, S, E], raw; E (episodes, prompts, images) may differ between outcomes.
      summary: the run's last line.
    """

    steps: np.ndarray
    train_seconds: np.ndarray
    outcomes: Mapping[str, np.ndarray]
    summary: Mapping[str, Any] = {}


class Values(NamedTuple):
    """One number a seed.

    Attributes:
      values: [S] float64, or [S, tasks] for several tasks.
      known: of the same shape, bool; False where the number is only a bound, as of a seed that has not solved its task.
    """

    values: np.ndarray
    known: np.ndarray


class Curve(NamedTuple):
    """A number of every evaluation and seed.

    Attributes:
      metric: its name, label, direction and unit.
      of: evaluations -> [T, S].
    """

    metric: Metric
    of: Callable[[Evaluations], np.ndarray]


class Measure(NamedTuple):
    """A number of every seed.

    Attributes:
      metric: its name, label, direction and unit.
      how: how the evaluations become one number, in words, such as "at the last evaluation".
      of: evaluations -> Values [S], on the measure's scale.
      curve: what a learning curve shows of it; None for nothing.
      log10: whether values are log10 of the metric's.
    """

    metric: Metric
    how: str
    of: Callable[[Evaluations], Values]
    curve: Curve | None = None
    log10: bool = False

    @property
    def label(self) -> str:
        """What tables and figures call a value."""
        name = f"log10 of {self.metric.label}" if self.log10 else self.metric.label
        return name + (f" ({self.metric.unit})" if self.metric.unit and not self.log10 else "")

    @property
    def sign(self) -> float:
        """1 where higher is better, -1 where lower is."""
        return sign(self.metric)

    def on_scale(self, level: float) -> float:
        """A number of the metric as a value of the measure."""
        return float(np.log10(level)) if self.log10 else float(level)


class Guard(NamedTuple):
    """A condition on every evaluation and seed: the metric is at least as good as a level."""

    metric: Metric | Curve
    level: float

    @property
    def text(self) -> str:
        metric = as_curve(self.metric).metric
        return f"{metric.label} {'<=' if metric.better == 'lower' else '>='} {self.level:g}"


def sign(metric: Metric) -> float:
    """1 where higher is better, -1 where lower is."""
    return 1.0 if metric.better == "higher" else -1.0


def outcome_name(metric: Metric | str) -> str:
    """The outcome that a metric is the mean of: "return" for "eval/return"."""
    return (metric if isinstance(metric, str) else metric.name).removeprefix("eval/")


def outcome(evaluations: Evaluations, name: str) -> np.ndarray:
    """The mean of an outcome over its episodes, [T, S].

    Raises:
      MissingScores: the run has no such outcome; those that it has are listed.
    """
    if name not in evaluations.outcomes:
        raise MissingScores(f"a run has no outcome {name!r}; it has {', '.join(sorted(evaluations.outcomes))}")
    return np.asarray(evaluations.outcomes[name], np.float64).mean(2)


def as_curve(metric: Metric | Curve) -> Curve:
    """The curve of a metric's outcome."""
    if isinstance(metric, Curve):
        return metric
    return Curve(metric, lambda evaluations: outcome(evaluations, outcome_name(metric)))


def as_measure(metric: Metric | Curve | Measure) -> Measure:
    """The last value, where a measure is asked for and a metric or curve is given."""
    return metric if isinstance(metric, Measure) else final(metric)


def derived(metric: Metric, compute: Callable[..., np.ndarray], *outcomes: Metric | str) -> Curve:
    """A curve that is computed from several outcomes.

    Args:
      metric: names the result.
      compute: takes the curves of the outcomes, [T, S] each in the order given, and returns [T, S].
      outcomes: metrics or names of outcomes.
    """
    names = [outcome_name(one) for one in outcomes]
    return Curve(metric, lambda evaluations: compute(*(outcome(evaluations, name) for name in names)))


def final(metric: Metric | Curve, *, known: str = "") -> Measure:
    """The value at the last evaluation.

    Args:
      known: an outcome that is above 0 where a seed's value counts as known; elsewhere the value is a bound.
    """
    curve = as_curve(metric)

    def of(evaluations: Evaluations) -> Values:
        values = curve.of(evaluations)[-1]
        there = outcome(evaluations, known)[-1] > 0 if known else np.ones(values.shape, bool)
        return Values(values, there)

    return Measure(curve.metric, "at the last evaluation", of, curve)


def lower_end(metric: Metric, of: str) -> Measure:
    """The lower end of the 95% interval of the last value over what it is a mean of, by the normal approximation.

    An item's value is its mean over the seeds, since these are judged on the same items: all seeds have one number.

    Args:
      of: what the outcome holds a value of each, such as "prompts".
    """
    name = outcome_name(metric)

    def value(evaluations: Evaluations) -> Values:
        outcome(evaluations, name)  # or it says that there is none
        values = np.asarray(evaluations.outcomes[name][-1], np.float64)
        items = values.mean(0)
        low = items.mean() - 1.96 * items.std(ddof=1) / np.sqrt(len(items))
        return _all_known(np.full(len(values), low))

    label = f"lower end of the 95% interval of {name} over {of}"
    return Measure(Metric(f"{name}_low", label), "at the last evaluation", value)


def mean_of_last(metric: Metric | Curve, count: int) -> Measure:
    """The mean of the last `count` evaluations."""
    curve = as_curve(metric)
    return Measure(
        curve.metric, f"mean of the last {count} evaluations",
        lambda evaluations: _all_known(curve.of(evaluations)[-count:].mean(0)), curve,
    )


def area(metric: Metric | Curve) -> Measure:
    """The mean over the run: the area under the curve (trapezoids) over the steps that it spans."""
    curve = as_curve(metric)

    def of(evaluations: Evaluations) -> Values:
        values, steps = curve.of(evaluations), evaluations.steps
        if len(steps) == 1:
            return _all_known(values[0])
        return _all_known(np.trapezoid(values, steps, axis=0) / (steps[-1] - steps[0]))

    return Measure(curve.metric, "mean over the run", of, curve)


def best(metric: Metric | Curve, guard: Guard | None = None) -> Measure:
    """The best value of all evaluations, or of those at which a guard holds.

    A seed whose guard never holds has its first value, which does not count as known.
    """
    curve = as_curve(metric)

    def of(evaluations: Evaluations) -> Values:
        values = curve.of(evaluations)
        holds = np.ones(values.shape, bool) if guard is None else as_good(guard.metric, evaluations, guard.level)
        chosen = np.where(holds, sign(curve.metric) * values, -np.inf).max(0)
        return Values(np.where(holds.any(0), sign(curve.metric) * chosen, values[0]), holds.any(0))

    return Measure(curve.metric, "at the best evaluation" + (f" with {guard.text}" if guard else ""), of, curve)


def change(metric: Metric | Curve, *, relative: bool = False) -> Measure:
    """The last value less the first one, or the last over the first less 1."""
    curve = as_curve(metric)

    def of(evaluations: Evaluations) -> Values:
        values = curve.of(evaluations)
        return _all_known(values[-1] / values[0] - 1.0 if relative else values[-1] - values[0])

    kind = "relative change" if relative else "change"
    label = curve.metric._replace(label=f"{kind} of {curve.metric.label}", unit="" if relative else curve.metric.unit)
    return Measure(label, "from the first to the last evaluation", of, curve)


def first(metric: Metric | Curve, level: float, x: str = "steps", guard: Guard | None = None) -> Measure:
    """How much of x it takes until a metric is as good as a level (and a guard holds); less is better.

    A seed that does not get there has its last x, which does not count as known.

    Args:
      x: "steps", "train_seconds", or an outcome that counts, such as "samples".
    """
    curve = as_curve(metric)

    def of(evaluations: Evaluations) -> Values:
        there = as_good(curve, evaluations, level)
        if guard is not None:
            there &= as_good(guard.metric, evaluations, guard.level)
        spent = spent_until(evaluations, x, there.shape)
        reached = spent[there.argmax(0), np.arange(there.shape[1])]
        return Values(np.where(there.any(0), reached, spent[-1]), there.any(0))

    to = f"{curve.metric.label} {level:g}" + (f" with {guard.text}" if guard else "")
    metric = Metric(x, f"{words(x)} to {to}", "lower")
    return Measure(metric, "when first reached", of)


def log10(measure: Metric | Curve | Measure) -> Measure:
    """The same on a logarithmic scale; levels are still given in the metric's own numbers."""
    measure = as_measure(measure)

    def of(evaluations: Evaluations) -> Values:
        values, known = measure.of(evaluations)
        return Values(np.log10(values), known)

    curve = measure.curve
    if curve is not None:
        curve = Curve(curve.metric, lambda evaluations, inner=curve: np.log10(inner.of(evaluations)))
    return measure._replace(of=of, curve=curve, log10=True)


def solved(measure: Measure) -> Measure:
    """1 for a seed whose value is known, such as one that has solved its task, and 0 for another one."""
    metric = Metric("solved", "share of seeds that get there")
    return Measure(metric, measure.how, lambda evaluations: _all_known(measure.of(evaluations).known.astype(float)))


def ratio(one: Metric | Curve | Measure, other: Metric | Curve | Measure, metric: Metric) -> Measure:
    """One measure over another one of the same run; `metric` names it."""
    one, other = as_measure(one), as_measure(other)

    def of(evaluations: Evaluations) -> Values:
        x, y = one.of(evaluations), other.of(evaluations)
        return Values(x.values / y.values, x.known & y.known)

    return Measure(metric, one.how, of)


def as_good(metric: Metric | Curve, evaluations: Evaluations, level: float) -> np.ndarray:
    """Where a metric is at least as good as a level, [T, S] bool."""
    curve = as_curve(metric)
    return sign(curve.metric) * curve.of(evaluations) >= sign(curve.metric) * level


def spent_until(evaluations: Evaluations, x: str, shape: Sequence[int]) -> np.ndarray:
    """What has been spent of x by each evaluation and seed, [T, S]."""
    if x in ("steps", "train_seconds"):
        return np.broadcast_to(np.asarray(getattr(evaluations, x), np.float64)[:, None], shape)
    return outcome(evaluations, x)


def _all_known(values: np.ndarray) -> Values:
    return Values(values, np.ones(np.shape(values), bool))


def words(x: str) -> str:
    """What texts call an x of `first`."""
    return "seconds of training" if x == "train_seconds" else x.replace("_", " ")
