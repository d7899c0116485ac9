"""Measures and claims: numbers by hand, both directions, seeds that do not get there, and what claims say."""

import numpy as np
import pytest
import scipy.stats

from rl_jax.core.experiment import Metric
from rl_jax.reports import claims, measures
from rl_jax.reports.claims import better_by, better_than, changes_by, correlates, faster_than, never_behind, reaches
from rl_jax.reports.declaration import Published
from rl_jax.reports.judging import judge
from rl_jax.reports.measures import Guard, MissingScores, final
from rl_jax.reports.scores import BestOf, check_declared
from tests.reports.made_up import BEHAVIOUR, COST, LABELS, RUNS, SCORE, curve, evaluations, paper, scores

REFERENCES = {"t": {"behaviour": 50.0}, "u": {"behaviour": 70.0}}
SAVED = {
    "a-t": evaluations([1.0, 2.0, 9.0], summary=REFERENCES["t"]),
    "b-t": evaluations([3.0, 4.0, 5.0], summary=REFERENCES["t"]),
    "a-u": evaluations([60.0, 61.0, 62.0], summary=REFERENCES["u"]),
    "b-u": evaluations([80.0, 81.0, 61.5], summary=REFERENCES["u"]),
}
ON = {"tasks": ("t",)}


def verdict(claim, found):
    """(verdict, value) of a claim on Scores."""
    judged = judge(claim, found)
    return judged["verdict"], judged["value"]


# Measures


def test_reductions_of_a_curve():
    run = curve([[1.0, 8.0], [4.0, 2.0], [3.0, 6.0]], steps=[0, 10, 30], judge=[[1.0], [0.5], [0.9]])
    judge_metric = Metric("eval/judge", "judge")

    def values(measure):
        return measures.as_measure(measure).of(run)

    np.testing.assert_array_equal(values(SCORE).values, [3.0, 6.0])
    np.testing.assert_array_equal(values(measures.mean_of_last(SCORE, 2)).values, [3.5, 4.0])
    np.testing.assert_allclose(values(measures.area(SCORE)).values, [(25 + 70) / 30, (50 + 80) / 30])
    np.testing.assert_array_equal(values(measures.best(SCORE)).values, [4.0, 8.0])
    np.testing.assert_array_equal(values(measures.best(SCORE._replace(better="lower"))).values, [1.0, 2.0])
    np.testing.assert_array_equal(values(measures.best(SCORE, Guard(judge_metric, 0.8))).values, [3.0, 8.0])
    never = values(measures.best(SCORE, Guard(judge_metric, 2.0)))
    assert never.values.tolist() == [1.0, 8.0] and not never.known.any()
    np.testing.assert_array_equal(values(measures.change(SCORE)).values, [2.0, -2.0])
    np.testing.assert_array_equal(values(measures.change(SCORE, relative=True)).values, [2.0, -0.25])
    np.testing.assert_array_equal(values(measures.ratio(SCORE, judge_metric, COST)).values, [3 / 0.9, 6 / 0.9])
    doubled = measures.derived(COST, lambda score, judge: score * judge, SCORE, "judge")
    np.testing.assert_allclose(values(doubled).values, [2.7, 5.4])
    np.testing.assert_allclose(values(measures.log10(SCORE)).values, np.log10([3.0, 6.0]))


def test_the_lower_end_over_items_is_of_their_means_over_seeds():
    run = evaluations([0.0], steps=(10,), outcome="accuracy")
    run.outcomes["accuracy"] = np.array([[[1.0, 0.0, 1.0, 1.0], [1.0, 0.5, 0.5, 1.0]]])
    measure = measures.lower_end(Metric("eval/accuracy", "accuracy"), "prompts")
    wanted = 0.75 - 1.96 * np.std([1.0, 0.25, 0.75, 1.0], ddof=1) / 2
    np.testing.assert_allclose(measure.of(run).values, [wanted, wanted])
    assert measure.label == "lower end of the 95% interval of accuracy over prompts"
    with pytest.raises(MissingScores, match="no outcome 'score'"):
        measures.lower_end(SCORE, "prompts").of(run)


