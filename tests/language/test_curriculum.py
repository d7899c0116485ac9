"""Pass rates of a model's own responses."""

import jax
import numpy as np

from rl_jax.language.curriculum import pass_rates
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
