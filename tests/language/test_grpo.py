"""GRPO and its kin: one update against its formula, what changes no update, failures, what is logged, learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rl_jax.language import grpo
from rl_jax.language.grpo import METHODS, grpo_program
from rl_jax.language.questions import Questions, Words
from rl_jax.language.reward_pool import RewardPool
from rl_jax.language.rewards import FAILURES, Score
from rl_jax.language.rows import Rows
from rl_jax.networks.trained import global_norm
from tests.language.tiny import CONFIG, PARAMS, log_probs

LETTERS, WANTED = "abcdefghijklm", "defg"
WORDS = Words(lambda tokens: "".join(LETTERS[token] for token in tokens), (0,))
QUESTIONS = Questions(
    np.array([[1, 2, 3], [4, 5, 0], [6, 7, 8], [9, 10, 0]]), np.array([3, 2, 3, 2]),
    [{"source": source} for source in ("few", "few", "many", "many")],
)


def share(text):
    return sum(letter in WANTED for letter in text) / max(len(text), 1)


class Counting:
    """Rewards the share of the letters of WANTED in a response; remembers what it was asked."""

    def __init__(self, failing=()):
        self.asked, self.failing, self.closed = [], failing, False

    def scores(self, rows, responses, progress):
        self.asked += [(row["source"], row["response_tokens"], text, progress) for row, text in zip(rows, responses)]
        return [
            Score(0.0, outcome="timed_out") if number in self.failing
            else Score(share(text), {"answered": 1.0}) for number, text in enumerate(responses)
        ]

    def close(self):
        self.closed = True


def program_of(
    method="grpo", scorer=None, batch_size=8, overlap=0, words=WORDS, questions=QUESTIONS, **fields
):
    config = ConfigDict({"batch_size": batch_size, "num_steps": 10, "overlap": overlap})
    config.agent = grpo.default_config(method)
    config.agent.update({"samples": 4, "max_new_tokens": 5, "learning_rate": 1e-2} | fields)
    return grpo_program(config, CONFIG, PARAMS, words, questions, questions, scorer or Counting())


def collected(program, state, number=0):
    """The batch of one run, and the host's metrics."""
    runs = jax.tree.map(lambda x: x[None], state.replace(step=None)).replace(step=state.step)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(1), number), 1)
    batch, metrics = program.feed.collect(runs, program.resident, keys, number)
    return jax.tree.map(lambda x: jnp.asarray(x[0]), batch), metrics


def updated(program, steps=1):
    state, step = program.init(jax.random.key(0), program.resident), jax.jit(program.step)
    for number in range(steps):
        batch, host = collected(program, state, number)
        state, metrics = step(state, program.resident, batch, jax.random.key(0))
        state = state.replace(step=state.step + 1)
    return state, metrics | host, batch


@pytest.fixture(scope="module")
def batch():
    program = program_of()
    return collected(program, program.init(jax.random.key(0), program.resident))[0]


@functools.cache
def compiled(method, fields):
    program = program_of(method, **dict(fields))
    return program, jax.jit(program.init)(jax.random.key(0), program.resident), jax.jit(program.step)


def stepped(batch, method="grpo", **fields):
    program, state, step = compiled(method, tuple(fields.items()))
    return step(state, program.resident, batch, jax.random.key(0))


