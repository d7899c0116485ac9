"""Experiments on text: what is wrong with what they are to read is one error."""

import pytest

from rl_jax.language import experiments
from tests.papers import get_config


@pytest.mark.parametrize("paper, fields, message", [
    ("dpo", {"data.name": "gsm8k"}, "config.data.name=gsm8k holds answers, and pairs are compared"),
    ("reward_model", {"data.name": "hh"}, "unknown set of text 'hh'"),
    ("sft", {"data.longest": 513}, "config.data.longest=513 is longer than the model's context of 512"),
    ("sft", {"data.longest": 2}, "all .* records are longer than config.data.longest=2"),
    ("sft", {"data.held_out": 1e-9}, "leaves 2932 records of tiny_shakespeare to train on and 0 to judge"),
])
def test_bad_input_is_one_error(paper, fields, message):
    make = getattr(experiments, f"{paper}_experiment")
    with pytest.raises(ValueError, match=message):
        make(get_config(paper, "tiny", fields))


@pytest.mark.parametrize("paper", ["sft", "reward_model", "dpo"])
def test_a_real_model_that_was_not_fetched_says_how(paper, monkeypatch, tmp_path):
    monkeypatch.setattr("rl_jax.language.smollm2.location", lambda *_: tmp_path / "none.gguf")
    config = get_config(paper, "tiny", {"model.name": "smollm2"})
    with pytest.raises(FileNotFoundError, match="make smollm2"):
        getattr(experiments, f"{paper}_experiment")(config)