def test_the_first_evaluation_that_is_there_and_seeds_that_never_are():
    run = curve([[1.0, 8.0], [4.0, 2.0], [3.0, 6.0]], steps=[5, 10, 30], samples=[[100], [200], [300]])
    found = measures.first(SCORE, 7.0).of(run)
    assert found.values.tolist() == [30.0, 5.0] and found.known.tolist() == [False, True]
    assert measures.first(SCORE, 4.0, x="samples").of(run).values.tolist() == [200.0, 100.0]
    assert measures.first(SCORE, 4.0, x="train_seconds").of(run).values.tolist() == [20.0, 10.0]
    assert measures.first(SCORE._replace(better="lower"), 2.0).of(run).values.tolist() == [5.0, 10.0]
    assert measures.first(SCORE, 1.0, guard=Guard(SCORE, 5.0)).of(run).values.tolist() == [30.0, 5.0]


def test_an_outcome_that_is_not_there_is_named():
    found = scores({"a-t": curve([[1.0, 2.0]])})
    with pytest.raises(MissingScores, match="no outcome 'cost'; it has score"):
        found.values("a", COST)
    assert judge(reaches("a", 1.0, measure=COST), found)["verdict"] == "missing"


# Scores


def test_scores_of_methods_and_references():
    found = scores(SAVED, reference=BEHAVIOUR)
    assert (found.methods, found.tasks) == (("a", "b"), ("t", "u"))
    np.testing.assert_allclose(found.values("b").values, [[3.0, 80.0], [4.0, 81.0], [5.0, 61.5]])
    np.testing.assert_array_equal(found.reference(), [50.0, 70.0])
    np.testing.assert_allclose(found.values(BestOf(("a", "b"), "X")).values, [[3.0, 80.0], [4.0, 81.0], [9.0, 62.0]])
    with pytest.raises(ValueError, match=r"A has \[3, 2\] seeds"):
        scores(SAVED | {"a-u": evaluations([1.0, 2.0])}).values("a")
    other = evaluations([1.0, 2.0, 3.0], summary={"behaviour": 51.0})
    with pytest.raises(ValueError, match="the runs on t disagree on behaviour"):
        scores(SAVED | {"b-t": other}, reference=BEHAVIOUR).reference()


def test_tasks_of_several_measures_are_never_one_number():
    found = scores(SAVED, measure={"t": SCORE, "u": SCORE._replace(better="lower")})
    assert [tasks for _, tasks in found.groups()] == [("t",), ("u",)]
    with pytest.raises(ValueError, match="shown by different measures"):
        found.values("a")
    assert judge(better_than("b", "a"), found)["verdict"] == "missing"
    with pytest.raises(ValueError, match="says nothing of the tasks u"):
        scores(SAVED, measure={"t": SCORE})


# Claims


def test_comparisons_by_hand():
    found = scores(SAVED, reference=BEHAVIOUR)
    # Of the nine pairs b wins 6 on t and 8 on u.
    assert verdict(better_than("b", "a"), found)[1] == pytest.approx((6 / 9 + 8 / 9) / 2)
    # Sorted a: 1 2 9 60 61 62, one of six is cut off at each end; b: 3 4 5 61.5 80 81.
    difference = (4 + 5 + 61.5 + 80) / 4 - (2 + 9 + 60 + 61) / 4
    assert verdict(claims.not_worse_than("b", "a", 5.0), found)[1] == pytest.approx(difference)
    assert verdict(claims.close_to("b", "a", 500.0), found) == ("pass", pytest.approx(difference))
    assert verdict(claims.within_or_better("b", "a"), found)[0] == "pass"
    # Seeds paired: (2 + 20) / 2, (2 + 20) / 2, (-4 - 0.5) / 2.
    assert verdict(better_by("b", "a", by="mean"), found) == ("pass", pytest.approx((11 + 11 - 2.25) / 3))
    assert verdict(better_by("b", "a", by="worst"), found) == ("fail", -2.25)
    assert verdict(better_by("b", "a", 1.0, by="worst", over="tasks"), found) == ("fail", 0.0)
    assert verdict(claims.within_factor("b", "a", 9.0), found) == ("fail", pytest.approx(234.5 / 195.0))
    lower = scores(
        {"a-t": evaluations([4.0, 6.0]), "b-t": evaluations([9.0, 11.0])}, measure=SCORE._replace(better="lower")
    )
    assert verdict(claims.within_factor("a", "b", 0.6), lower) == ("pass", pytest.approx(0.5))
    assert verdict(claims.within_factor("a", "b", 0.5), lower)[0] == "fail"  # a resample has 6 over 11
    assert verdict(claims.within_factor("a", "b", 0.5, by="mean"), lower)[0] == "pass"
    assert verdict(claims.within_factor("b", "a", 1.5, measure=SCORE), lower)[0] == "pass"
    # b's gains: -47 -46 -45 -8.5 10 11, a's: -49 -48 -41 -10 -9 -8.
    judged = judge(claims.best_above_reference(["a", "b"]), found)
    assert judged["value"] == pytest.approx((-46 - 45 - 8.5 + 10) / 4) and judged["detail"] == "best: B"
    one = judge(claims.best_above_reference(["b"]), found)
    assert judged["interval"][0] <= one["interval"][0] and judged["interval"][1] >= one["interval"][1]


