"""How a claim is put together and decided: what the constructors of `claims` have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.core.metrics import plain
from rl_jax.reports.aggregate import Estimate
from rl_jax.reports.declaration import Claim, Finding, Published, Reference, Shown
from rl_jax.reports.measures import Curve, Measure, MissingScores, Values, as_curve, as_measure
from rl_jax.reports.scores import Method, Scores, names_of
from rl_jax.reports.statistics import bootstrap_interval

By = Literal["interval", "mean", "every", "worst", "median"]
HOW = {
    "interval": "the whole 95% interval over seeds", "mean": "the mean over seeds", "every": "every seed",
    "worst": "the worst seed", "median": "the median seed",
}


class About(TypedDict, total=False):
    """What every constructor of a claim takes."""

    measure: Shown | None
    tasks: Sequence[str] | None
    name: str
    text: str
    published: float | Published | None
    beside: Sequence[Metric | Curve]


def make_claim(
    name: str,
    text: str,
    rule: str,
    check: Callable[[Scores], Finding],
    methods: Sequence[Method],
    about: About,
    published: Callable[[Published, Sequence[str]], float | None] | None = None,
) -> Claim:
    """A claim of the parts that its constructor made, with what the paper says of it in their place.

    Args:
      published: computes the statistic from a `Published`.
    """
    tasks = None if about.get("tasks") is None else tuple(about["tasks"])
    given = about.get("published")
    if isinstance(given, Published):
        if published is None:
            raise ValueError(f"claim {name!r}: no published value is computed for this kind, give a number")
        source, compute = given, published
        given = lambda tasks: compute(source, tasks)  # noqa: E731
    if tasks is not None and len(tasks) < 4:
        name, text = f"{name}_on_{'_'.join(tasks)}", f"{text}, on {', '.join(tasks)}"
    text = about.get("text", text)
    if about.get("measure") is not None:
        terms = _terms(as_measure(about["measure"]))
        text, rule = _fill(text, terms), _fill(rule, terms)
    plain_names = tuple(dict.fromkeys(one for method in methods for one in names_of(method)))

    def checked(scores: Scores) -> Finding:
        found = check(scores)
        metrics = about.get("beside", ())
        beside = [_beside(scores, method, metrics, tasks) for method in plain_names if metrics]
        return found._replace(detail="; ".join(part for part in (found.detail, *beside) if part))

    return Claim(
        about.get("name", name), text, rule, checked, plain_names, tasks, about.get("measure"), given
    )


def _beside(scores: Scores, method: str, metrics: Sequence[Metric | Curve], tasks: Sequence[str] | None) -> str:
    """What other metrics of a method say, before and after, means over seeds."""
    said = []
    for task in scores.tasks if tasks is None else tasks:
        for metric in metrics:
            means = as_curve(metric).of(scores.evaluations(method, task)).mean(1)
            said.append(f"{as_curve(metric).metric.label} {means[0]:.3g} -> {means[-1]:.3g}")
    return f"{scores.label(method)}: {', '.join(said)}"


def filled(claim: Claim, scores: Scores) -> tuple[str, str]:
    """Text and rule with labels and the measure in their places."""
    terms = {name: scores.label(name) for name in scores.paper.labels}
    if scores.paper.reference is not None:
        terms["reference"] = scores.paper.reference.label
    if "{measure}" in claim.text + claim.rule:
        terms |= _terms(scores.measure(claim.measure, claim.tasks))
    return _fill(claim.text, terms), _fill(claim.rule, terms)


def _terms(measure: Measure) -> dict[str, str]:
    """What stands for a measure in texts and rules."""
    return {
        "measure": measure.metric.label,
        "how": measure.how + (" (values are log10)" if measure.log10 else ""),
        "at_least": "at least" if measure.sign > 0 else "at most",
        "beyond": "above" if measure.sign > 0 else "below",
    }


def _fill(text: str, terms: Mapping[str, str]) -> str:
    # Not str.format: a method's name may hold a point.
    for name, term in terms.items():
        text = text.replace("{" + name + "}", term)
    return text


def judge(claim: Claim, scores: Scores) -> dict[str, Any]:
    """The verdict on a claim, as report.json has it.

    Verdicts: pass, fail, "not run here" with the reason in `detail`, or missing with what is lacking: runs, or seeds
    for an interval.
    """
    tasks = scores.tasks if claim.tasks is None else claim.tasks
    published = claim.published(tasks) if callable(claim.published) else claim.published
    text, rule = filled(claim, scores)
    verdict = {"name": claim.name, "text": text, "rule": rule, "paper_value": published}
    nothing = {"value": None, "interval": None}
    if claim.elsewhere:
        return verdict | nothing | {"verdict": "not run here", "detail": claim.elsewhere}
    try:
        found = claim.check(scores)
    except MissingScores as error:
        return verdict | nothing | {"verdict": "missing", "detail": ", ".join(map(str, error.args))}
    except ValueError as error:
        return verdict | nothing | {"verdict": "missing", "detail": str(error)}
    # What never happens, such as a level that is not reached, has no number in JSON.
    return verdict | {
        "verdict": "pass" if found.passed else "fail", "value": plain(found.value), "interval": plain(found.interval),
        "detail": found.detail,
    }


# Decisions


def decided(found: Values, level: float, direction: float, by: By) -> Finding:
    """Whether seeds are beyond a level, as `by` says.

    Args:
      found: [S], or [S, tasks].
      level: on the scale of the values.
      direction: 1 where they have to be above the level, -1 where below.
    """
    values, known = np.asarray(found.values, np.float64), found.known
    seeds = values.reshape(len(values), -1).mean(1)
    if by == "worst":
        value, interval = (values.min() if direction > 0 else values.max()), (values.min(), values.max())
    elif by == "median":
        value, interval = np.median(seeds), np.percentile(seeds, [2.5, 97.5])
    else:
        value, interval = seeds.mean(), interval_of(seeds)
    beyond = {
        "interval": min(direction * interval[0], direction * interval[1]) > direction * level,
        "every": (direction * values >= direction * level).all(),
        "worst": (direction * values >= direction * level).all(),
        "mean": direction * value >= direction * level,
        "median": direction * value >= direction * level,
    }[by]
    enough = known.mean() > 0.5 if by == "median" else known.all()
    detail = "" if known.all() else f"{known.sum()} of {known.size} seeds get there"
    return Finding(float(value), (float(interval[0]), float(interval[1])), bool(beyond and enough), detail)


def above(estimate: Estimate, level: float, direction: float = 1.0) -> Finding:
    """Passed where the whole interval lies on the good side of a level."""
    passed = estimate.low > level if direction > 0 else estimate.high < level
    return Finding(float(estimate.value), (float(estimate.low), float(estimate.high)), bool(passed))


def interval_of(values: np.ndarray) -> tuple[float, float]:
    """The 95% bootstrap interval of the mean of [N]; the one number where there is one."""
    if len(values) == 1:
        return float(values[0]), float(values[0])
    low, high = bootstrap_interval(values)
    return float(low), float(high)


def pair(scores: Scores, method: Method, other: Method, about: About) -> tuple[Measure, np.ndarray, np.ndarray]:
    """The measure, and what two methods are worth by it, [S, tasks] each."""
    measure = scores.measure(about.get("measure"), about.get("tasks"))
    return measure, *(scores.values(name, measure, about.get("tasks")).values for name in (method, other))


# Names


def ident(method: Method | Reference) -> str:
    """Of a method in a claim's name."""
    if isinstance(method, Reference):
        return method.field
    return method if isinstance(method, str) else "best_of_" + "_".join(method.methods)


def named(method: Method | Reference) -> str:
    """Of a method in a claim's text: a place that its label fills."""
    return "{" + method + "}" if isinstance(method, str) else method.label


def suffix(measure: Shown | None) -> str:
    """Tells claims of several measures apart by name."""
    return "" if measure is None else "_" + as_measure(measure).metric.name.removeprefix("eval/")
