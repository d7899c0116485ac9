"""Verifiable rewards: answers read exactly, and a pool that nothing a response does can stop."""

import time
from fractions import Fraction

import pytest

from rl_jax.core.extras import MissingExtraError
from rl_jax.language.reward_pool import RewardPool, Scorer
from rl_jax.language.rewards import (
    FAILURES,
    Score,
    final_number,
    parse_expression,
    parse_number,
    reward,
    summary,
)


@pytest.mark.parametrize("text, value", [
    ("7", 7), (" -7. ", -7), ("1,234.50", Fraction(2469, 2)), ("$3", 3), ("20%", 20), ("3/4", Fraction(3, 4)),
    (".5", Fraction(1, 2)), ("0.1", Fraction(1, 10)), ("", None), ("seven", None), ("1e9", None), ("3/0", None),
    ("1,23", None), ("9" * 101, None), ("7 8", None),
])
def test_numbers_are_read_exactly(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize("text, value, numbers", [
    ("1+2*3", 7, (1, 2, 3)), ("(1+2)*3", 9, (1, 2, 3)), ("7/3-1", Fraction(4, 3), (7, 3, 1)), ("-(4)", -4, (4,)),
])
def test_expressions_are_exact(text, value, numbers):
    assert parse_expression(text) == (value, numbers)


@pytest.mark.parametrize("text", [
    "2**9", "7//2", "1/0", "2(3)", "(1", "", "1+", "a+1", "__import__('os')", "1.5+1", "007", "(" * 400 + "1",
    "-" * 999 + "1", "1" * 1001,
])
def test_what_is_no_arithmetic_is_none_and_runs_nothing(text):
    assert parse_expression(text) is None or text.startswith("-")  # deep signs may or may not be too deep


def score(name, row, response, options={}):
    return reward(name, **options)(row, response, 0.5)


def test_rewards_by_hand():
    assert score("numeric", {"answer": "so it is #### 1,200"}, "first 3, then 1200.0").score == 1.0
    assert score("numeric", {"answer": 12}, "12 or 13").score == 0.0
    assert score("numeric", {"answer": "12"}, "12", {"marker": "####"}) == Score(0.0, {"answered": 0.0})
    assert score("numeric", {"answer": "12"}, "3 #### 12", {"marker": "####"}).score == 1.0
    assert final_number("no number") is None
    assert score("arithmetic", {"expression": "12+3*4"}, "24").score == 1.0
    assert score("arithmetic", {"expression": "1/3"}, "0.333") == Score(0.0, {"answered": 1.0})
    countdown = {"numbers": [3, 5, 7, 7], "target": 36}
    assert score("countdown", countdown, "so <answer>(7-3)*7+5+3</answer>", {"format_score": 0.1}).score == 0.1
    assert score("countdown", {"numbers": [3, 5, 7], "target": 36}, "<answer>3*(5+7) = 36</answer>").score == 1.0
    assert score("countdown", {"numbers": [3, 5], "target": 8}, "eight").score == 0.0
    assert score("tags", {}, "<think>a\nb</think>\n<answer>1</answer>").score == 1.0
    assert score("tags", {}, "<think>a</think><answer>1</answer> so").score == 0.0
    assert score("tags", {}, "<think>a<think></think><answer>1</answer>").score == 0.0
    for tokens, wanted in ((6, 0.0), (8, -0.5), (10, -1.0), (99, -1.0)):
        assert score("length", {"response_tokens": tokens}, "", {"limit": 10, "cushion": 4}).score == wanted
    both = [("numeric", 1.0, {}), ("length", 0.5, {"limit": 10, "cushion": 4})]
    found = score("weighted", {"answer": 3, "response_tokens": 8}, "3", {"parts": both})
    assert found.score == 0.75 and found.parts == {"numeric_answered": 1.0, "numeric": 1.0, "length": -0.5}


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="unknown reward 'numerical': did you mean numeric"):
        reward("numerical")
    with pytest.raises(ValueError, match="reward 'numeric' does not know mark: its options are marker"):
        reward("numeric", mark="=")
    with pytest.raises(ValueError, match="the row's answer 'seven' is no number"):
        score("numeric", {"answer": "seven"}, "7")
    with pytest.raises(ValueError, match="cushion=0 of limit=4"):
        reward("length", limit=4, cushion=0)
    with pytest.raises(ValueError, match="each reward once"):
        reward("weighted", parts=[("numeric", 1.0, {}), ("numeric", 1.0, {"marker": "="})])
    with pytest.raises(ValueError, match="a pool of rewards with deadline=0"):
        RewardPool("numeric", deadline=0)


def test_means_are_of_each_source_and_failures_are_no_zeros():
    scores = [Score(1.0, {"answered": 1.0}), Score(0.0, outcome="timed_out"), Score(0.5, {"answered": 0.0}), Score(0.0)]
    found = summary(scores, ["sums", "sums", "sums", "other"])
    assert found == {"reward/sums": 0.75, "reward/sums/answered": 0.5, "reward/other": 0.0} | {
        f"outcome/{failure}": 0.25 * (failure == "timed_out") for failure in FAILURES
    }


def test_no_response_stops_the_pool():
    """A `rl_jax.language.reward_worker` that hangs is killed in time, one that eats memory is bounded, one that ends is
    replaced, and the others' scores come in order."""
    pool = RewardPool("hostile", module="tests.language.hostile_rewards", deadline=2.0, memory_bytes=2**27)
    said = ["ok", "hang", "eat", "die", "raise", "print", "nan", "devices", "ok"]
    try:
        pool.scores([{"answer": 0}], ["ok"], 0.0)  # it starts
        began = time.monotonic()
        found = pool.scores([{"answer": n} for n in range(len(said))], said, 0.25)
        assert time.monotonic() - began < 15
    finally:
        pool.close()
    assert [x.outcome for x in found] == [
        "scored", "timed_out", "out_of_memory", "died", "raised", "scored", "raised", "scored", "scored"
    ]
    assert found[0].score == 0.25 and found[5].score == 5.25 and found[8].score == 8.25
    assert found[7].parts == {"hidden": 1.0}


def test_a_pool_that_cannot_start_says_why():
    pool = RewardPool("hostil", module="tests.language.hostile_rewards", workers=1)
    try:
        with pytest.raises(RuntimeError, match="unknown reward 'hostil': did you mean hostile"):
            pool.scores([{}], [""], 0.0)
    finally:
        pool.close()


def test_a_scorer_in_this_process_gives_the_same():
    rows, responses = [{"answer": 1}, {"answer": 2}], ["1", "1"]
    assert [x.score for x in Scorer("numeric").scores(rows, responses, 0.0)] == [1.0, 0.0]


def test_latex_is_an_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
    with pytest.raises(MissingExtraError, match=r"math_verify is not installed: pip install 'rl_jax\[math\]'"):
        reward("latex")


def test_latex_in_a_pool_where_alarms_would_not_work():
    pytest.importorskip("math_verify")
    pool = RewardPool("latex", workers=1, deadline=20.0)
    try:
        rows = [{"answer": r"\frac{1}{2}"}, {"answer": "x^2+2x+1"}, {"answer": "3"}]
        found = pool.scores(rows, ["it is $0.5$", r"so \boxed{(x+1)^2}", "$4$"], 0.0)
    finally:
        pool.close()
    assert [x.score for x in found] == [1.0, 1.0, 0.0]