BETTER = [
    better_than("b", "a"), claims.not_worse_than("b", "a", 0.5), better_by("b", "a"), claims.within_or_better("b", "a"),
    reaches("b", 7.5, by="every"), reaches("b", 7.5), claims.at_least_share("b", 1.0, 7.5), claims.monotone(("a", "b")),
    never_behind("b", "a", SCORE, **ON), changes_by("b", SCORE, 3.0, **ON),
    faster_than("b", "a", SCORE, level=6.0, **ON, x="steps"), claims.best_above_reference(["b"]),
]


@pytest.mark.parametrize("place", range(len(BETTER)), ids=[claim.name for claim in BETTER])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["higher", "lower"])
def test_every_claim_follows_the_direction_of_its_metric(place, sign):
    """The same numbers with the other sign and the other direction give the same verdict; the opposite claim fails."""
    def lines(finals):
        return evaluations(sign * np.asarray(finals), summary={"behaviour": sign * 5.0})

    saved = {"a-t": lines([5.0, 5.5, 6.0]), "b-t": lines([8.0, 9.0, 8.5])}
    metric = SCORE if sign > 0 else SCORE._replace(better="lower")
    claim = BETTER[place]
    if sign < 0:
        rebuilt = {
            4: reaches("b", -7.5, by="every"), 5: reaches("b", -7.5), 6: claims.at_least_share("b", 1.0, -7.5),
            8: never_behind("b", "a", metric, **ON), 9: changes_by("b", metric, 3.0, **ON),
            10: faster_than("b", "a", metric, level=-6.0, **ON, x="steps"),
        }
        claim = rebuilt.get(place, claim)
    found = scores(saved, measure=metric, reference=BEHAVIOUR)
    assert judge(claim, found)["verdict"] == "pass"
    swapped = {"a-t": saved["b-t"], "b-t": saved["a-t"]}
    if place not in (9, 11):  # of these two the worse method also passes
        assert judge(claim, scores(swapped, measure=metric, reference=BEHAVIOUR))["verdict"] == "fail"


def test_how_seeds_decide():
    found = scores({"a-t": evaluations([1.0, 2.0, 6.0])})
    for by, level, expected in [
        ("mean", 3.0, ("pass", 3.0)), ("every", 1.0, ("pass", 3.0)), ("every", 1.5, ("fail", 3.0)),
        ("worst", 1.0, ("pass", 1.0)), ("worst", 1.5, ("fail", 1.0)), ("median", 2.0, ("pass", 2.0)),
        ("median", 2.5, ("fail", 2.0)), ("interval", 0.5, ("pass", 3.0)), ("interval", 3.0, ("fail", 3.0)),
    ]:
        assert verdict(reaches("a", level, by=by), found) == expected, (by, level)
    assert judge(reaches("a", 1.0, by="worst"), found)["interval"] == [1.0, 6.0]
    assert verdict(claims.within("a", 1.0, 6.0), found)[0] == "pass"
    assert verdict(claims.within("a", 1.5, 6.0), found)[0] == "fail"


def test_seeds_that_do_not_get_there_fail():
    """A cost that is only a bound, of seeds that did not solve their task, is no small cost."""
    measure = measures.log10(final(COST, known="solved"))
    run = curve([[100.0, 1000.0, 10.0]], outcome="cost", solved=[[1.0, 1.0, 0.0]])
    found = scores({"a-t": run, "b-t": curve([[500.0] * 3], outcome="cost", solved=1.0)}, measure=measure)
    assert verdict(reaches("a", 1000.0, by="worst"), found) == ("fail", 3.0)
    assert verdict(reaches("a", 100.0, by="median"), found) == ("pass", 2.0)
    assert judge(reaches("a", 1000.0, by="every"), found)["detail"] == "2 of 3 seeds get there"
    assert verdict(better_by("b", "a", 1 / 3, by="mean", measure=measures.solved(measure)), found)[0] == "pass"
    text = judge(reaches("a", 1000.0, by="worst"), found)
    assert text["text"] == "A: cost at most 1,000" and "the worst seed at most 1,000" in text["rule"]