def test_the_feed_samples_and_scores():
    scorer = Counting()
    program = program_of(scorer=scorer)
    batch, host = collected(program, program.init(jax.random.key(0), program.resident), 5)
    assert len(scorer.asked) == 8 and {x[3] for x in scorer.asked} == {0.5}
    for row, (source, taken, text, _) in enumerate(scorer.asked):
        mask = np.asarray(batch["mask"][row]) > 0
        assert QUESTIONS.rows[int(batch["group"][row])]["source"] == source == ("few", "many")[batch["source"][row]]
        tokens = np.asarray(batch["tokens"][row])[mask].tolist()
        start = int(np.argmax(mask))
        np.testing.assert_array_equal(
            batch["tokens"][row, :start], QUESTIONS.tokens[batch["group"][row]][:start]
        )
        assert taken == len(tokens)
        stopped = tokens[-1] == 0
        assert text == WORDS.decode(tokens[:-1] if stopped else tokens)
        assert bool(batch["truncated"][row]) != stopped
        assert float(batch["reward"][row]) == pytest.approx(share(text))
    assert np.all(np.asarray(batch["group"]).reshape(2, 4) == np.asarray(batch["group"]).reshape(2, 4)[:, :1])
    by_source = {x[0]: [] for x in scorer.asked}
    for (source, *_), value in zip(scorer.asked, batch["reward"], strict=True):
        by_source[source].append(float(value))
    for source, values in by_source.items():
        assert host[f"reward/{source}"] == pytest.approx(np.mean(values))
    assert host["outcome/timed_out"] == 0.0
    program.feed.close()
    assert scorer.closed


def by_formula(batch, params):
    """The gradient of GRPO's objective at its start, where all ratios are 1 and the KL term's gradient is 0."""
    mask, rewards = np.asarray(batch["mask"]), np.asarray(batch["reward"]).reshape(-1, 4)
    advantages = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)
    zeros = jnp.zeros_like(batch["mask"])
    rows = Rows(**batch, weights=zeros, advantages=zeros)

    def objective(params):
        by_row = jnp.sum(log_probs(params, rows) * mask, 1) / mask.sum(1)
        return -jnp.mean(advantages.reshape(-1) * by_row)

    return jax.jit(jax.grad(objective))(params)


def test_the_first_update_is_that_of_the_formula(batch):
    _, metrics = stepped(batch)
    wanted = by_formula(batch, PARAMS)
    np.testing.assert_allclose(metrics["policy/grad_norm"], global_norm(wanted), rtol=1e-4)
    assert float(metrics["policy/grad_norm"]) > 1e-2
    assert float(metrics["policy/kl_from_anchor"]) == 0.0 and float(metrics["policy/clip_fraction"]) == 0.0
    assert float(metrics["sampler/gap_max"]) < 1e-4 and float(metrics["sampler/age"]) == 0.0


@pytest.mark.parametrize("pieces", [1, 4])
def test_ratios_are_1_to_the_last_bit_at_the_first_update(batch, pieces):
    _, metrics = stepped(batch, micro_batches=pieces)
    assert float(metrics["policy/ratio_distance"]) == 0.0


@pytest.mark.parametrize("method", ["grpo", pytest.param("dapo", marks=pytest.mark.slow),
                                    pytest.param("reinforce_pp", marks=pytest.mark.slow)])
def test_micro_batches_change_no_update(batch, method):
    found = [stepped(batch, method, micro_batches=pieces) for pieces in (1, 4)]
    for name, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], value, rtol=1e-4, atol=2e-6, err_msg=name)
    # Adam divides a gradient by its own size: where that is rounding alone, an update may be any.
    one, other = (jax.tree.leaves(state.params) for state, _ in found)
    same = [np.isclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True)]
    assert sum(x.sum() for x in same) / sum(x.size for x in same) > 0.99


def test_a_failure_teaches_nothing_and_is_no_zero():
    program = program_of(scorer=Counting(failing=(1, 2)))
    batch, host = collected(program, program.init(jax.random.key(0), program.resident))
    assert host["outcome/timed_out"] == 0.25 and not np.any(batch["mask"][1:3])
    _, metrics = stepped(batch)
    _, others = stepped(batch | {"reward": batch["reward"].at[1:3].set(9.0)})
    assert all(float(metrics[name]) == float(others[name]) for name in metrics)
    assert float(metrics["reward/mean"]) == pytest.approx(float(np.sum(batch["reward"]) / 6), rel=1e-5)


