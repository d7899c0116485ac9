"""Calculating by verified answers: questions and their split, the committed start, settings that cannot work."""

import jax
import numpy as np
import pytest

from configs import grpo
from rl_jax.language import rl_experiments as paper
from rl_jax.language.arithmetic import decode, expressions, questions, solved
from rl_jax.language.reward_pool import RewardPool, Scorer, scorer_of


def configured(preset, fields={}):
    config = grpo.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


def test_questions_are_split_and_answered():
    split = expressions(9, "+-*", 50)
    assert len(set(split.train) | set(split.held_out)) == len(split.train) + 50 == 300
    found = questions(["12+3", "3-12"])
    assert [decode(row[:length]) for row, length in zip(found.tokens, found.lengths)] == ["12+3=", "3-12="]
    assert [row["source"] for row in found.rows] == ["sums", "differences"]
    rows = solved(["12+3", "3-12"], 16)
    learnt = [decode(tokens[mask > 0]) for tokens, mask in zip(rows.tokens, rows.mask)]
    assert learnt == ["15\n", "-9\n"]
    assert [x.score for x in Scorer("arithmetic").scores(found.rows, ["15", "-8"], 0.0)] == [1.0, 0.0]


@pytest.mark.slow
def test_the_committed_start_answers_half():
    """Greedily, held-out questions of its training's kind."""
    program = paper.experiment(configured("quick")).program(configured("quick", {"num_seeds": 1}))
    state = jax.tree.map(lambda x: x[None], program.init(jax.random.key(0), program.resident))
    outcomes = program.evaluate(state, program.resident, jax.random.key(0)).outcomes
    assert outcomes["score"].shape == (1, 256) and 0.4 < np.mean(outcomes["score"]) < 0.65
    assert set(np.unique(outcomes["score"])) == {0.0, 1.0} and not np.any(outcomes["truncated"])
    program.feed.close()


def test_answers_are_scored_in_processes_where_asked():
    inside, pool = (scorer_of(configured(name).reward, "arithmetic") for name in ("tiny", "tiny-pool"))
    assert isinstance(inside, Scorer)
    assert isinstance(pool, RewardPool)
    pool.close()


@pytest.mark.parametrize("fields, message", [
    ({"task": "sft"}, "unknown config.task 'sft'"),
    ({"overlap": 1, "agent.refill": 1}, "agent.refill=1 and config.overlap=1"),
    ({"agent.max_new_tokens": 20}, "have up to 26 tokens, more than the context of 16"),
    ({"data.operators": "+/"}, "config.data.operators='.*': '/' is none of"),
    ({"data.judged": 800}, "config.data.judged=800 of 800 questions leaves none"),
    ({"start": "nowhere.npz"}, "nowhere.npz: no such model"),
    ({"decoder.width": 32}, "start.npz: .* pretrain it again"),
    ({"reward.name": "arithmetik"}, "unknown reward 'arithmetik': did you mean arithmetic"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    config = configured("tiny", fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(config).program(config)