def test_time_to_a_level_and_to_the_others_end():
    saved = {"a-t": curve([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [6.0, 6.0]]), "b-t": curve([[6.0, 4.0], [7.0, 7.0]])}
    found = scores(saved)
    # a is at 4 after 40 steps, b after 10 and 10; a's end, 6, b has after 10 and 20 of a's 40.
    assert verdict(faster_than("b", "a", SCORE, level=4.0, factor=0.25, x="steps"), found) == ("pass", 0.25)
    assert verdict(faster_than("b", "a", SCORE, factor=0.5), found) == ("pass", 0.375)
    assert verdict(faster_than("b", "a", SCORE, factor=0.3), found) == ("fail", 0.375)
    # A quarter of the way of a is 2.25, which a has after 30 steps and b after 10 and 10; the whole of it is a's end.
    quarter = faster_than("b", "a", SCORE, gain=0.25, factor=0.4, x="steps")
    assert verdict(quarter, found) == ("pass", pytest.approx(1 / 3))
    never = judge(faster_than("a", "b", SCORE), found)
    assert (never["verdict"], never["value"]) == ("fail", None) and "2 seeds never there" in never["detail"]
    assert verdict(never_behind("b", "a", SCORE, after=0.5), found) == ("pass", 4.0)
    assert verdict(never_behind("a", "b", SCORE), found) == ("fail", -5.0)


def test_ranks_over_tasks():
    tasks = [f"t{k}" for k in range(6)]
    up, down = [1, 2, 4, 3, 5, 6], [6, 5, 4, 3, 2, 1]
    saved = {f"a-{task}": evaluations([k, k + 0.1]) for k, task in enumerate(tasks)}
    saved |= {f"b-{task}": evaluations([x, x + 0.2], summary={"behaviour": y})
              for task, x, y in zip(tasks, up, down, strict=True)}
    found = scores(saved)
    rho = scipy.stats.spearmanr(range(6), up).statistic
    assert verdict(correlates("a", "b"), found) == ("pass", pytest.approx(rho))
    assert verdict(correlates("a", BEHAVIOUR, negative=True), found) == ("pass", -1.0)
    few = scores({name: run for name, run in saved.items() if name[-1] in "012"})
    assert verdict(correlates("a", "b"), few) == ("fail", 0.0)
    assert verdict(claims.solves_as_many_as("a", "b"), found) == ("pass", 0.0)


def test_evaluations_rank_alike_and_an_advantage_shrinks_by_hand():
    """Costs fall as scores rise, in all of two runs' evaluations but one; b leads a by 3 on t and by 1 on u."""
    found = scores({
        "a-t": curve([[1.0, 2.0], [3.0, 4.0]], cost=[[9.0, 8.0], [7.0, 6.0]]),
        "b-t": curve([[4.0, 5.0], [6.0, 7.0]], cost=[[5.0, 4.0], [3.0, 10.0]]),
        "a-u": curve([[3.0, 4.0]], cost=[[0.0, 0.0]]), "b-u": curve([[4.0, 5.0]], cost=[[0.0, 0.0]]),
    })
    one, both = (claims.correlates_over_evaluations(names, COST, SCORE, 0.4, tasks=("t",)) for names in ("a", "ab"))
    assert verdict(one, found) == ("pass", 1.0)
    score, cost = [1, 2, 3, 4, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 10]
    rho = scipy.stats.spearmanr(score, [-x for x in cost]).statistic
    assert verdict(both, found) == ("pass" if rho >= 0.4 else "fail", pytest.approx(rho))
    assert verdict(claims.advantage_shrinks("b", "a", "t", "u"), found) == ("pass", 2.0)
    assert verdict(claims.advantage_shrinks("b", "a", "u", "t"), found) == ("fail", -2.0)
    assert judge(claims.advantage_shrinks("b", "a", "t", "u"), found)["detail"] == "3 on t, 1 on u"


def test_claims_made_of_claims():
    found = scores(SAVED)
    good, bad = reaches("a", 0.5, by="every"), reaches("a", 100.0, by="every", measure=SCORE)
    assert verdict(claims.all_of([good, good]), found)[0] == "pass"
    assert verdict(claims.all_of([good, bad]), found)[0] == "fail"
    assert verdict(claims.any_of([bad, good]), found)[0] == "pass"
    assert verdict(claims.any_of([bad, bad]), found)[0] == "fail"
    one_of_two = claims.passes_in_n_of_m(2, [good, bad])
    assert verdict(one_of_two, found) == ("fail", 1.0)
    assert verdict(claims.passes_in_n_of_m(1, [good, bad]), found) == ("pass", 1.0)
    assert judge(one_of_two, found)["text"] == "A: score at least 0.5 or A: score at least 100"