def test_a_verifier_that_hangs_or_eats_memory_stops_no_training():
    """A third of the letters make the checker hang, a third make it eat all memory: the rest is learnt from."""
    words = Words(lambda tokens: ("hang", "eat", "ok")[sum(tokens) % 3], (0,))
    rows = [{**row, "answer": number} for number, row in enumerate(QUESTIONS.rows)]
    questions = QUESTIONS._replace(rows=rows)
    pool = RewardPool("hostile", module="tests.language.hostile_rewards", deadline=0.7, memory_bytes=2**27)
    program = program_of(scorer=pool, words=words, questions=questions)
    try:
        batch, host = collected(program, program.init(jax.random.key(0), program.resident))
    finally:
        program.feed.close()
    assert host["outcome/timed_out"] > 0 and sum(host[f"outcome/{x}"] for x in FAILURES) < 1
    _, metrics = stepped(batch)
    assert all(np.isfinite(value) for value in metrics.values())


def test_groups_of_equal_rewards_are_counted_and_teach_nothing(batch):
    equal = batch | {"reward": jnp.concatenate([jnp.full(4, 0.1), batch["reward"][4:]])}
    _, metrics = stepped(equal)
    assert float(metrics["group/zero_variance"]) == 0.5
    _, nothing = stepped(batch | {"reward": jnp.full(8, 0.1)}, "dapo")
    assert float(nothing["policy/grad_norm"]) == 0.0 and float(nothing["group/zero_variance"]) == 1.0


def test_truncated_responses_may_be_left_out(batch):
    cut = batch | {"truncated": jnp.ones(8, bool)}
    assert float(stepped(cut, "dapo", mask_truncated=True)[1]["policy/grad_norm"]) == 0.0
    assert float(stepped(cut, "dapo")[1]["policy/grad_norm"]) > 0.0


def test_a_sampler_that_is_not_the_policy_is_seen_and_corrected(batch):
    """Log-probs lower by log 3 make weights of 3, cut at 2: the gradient doubles."""
    away = batch | {"log_probs": batch["log_probs"] - np.log(3.0) * batch["mask"]}
    plain, found = (stepped(given, "dapo")[1] for given in (batch, away))
    assert float(found["sampler/gap_mean"]) == pytest.approx(np.log(3.0), rel=1e-3)
    assert float(found["policy/grad_norm"]) == pytest.approx(2.0 * float(plain["policy/grad_norm"]), rel=1e-3)


@pytest.mark.parametrize("method", [
    name if name == "grpo" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS
])
def test_every_method_learns(method):
    """By several updates of each batch, so that ratios are not all 1 and clips act."""
    program = program_of(
        method, batch_size=16, learning_rate=2e-2, kl_coefficient=0.0, num_epochs=2, updates_per_epoch=2
    )
    state = program.init(jax.random.key(0), program.resident)
    runs = jax.tree.map(lambda x: x[None], state.replace(step=None)).replace(step=state.step)
    before = float(np.mean(program.evaluate(runs, program.resident, jax.random.key(0)).outcomes["score"]))
    state, metrics, _ = updated(program, 15)
    runs = jax.tree.map(lambda x: x[None], state.replace(step=None)).replace(step=state.step)
    outcomes = program.evaluate(runs, program.resident, jax.random.key(0)).outcomes
    assert before < 0.8 and np.mean(outcomes["score"]) > 0.95 and float(metrics["policy/ratio_distance"]) > 1e-4
    assert outcomes["score"].shape == outcomes["length"].shape == (1, 4)
    assert float(metrics["policy/kl_from_anchor"]) > 0.1


@pytest.mark.parametrize("fields, message", [
    ({"samples": 3}, "config.batch_size=8 responses, agent.samples=3 to a prompt, of 4 prompts"),
    ({"samples": 1}, "two or more to a prompt"),
    ({"batch_size": 32}, "no more prompts than there are"),
    ({"advantages": "groups"}, "unknown config.agent.advantages 'groups': did you mean group"),
    ({"ratio": "row"}, "unknown config.agent.ratio 'row'"),
    ({"method": "gpro"}, "unknown method 'gpro': did you mean gspo or grpo"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        program_of(**fields)


def test_a_policy_that_has_diverged_is_named():
    program = program_of()
    state = program.init(jax.random.key(0), program.resident)
    state = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    with pytest.raises(FloatingPointError, match="not finite while it samples: it has diverged"):
        collected(program, state)
