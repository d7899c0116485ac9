"""Rounds of DPO: what is asked when, the anchor, a resume, learning; and how a policy is judged by its own answers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rl_jax.core.config import core_config
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import run_keys
from rl_jax.core.loop import run
from rl_jax.core.members import side_by_side
from rl_jax.core.program import Program
from rl_jax.language import dpo, rounds
from rl_jax.language.comparisons import best_and_worst, distinct, documents, sampled_documents
from rl_jax.language.own_answers import drawer, implicit_rewards, judge_config, sampled_log_probs, with_own_answers
from rl_jax.language.questions import Questions
from rl_jax.language.rounds import passes, restored_pairs, rounds_program, saved_pairs
from rl_jax.language.sampler import Sampling, answers, sample
from rl_jax.language.training import Trainable
from tests.language.tiny import CONFIG, PARAMS

QUESTIONS = Questions(
    np.array([[1, 2, 3], [4, 5, 0], [6, 7, 8], [9, 10, 0]]), np.array([3, 2, 3, 2]), [{"source": "few"}] * 4
)


def small_tokens(samples):
    """The share of tokens below 6 in each answer."""
    return np.array([np.mean(np.asarray(x) < 6) for x in answers(samples)])


class Comparing:
    """Best over worst by the share of small tokens; remembers what it was asked."""

    def __init__(self, n=4):
        self.n, self.asked = n, []

    def __call__(self, numbers, drawn, rng):
        scores = small_tokens(drawn.samples).reshape(-1, self.n)
        self.asked.append((numbers.tolist(), float(scores.mean())))
        found = best_and_worst(scores, distinct(drawn.samples, self.n))
        return documents(found, sampled_documents(drawn.samples, self.n, numbers)), {"reward/mean": scores.mean()}


def config_of(anchor="frozen", updates=3, **fields):
    config = ConfigDict({"agent": dpo.default_config(), "batch_size": 4, "num_steps": 6})
    config.agent.update({"learning_rate": 3e-2, "beta": 0.3} | fields)
    config.rounds = rounds.default_config(5)
    config.rounds.update({"prompts": 2, "samples": 4, "updates": updates, "anchor": anchor, "at_once": 2})
    return config


def program_of(compare=None, **fields) -> Program:
    return rounds_program(config_of(**fields), CONFIG, PARAMS, QUESTIONS, (0,), compare or Comparing())


def runs_of(state):
    return jax.tree.map(lambda x: x[None], state).replace(step=state.step)


def trained(program, steps, first=0, state=None):
    """The state after some steps of one run, and the batches and metrics that the feed gave."""
    state = jax.jit(program.init)(jax.random.key(0), program.resident) if state is None else state
    step, given = jax.jit(program.step), []
    for number in range(first, first + steps):
        keys = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(run_keys("collect", 0, 1))
        batch, said = program.feed.collect(runs_of(state), program.resident, keys, number)
        state, metrics = step(state, program.resident, jax.tree.map(lambda x: x[0], batch), keys[0])
        state = state.replace(step=state.step + 1)
        given.append((batch, said | metrics))
    return state, given


def test_every_round_asks_its_own_questions_from_the_policy_as_it_is():
    compare = Comparing()
    _, given = trained(program_of(compare), 9)
    assert [asked for asked, _ in compare.asked] == [[0, 1], [2, 3], [0, 1]]
    assert ["round/pairs" in metrics for _, metrics in given] == [True, False, False] * 3
    assert compare.asked[-1][1] > compare.asked[0][1] + 0.1  # it learns what is better
    batch, metrics = given[0]
    assert batch.first.tokens.shape == (1, 4, CONFIG.context_length)
    assert metrics["reward/mean"] == compare.asked[0][1] and metrics["round/chosen_length"] >= 1


def test_the_anchor_is_the_start_or_the_round_before():
    """Margins are 0 where a round starts at its own anchor, and in the second round from a frozen one they are not."""
    margins = {}
    for anchor in rounds.ANCHORS:
        _, given = trained(program_of(anchor=anchor), 4)
        margins[anchor] = [float(metrics["policy/margin"]) for _, metrics in given]
        assert abs(margins[anchor][0]) < 1e-5
    assert abs(margins["previous"][3]) < 1e-5 < 1e-3 < abs(margins["frozen"][3])


def test_an_optimiser_starts_anew_with_every_round():
    """Adam's count, and with it the schedule: the first update of each round is the size of the first of all."""
    _, given = trained(program_of(anchor="previous", warmup_steps=2, max_grad_norm=1e9), 4)
    sizes = [float(metrics["policy/update_norm"]) for _, metrics in given]
    assert sizes[3] == pytest.approx(sizes[0], rel=0.05) and sizes[2] > 1.5 * sizes[0]


def test_a_run_that_resumes_within_a_round_sees_the_same_pairs():
    one, other = program_of(), program_of()
    state, _ = trained(one, 4)
    saved = one.feed.save()
    expected, given = trained(one, 2, 4, state)
    other.feed.restore(saved)
    found, again = trained(other, 2, 4, state)
    for (batch, _), (same, _) in zip(given, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch, same)
    jax.tree.map(np.testing.assert_array_equal, expected.params, found.params)
    pairs = restored_pairs(saved["sets"][0])
    jax.tree.map(np.testing.assert_array_equal, pairs, restored_pairs(saved_pairs(pairs)))


