"""Pass rates of a model's own responses, and which prompts are asked by them."""

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.language.curriculum import PassRates, chosen_prompts, pass_rates
from rl_jax.language.questions import Questions, Words
from rl_jax.language.rewards import Score
from rl_jax.language.sampler import Sampling, answers, sample
from tests.language.tiny import CONFIG, PARAMS

WORDS = Words(lambda tokens: " ".join(map(str, tokens)), (0,))
QUESTIONS = Questions(
    np.array([[1, 2, 3], [4, 5, 0], [6, 7, 8], [9, 10, 0], [11, 0, 0]]), np.array([3, 2, 3, 2, 1]),
    [{"source": "all", "number": number} for number in range(5)],
)
TOLD = Sampling(max_new_tokens=4, stop=(0,))


class Even:
    """1 for a response of even length; the checks of question 2 fail, all but one."""

    def scores(self, rows, responses, progress):
        seen, found = 0, []
        for row, text in zip(rows, responses, strict=True):
            seen += row["number"] == 2
            failed = row["number"] == 3 or row["number"] == 2 and seen > 1
            found.append(Score(0.0, outcome="died") if failed else Score(float(len(text.split()) % 2 == 0)))
        return found

    def close(self):
        """Nothing is open."""


def test_pass_rates_are_the_share_of_right_responses_whatever_is_sampled_together():
    key = jax.random.key(3)
    found = pass_rates(CONFIG, PARAMS, QUESTIONS, 6, TOLD, WORDS, Even(), key)
    by_two = pass_rates(CONFIG, PARAMS, QUESTIONS, 6, TOLD, WORDS, Even(), key, at_once=2)
    np.testing.assert_array_equal(found, by_two)
    samples = sample(CONFIG, PARAMS, QUESTIONS.tokens, QUESTIONS.lengths, 6, TOLD, key)
    lengths = np.array([sum(token != 0 for token in answer) for answer in answers(samples)]).reshape(5, 6)
    even = (lengths % 2 == 0).astype(float)
    wanted = [*even[:2].mean(1), even[2, 0], np.nan, even[4].mean()]
    np.testing.assert_allclose(found, wanted)
    assert 0 < np.nanmean(found) < 1


def test_rates_are_counted_by_run_and_fade():
    """Two runs; the second response of the first run's batch was not scored."""
    groups, known = np.array([[0, 0, 2], [1, 1, 1]]), np.array([[True, False, True], [True] * 3])
    rewards = np.array([[1.0, 9.0, 0.0], [1.0, 0.0, 1.0]], np.float32)
    rates = PassRates.empty(2, 3).after(groups, rewards, known, 1.0)
    np.testing.assert_array_equal(rates.total, [[1, 0, 0], [0, 2, 0]])
    np.testing.assert_array_equal(rates.seen, [[1, 0, 1], [0, 3, 0]])
    np.testing.assert_array_equal(rates.allowed(0.5, 0.9, 1), [[False, True, False], [True, True, True]])
    np.testing.assert_array_equal(rates.allowed(0.5, 0.9, 2), [[True, True, True], [True, True, True]])
    again = rates.after(groups, rewards, known, 0.5)
    np.testing.assert_array_equal(again.total, [[1.5, 0, 0], [0, 3, 0]])
    np.testing.assert_array_equal(again.seen, [[1.5, 0, 1.5], [0, 4.5, 0]])


def test_prompts_that_are_allowed_come_first_and_each_once():
    allowed = jnp.array([True, False, True, True, False, True])
    found = [np.asarray(chosen_prompts(jax.random.key(seed), allowed, 3)).tolist() for seed in range(20)]
    assert all(len(set(one)) == 3 and set(one) <= {0, 2, 3, 5} for one in found) and len(set(map(tuple, found))) > 5
    filled = np.asarray(chosen_prompts(jax.random.key(0), allowed, 6))
    assert set(filled[:4]) == {0, 2, 3, 5} and set(filled[4:]) == {1, 4}
