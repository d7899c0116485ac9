"""Pairwise-RL: pairs and anchors, rewards of the arms, what a shift of rewards changes, arms at one divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pairwise_rl
from experiments.pairwise_rl import experiment as paper
from experiments.pairwise_rl.claims import crossing
from experiments.pairwise_rl.tasks import TASKS
from rl_jax.language import sorting
from rl_jax.language.reward_model import learned
from rl_jax.language.rows import weights
from rl_jax.language.sampler import padded, prompts_and_answers
from rl_jax.losses.advantages import centred_advantages, group_advantages
from rl_jax.losses.policy_gradient import policy_gradient_loss


def configured(preset, fields={}):
    config = pairwise_rl.get_config(preset)
    config.update_from_flattened_dict({"tensorboard": False, **fields})
    return config


CONFIG = configured("tiny-judge-sft")
TASK = TASKS["sorting"](CONFIG)
START, OTHER = TASK.starts("start", "")
SHARP = jax.tree.map(lambda x: 6.0 * x, START)  # scorers that are not indifferent


@pytest.fixture(scope="module")
def sampled():
    """Two answers to each training problem by the start of seed 0."""
    return paper.own_answers(CONFIG, TASK, START, 0, TASK.train, 2)


# Pairs and anchors


def test_an_anchor_is_fixed_for_a_prompt_and_of_its_own_seed():
    first, again = (paper.anchor_answers(CONFIG, TASK, 0, START, TASK.train) for _ in range(2))
    other = paper.anchor_answers(CONFIG, TASK, 1, OTHER, TASK.train)
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert any(not np.array_equal(x, y) for x, y in zip(first, other, strict=True))
    gold = paper.anchor_answers(configured("tiny-judge-gold"), TASK, 0, START, TASK.train)
    for anchor, problem in zip(gold, TASK.train, strict=True):
        assert sorting.decode(anchor) == "".join(sorted(problem.row["digits"])) + "\n"
    asked = TASK.questions(TASK.train, gold, 6)
    assert asked.anchors[0].shape == (64, 6) and set(asked.anchors[1]) == {4}


def test_scorers_read_the_same_pairs_and_the_share_of_ground_truths_that_is_told():
    fields = {"pairs.sharpness": 1e6, "pairs.kept": 400}
    config, task = configured("tiny-bt-anchors", fields), TASK
    train, held_out = paper.own_pairs(config, task, 0, START)
    same, _ = paper.own_pairs(configured("tiny-judge-anchors", fields), task, 0, START)
    assert all(np.array_equal(x.chosen.tokens, y.chosen.tokens) for x, y in zip(train, same, strict=True))

    def gold(document):
        digits, _, answer = sorting.decode(document.tokens).partition("=")
        return digits, sorting.gold(digits, answer.removesuffix("\n"))

    references = 0
    for pair in train:
        (digits, better), (other, worse) = gold(pair.chosen), gold(pair.rejected)
        assert digits == other and better > worse and pair.margin == pytest.approx(better - worse)
        references += better == 1.0
    assert references and len(train) == 400
    unseen, _ = paper.own_pairs(configured("tiny-judge-plain", fields), task, 0, START)
    assert sum(gold(pair.chosen)[1] == 1.0 for pair in unseen) < references
    assert [pair.chosen.group for pair in held_out] == list(range(16))
    judged = {problem.row["digits"] for problem in task.held_out}
    assert all(gold(pair.chosen)[0] in judged and gold(pair.chosen)[1] > gold(pair.rejected)[1] for pair in held_out)
    assert judged.isdisjoint(problem.row["digits"] for problem in task.train)


# Rewards of the arms


def test_the_anchor_itself_earns_one_half(sampled):
    width = CONFIG.agent.max_new_tokens
    tokens, lengths = prompts_and_answers(sampled, width)[1]
    for kind in ("judge", "bt_anchored"):
        scorer, = paper.scorers_of(configured("tiny-judge-sft", {"scorer.kind": kind}), TASK, [SHARP])
        if kind == "bt_anchored":
            scorer.params["head"] = np.linspace(-1.0, 1.0, TASK.decoder.width, dtype=np.float32)
        reward = jax.jit(scorer.rewards)
        np.testing.assert_allclose(reward(scorer.params, sampled, tokens, lengths), 0.5, atol=1e-6)
        truths, sizes = padded([problem.reference for problem in TASK.train for _ in range(2)])
        beside = np.asarray(reward(scorer.params, sampled, truths, sizes))
        assert np.abs(beside - 0.5).max() > 1e-4 and 0.0 <= beside.min() <= beside.max() <= 1.0


def test_the_scaled_number_has_the_judges_deviation_within_a_prompt():
    head = np.linspace(-1.0, 1.0, TASK.decoder.width, dtype=np.float32)
    own = learned(TASK.decoder, SHARP, head)
    judge, = paper.scorers_of(configured("tiny-judge-sft"), TASK, [SHARP])
    factor = paper.deviation_ratio(configured("tiny-bt-scaled"), TASK, 0, START, own, judge)
    scaled = paper.scaled(own, factor)
    assert factor != 1.0
    assert paper.deviation_ratio(configured("tiny-bt-scaled"), TASK, 0, START, scaled, judge) == pytest.approx(1.0)


def test_a_shift_changes_the_raw_reward_and_nothing_that_is_compared():
    rng = np.random.default_rng(0)
    rewards, anchors, added = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (6, 1), (6, 1)))
    found = paper.shift(rewards, anchors, added)
    assert found["raw"] == pytest.approx(np.abs(added).max(), rel=1e-5)
    assert max(found[name] for name in ("anchored", "p3o", "group")) <= 1e-6
    # GRPO's division by the deviation leaves it so.
    np.testing.assert_allclose(group_advantages(rewards + added), group_advantages(rewards), atol=1e-5)
    one_shifted = paper.shift(rewards, anchors - added, added)  # an anchor of another prompt's scale is seen
    assert one_shifted["anchored"] <= 1e-6 < np.abs(jax.nn.sigmoid(rewards - anchors + added)
                                                    - jax.nn.sigmoid(rewards - anchors)).max()


def test_two_answers_less_their_mean_have_the_gradient_of_p3o():
    rng = np.random.default_rng(1)
    logits, tokens = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32), rng.integers(0, 5, (4, 3))
    rewards = jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)

    def log_probs(logits):
        return jnp.take_along_axis(jax.nn.log_softmax(logits)[None], tokens[..., None], -1)[..., 0]  # [4, 3]

    def ours(logits, rewards):
        mask = jnp.ones((4, 3))
        share = weights(mask, 4.0) * centred_advantages(rewards).reshape(4, 1)  # config.agent.weights "sequence_sum"
        ratio = log_probs(logits) - jax.lax.stop_gradient(log_probs(logits))
        return policy_gradient_loss(ratio, 0.0 * ratio, share, mask, clip_low=0.2, clip_high=0.2, aggregation=1.0)[0]

    def p3o(logits):
        whole = log_probs(logits).sum(-1).reshape(2, 2)
        return -0.5 * jnp.sum((rewards[:, 0] - rewards[:, 1]) * (whole[:, 0] - whole[:, 1])) / 4

    np.testing.assert_allclose(jax.grad(ours)(logits, rewards), jax.grad(p3o)(logits), atol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(logits, rewards + 0.5), jax.grad(p3o)(logits), atol=1e-6)


def test_arms_are_compared_where_they_first_reach_the_same_divergence():
    divergence = np.array([[0.0, 0.0, 0.0], [0.5, 2.0, 0.1], [1.5, 1.0, 0.2]])
    gold = np.array([[0.5, 0.5, 0.5], [0.6, 0.9, 0.6], [0.8, 0.1, 0.7]])
    values, known = crossing(divergence, gold, 1.0)
    np.testing.assert_allclose(values, [0.7, 0.7, 0.7])
    assert known.tolist() == [True, True, False]


# Settings


@pytest.mark.parametrize("fields, message", [
    ({"stage": "judges"}, "unknown config.stage 'judges': did you mean judge"),
    ({"task": "sort"}, "unknown config.task 'sort'"),
    ({"scorer.kind": "bt_raw"}, "unknown config.scorer.kind 'bt_raw'"),
    ({"anchor": "best"}, "unknown config.anchor 'best'"),
    ({"start": "nowhere"}, "config.start=nowhere is not the --workdir of a finished run: run that stage first"),
    ({"scorer.run": "nowhere"}, "config.scorer.run=nowhere is not the --workdir of a finished run"),
    ({"overlap": 1}, "config.overlap=1 .* set config.num_seeds=1"),
])
def test_settings_that_cannot_work_are_named(fields, message, monkeypatch):
    monkeypatch.setattr(paper, "own_answers", lambda *_: pytest.fail("something was sampled before"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(configured("tiny-judge-gold", fields))


def test_word_problems_take_the_same_way():
    config = configured("tiny-paper-judge-gold")
    task = TASKS["text"](config)
    problem = task.train[0]
    text = task.words.decode(problem.reference[:-1].tolist())
    assert task.gold(problem.row, text) == 1.0 and task.gold(problem.row, "no") == 0.0
    assert len(problem.reference) <= config.agent.max_new_tokens and len(set(task.layout.labels)) == 2
    assert task.held_out
    with pytest.raises(ValueError, match="config.labels=.'the first one', 'B'. are the tokens .* one token each"):
        TASKS["text"](configured("tiny-paper-judge-gold", {"labels": ("the first one", "B")}))
