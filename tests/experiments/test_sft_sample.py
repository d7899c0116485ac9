"""`python -m experiments.sft.sample`: texts, how likely they are, and one error for what cannot be sampled."""

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.sft import sample
from rl_jax.language.sampler import padded

flags.FLAGS(["sample"])
STORY = ", there was a little girl named Lily. She loved to play outside in the park."


def test_it_goes_on_with_a_prompt(capsys):
    with flagsaver.flagsaver(prompt=["Once upon a time"], temperature=0.0, max_new_tokens=24, samples=2):
        sample.main(["sample"])
    head, text, again, same = capsys.readouterr().out.splitlines()
    assert head.startswith("[prompt 1, text 1: 24 tokens, log-prob -") and head.endswith("(cut off)")
    assert STORY.startswith(text) and text == same and again.startswith("[prompt 1, text 2")


@pytest.mark.parametrize(
    "given, message",
    [
        ({"model": "nowhere"}, "nowhere is no folder"),
        ({"max_new_tokens": 600}, "exceed the context of 512"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_what_cannot_be_sampled_is_named(given, message):
    with flagsaver.flagsaver(**given), pytest.raises((ValueError, FileNotFoundError), match=message):
        sample.main(["sample"])
    with pytest.raises(ValueError, match="unexpected arguments"):
        sample.main(["sample", "Once"])


def test_prompts_are_padded_on_the_right():
    tokens, lengths = padded([np.array([1, 2, 3]), np.array([4])])
    assert tokens.tolist() == [[1, 2, 3], [4, 0, 0]] and lengths.tolist() == [3, 1]