def test_verdicts_without_numbers():
    found = scores({name: SAVED[name] for name in ("a-t", "a-u")} | {})
    lacking = judge(better_than("a", "a"), found)
    assert lacking["verdict"] == "fail" and lacking["value"] == 0.5
    runs = paper(claims=[better_than("b", "a")])
    empty = scores(SAVED)
    empty._evaluations = {"a-t": SAVED["a-t"], "a-u": SAVED["a-u"]}
    missing = judge(runs.presets["p"]().claims[0], empty)
    assert missing["verdict"] == "missing" and missing["detail"] == "b-t, b-u" and missing["interval"] is None
    there = judge(claims.elsewhere(better_than("c", "a"), "needs an accelerator: preset `full`"), empty)
    assert there["verdict"] == "not run here" and "accelerator" in there["detail"]
    alone = scores({"a-t": evaluations([1.0]), "b-t": evaluations([2.0])})
    assert "at least 2" in judge(better_than("b", "a"), alone)["detail"]


def test_texts_follow_from_the_parameters():
    found = scores(SAVED, reference=BEHAVIOUR)
    for claim, text, rule in [
        (better_than("b", "a", 0.6), "B better than A", "P(better) above 0.6: its whole 95% interval"),
        (reaches("b", 7.5, tasks=("t",)), "B: score at least 7.5, on t",
         "score at the last evaluation: the whole 95% interval over seeds above 7.5"),
        (reaches("b", 7.5, measure=COST), "B: cost at most 7.5",
         "cost at the last evaluation: the whole 95% interval over seeds below 7.5"),
        (changes_by("a", COST, 0.2, relative=True), "A: cost down by 20%",
         "relative change of cost: every seed down by at least 20%"),
        (reaches("a", BEHAVIOUR, text="{a} is as good as it gets"), "A is as good as it gets",
         "score at the last evaluation: the whole 95% interval over seeds above the behaviour policy"),
    ]:
        judged = judge(claim, found)
        assert (judged["text"], judged["rule"]) == (text, rule)


def test_guards_stand_beside_a_finding():
    run = curve([[1.0, 1.0], [5.0, 5.0]], judge=[[0.9], [0.1]])
    claim = reaches("a", 2.0, by="every", beside=(Metric("eval/judge", "judge's accuracy"),))
    assert judge(claim, scores({"a-t": run}))["detail"] == "A: judge's accuracy 0.9 -> 0.1"


def test_statistics_of_published_numbers():
    source = Published("X", "", {"a": {"t": (1.0, 3.0), "u": (9.0, 4.0)}, "b": {"t": (2.0, 4.0), "v": (1.0, 1.0)}})
    # Only t is in both: b - a is normal with mean 1 and deviation 5.
    expected = scipy.stats.norm.sf(0.0, loc=1.0, scale=5.0)
    found = scores(SAVED)
    assert judge(better_than("b", "a", published=source), found)["paper_value"] == pytest.approx(expected)
    assert judge(claims.not_worse_than("b", "a", 1.0, published=source), found)["paper_value"] == 1.0
    nothing = claims.elsewhere(better_than("a", "c", published=source), "elsewhere")
    assert judge(nothing, found)["paper_value"] is None
    with pytest.raises(ValueError, match="no published value is computed"):
        reaches("a", 1.0, published=source)


def test_a_wrong_declaration_is_refused_before_anything_runs():
    a, b = RUNS[:2]
    claim = better_than("b", "a")
    for runs, made, labels, message in [
        ((a, a), (), LABELS, "runs of one name: a-t"),
        ((a, b), (claim, claim), LABELS, "claims of one name: b_better_than_a"),
        ((a, b), (), {"a": "A"}, "without a label: b"),
        ((a,), (claim,), LABELS, "claim 'b_better_than_a' speaks of b on t"),
        ((a, b), (better_than("b", "a", tasks=("v",)),), LABELS, "speaks of b on v"),
        ((a._replace(needs={"init_from.run": "b-v"}), b), (), LABELS, "run a-t needs unknown run 'b-v': did you mean"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_declared(paper(runs=runs, claims=made).presets["p"](), labels)
    check_declared(paper(runs=(a,), claims=[claims.elsewhere(claim, "elsewhere")]).presets["p"](), LABELS)