@pytest.mark.slow
def test_seeds_of_different_starts_resume_from_a_checkpoint_in_the_loop(tmp_path):
    starts = [jax.device_get(PARAMS), jax.tree.map(lambda x: np.asarray(1.05 * x), PARAMS)]

    def run_to(steps, folder):
        config = core_config()
        config.update(config_of("previous"))
        config.num_steps, config.num_seeds, config.tensorboard = steps, 2, False
        config.loop.update({"chunk": 1, "log_every": 1, "eval_every": 0})
        config.checkpoint.every, config.batch_size = 2, 8  # of the eight devices

        def program(config):
            own = [rounds_program(config, CONFIG, start, QUESTIONS, (0,), Comparing()) for start in starts]
            return side_by_side(own, config.seed)

        return run(Experiment(program, {}, Metric("policy/loss", "loss", "lower")), config, tmp_path / folder)

    whole = run_to(7, "whole")
    run_to(4, "parts")  # in the middle of the second round
    found, expected = (jax.device_get(own.state.params) for own in (run_to(7, "parts"), whole))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_passes_take_everything_once_before_anything_twice():
    whole = np.concatenate([passes(5, [1, 2], start, 4) for start in range(0, 20, 4)])
    assert all(sorted(part) == [0, 1, 2, 3, 4] for part in whole.reshape(4, 5).tolist())
    assert any(one.tolist() != other.tolist() for one, other in itertools.pairwise(whole.reshape(4, 5)))


@pytest.mark.parametrize("fields, message", [
    ({"anchor": "last"}, "unknown config.rounds.anchor 'last'"),
    ({"compare": lambda numbers, drawn, rng: ([], {})}, "round 1 of 2 questions.*all answers are judged equally good"),
])
def test_bad_rounds_are_one_error(fields, message):
    with pytest.raises(ValueError, match=message):
        trained(program_of(**fields), 1)


def test_more_questions_than_there_are():
    config = config_of()
    config.rounds.prompts = 5
    with pytest.raises(ValueError, match="config.rounds.prompts=5 of 4 questions"):
        rounds_program(config, CONFIG, PARAMS, QUESTIONS, (0,), Comparing())


@pytest.mark.slow
def test_temperatures_share_the_answers_of_a_question():
    """The second half is drawn at 0: the most likely answer, twice, in the order of the questions that were asked."""
    told = [Sampling(max_new_tokens=5, stop=(0,), temperature=temperature) for temperature in (1.0, 0.0)]
    draw = drawer(Trainable(CONFIG, dpo.default_config()), QUESTIONS, 4, told, 2)
    several, keys = jax.tree.map(lambda x: x[None], PARAMS), jax.random.split(jax.random.key(1), 1)
    drawn = draw(several, PARAMS, np.array([3, 0, 2]), keys).of_run(0)
    assert drawn.samples.tokens.shape[0] == 12 and np.abs(drawn.log_ratio).max() < 1e-4
    likely = sample(CONFIG, PARAMS, QUESTIONS.tokens, QUESTIONS.lengths, 1, told[1], jax.random.key(0))
    said, best = answers(drawn.samples), answers(likely)
    for row, number in enumerate([3, 0, 2]):
        assert all(said[4 * row + column].tolist() == best[number].tolist() for column in (2, 3))
    assert any(said[4 * row].tolist() != said[4 * row + 1].tolist() for row in range(3))
    with pytest.raises(ValueError, match="3 answers to a question do not divide into 2 temperatures"):
        drawer(Trainable(CONFIG, dpo.default_config()), QUESTIONS, 3, told, 2)


@pytest.mark.slow
def test_a_policy_is_judged_by_its_own_answers():
    """Two runs, the start and another: a mean a question; the divergence is that of the tokens under both."""
    told = judge_config(5)
    told.update({"samples": 3, "at_once": 3})
    settings, moved = dpo.default_config(), jax.tree.map(lambda x: 1.1 * x, PARAMS)
    program = with_own_answers(
        program_of(), CONFIG, settings, told, QUESTIONS, (0,),
        lambda numbers, samples: {"small": small_tokens(samples), "number": numbers.astype(float)},
    )
    start = jax.jit(program.init)(jax.random.key(0), program.resident)
    both = {"policy": jax.tree.map(lambda x, y: jnp.stack([x, y]), PARAMS, moved)}
    found = program.evaluate(start.replace(params=both), program.resident, jax.random.key(5)).outcomes
    assert found["number"].tolist() == [[0, 1, 2, 3]] * 2 and not np.any(np.abs(found["kl"][0]) > 1e-5)
    samples = sample(
        CONFIG, moved, QUESTIONS.tokens, QUESTIONS.lengths, 3, Sampling(max_new_tokens=5, stop=(0,)),
        jax.random.fold_in(jax.random.key(told.seed), 0),
    )
    own = Trainable(CONFIG, settings)
    ratio = sampled_log_probs(own, moved, samples) - sampled_log_probs(own, PARAMS, samples)
    ratio = np.sum(ratio * samples.sampled, -1)
    np.testing.assert_allclose(found["kl"][1], ratio.reshape(4, 3).mean(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["small"][1], small_tokens(samples).reshape(4, 3).mean(1))
    total, mean = implicit_rewards(own, moved, PARAMS, samples, 0.5)
    np.testing.assert_allclose(total, 0.5 * ratio, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(mean, total / (samples.lengths - samples.prompt_lengths), rtol=1e-6)
