"""RLHF Workflow: pairs and their annotator, selectors, the length penalty, tournaments, features, stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rlhf_workflow
from experiments.rlhf_workflow import experiment as paper
from experiments.rlhf_workflow import features, rankings, tasks
from rl_jax.core.main import run
from rl_jax.language import pairs, sorting
from rl_jax.language.decoder import init_decoder
from rl_jax.language.own_answers import Drawn
from rl_jax.language.sampler import Samples
from rl_jax.language.training import Trainable
from rl_jax.losses.preference import dpo_loss


def configured(preset, fields={}):
    config = rlhf_workflow.get_config(preset)
    config.update_from_flattened_dict({"tensorboard": False, **fields})
    return config


def answered(digits, texts, cut=()):
    """Host samples of these answers to one question; those whose place is in `cut` have no line break."""
    prompt = sorting.encode(f"{digits}=")
    rows = [[*prompt, *sorting.encode(text + ("" if n in cut else "\n"))] for n, text in enumerate(texts)]
    length = max(map(len, rows))
    tokens = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
    lengths, starts = np.array([len(row) for row in rows]), np.full(len(rows), len(prompt))
    sampled = (np.arange(length) >= len(prompt)) & (np.arange(length) < lengths[:, None])
    zeros = np.zeros(tokens.shape, np.float32)
    truncated = np.array([n in cut for n in range(len(rows))])
    return Samples(tokens=tokens, lengths=lengths, prompt_lengths=starts, sampled=sampled, log_probs=zeros,
                   behaviour_log_probs=zeros, truncated=truncated)


SCORES = np.array([[0.2, 0.9, 0.5, 0.1], [0.3, 0.3, 0.3, 0.3]])
SAME = np.arange(8).reshape(2, 4)


@pytest.mark.parametrize("selector, wanted", [
    ("max_min", {(1, 3)}), ("max_max", {(1, 2)}), ("max_random", {(1, 0), (1, 2), (1, 3)}),
])
def test_selectors_choose_by_hand_and_drop_ties(selector, wanted):
    found = [rankings.selected(selector, SCORES, SAME, np.random.default_rng(seed)) for seed in range(20)]
    assert {(int(x.better[0]), int(x.worse[0])) for x in found} == wanted
    assert all(x.prompt.tolist() == [0] for x in found)  # the second prompt's answers are equally good
    equal = SAME.copy()
    equal[0] = 0
    assert all(len(rankings.selected(selector, SCORES, equal, np.random.default_rng(0))) == 0 for _ in range(2))


def compared(texts, scores, fields={}, cut=()):
    config = configured("tiny-gold", {"data.digits": 3, "rounds.samples": len(texts), **fields})
    task = tasks.sorting_task(config)
    digits = task.train.rows[0]["digits"]
    samples = answered(digits, [text.format("".join(sorted(digits))) for text in texts], cut)
    compare = rankings.comparing(config, task, lambda *_: np.array([scores]))
    return compare(np.array([0]), Drawn(samples, np.zeros(len(texts))), np.random.default_rng(0))


def test_the_penalty_is_of_characters_and_turns_a_pair_around():
    """The long answer is 0.5 better by the reward and four characters longer."""
    texts, scores = ("{}", "{}...."), (1.0, 1.5)
    for penalty, longer in ((0.0, True), (0.1, True), (0.13, False)):
        (pair,), said = compared(texts, scores, {"reward.length_penalty": penalty})
        assert (len(pair.chosen.tokens) > len(pair.rejected.tokens)) == longer
        assert said["round/gold"] == 1.0 and said["round/gold_lead"] == 0.0
    assert pair.margin == pytest.approx(abs(0.5 - 0.13 * 4))


def test_what_ends_an_answer_is_learnt_and_no_question_is():
    (pair,), _ = compared(("{}", "000"), (1.0, 0.0), cut=(1,))
    chosen, rejected = pair.chosen, pair.rejected
    assert chosen.mask.tolist() == [0] * 4 + [1] * 4 and sorting.decode(chosen.tokens).endswith("\n")
    assert rejected.mask.tolist() == [0] * 4 + [1] * 3 and rejected.truncated and not chosen.truncated
    assert compared(("{}", "{}"), (1.0, 0.0))[0] == []  # equal answers, whatever the scores


def test_a_knockout_finds_best_and_worst_by_comparisons_of_pairs(monkeypatch):
    """A judge that prefers the larger first digit; every comparison has the question before it."""
    asked = []

    def judge_of(decoder, layout, at_once):
        def say(params, prompts, first, second):
            asked.append(len(prompts[1]))
            assert all(sorting.decode(row[:4]) == "312=" for row in prompts[0])
            return (first[0][:, 0] > second[0][:, 0]).astype(float)
        return say

    monkeypatch.setattr(rankings, "judge_of", judge_of)
    config = configured("tiny-tournament", {"data.digits": 3})
    task = tasks.sorting_task(config)
    samples = answered("312", ["200", "900", "100", "500", "123", "99999", "023", "700"])
    config.rounds.max_new_tokens = samples.tokens.shape[1] - 4
    scores = rankings.by_knockout(config, task, None)(samples, task.train, np.zeros(8, int), 4)
    np.testing.assert_array_equal(scores, [[np.nan, 1, -1, np.nan], [np.nan, 1, -1, np.nan]])
    assert sum(asked) == 2 * 2 * (4 - 1)  # n - 1 for the best, as many for the worst, of two questions


def test_an_annotator_of_length_prefers_long_answers_and_a_sharp_one_the_better_ones():
    """Pairs are of pi_0's own answers; both parts have the sizes asked for."""
    def lead(fields, **others):
        config = configured("tiny-rm", {"num_seeds": 1, "annotator.sharpness": 1e6, **fields})
        ((train, held_out),) = tasks.annotated_pairs(config, tasks.sorting_task(config)._replace(**others))
        assert len(train) == 16 and [pair.chosen.group for pair in held_out] == list(range(8))
        lengths = [len(pair.chosen.tokens) - len(pair.rejected.tokens) for pair in train]
        said = [[sorting.decode(x.tokens).partition("=")[::2] for x in pair[:2]] for pair in train]
        golds = [[sorting.gold(digits, text.rstrip("\n")) for digits, text in both] for both in said]
        return np.array(lengths), np.subtract(*np.array(golds).T)

    _, better = lead({})
    assert np.all(better > 0)
    longer, _ = lead({"annotator.length_bias": 100.0})
    assert np.all(longer >= 0) and np.mean(longer) > 0.5
    with pytest.raises(ValueError, match="0 of config.pairs.prompts=64 questions has two answers of different scores"):
        lead({}, gold=lambda digits, text: 0.5)


def test_features_are_of_the_last_token_whatever_fills_the_rows():
    config = configured("tiny-rm", {"num_seeds": 1})
    task = tasks.sorting_task(config)
    ((train, _),) = tasks.annotated_pairs(config, task)
    own, params = Trainable(task.decoder, config.agent), task.starts[0]
    cut = {name: getattr(train[2].chosen, name)[:6] for name in ("tokens", "mask", "log_probs")}
    train[2] = train[2]._replace(chosen=train[2].chosen._replace(**cut))
    assert {len(own.tokens) for pair in train for own in pair[:2]} >= {6, 8}
    found = features.features_of(own, params, pairs.compared(train, 8), at_once=5)
    wider = features.features_of(own, params, pairs.compared(train, 11), at_once=16, step=6)  # read in rows of 6 and 11
    np.testing.assert_allclose(found.chosen, wider.chosen, rtol=1e-4, atol=1e-5)
    tokens = train[3].rejected.tokens[None]
    state = own.hidden_of(params, tokens, np.arange(tokens.shape[1])[None], np.ones_like(tokens))[0, -1]
    np.testing.assert_allclose(found.rejected[3], state, rtol=1e-4, atol=1e-5)
    # A head on them learns what it is trained on.
    config.update_from_flattened_dict({"agent.learning_rate": 0.1, "agent.warmup_steps": 0, "num_steps": 40})
    program = features.head_program(config, found, found.replace(chosen_length=found.rejected_length + 1))
    state, step = program.init(jax.random.key(0), program.resident), jax.jit(program.step)
    losses = []
    for number in range(40):
        state, metrics = step(state, program.resident, None, jax.random.key(number))
        losses.append(float(metrics["reward/loss"]))
    assert losses[0] == pytest.approx(np.log(2), rel=1e-5) and np.mean(losses[-5:]) < 0.8 * losses[0]
    said = program.evaluate(jax.tree.map(lambda x: x[None], state), program.resident, jax.random.key(0)).outcomes
    assert np.all(said["longer_accuracy"] == 1.0) and said["longer_accuracy"].shape == said["accuracy"].shape
    assert said["accuracy"].mean() > 0.5


def test_smoothed_labels_are_conservative_dpo():
    """(1 - e) (-log s(m)) - e log s(-m), which has its least at s(m) = 1 - e: margins do not grow for ever."""
    margin = jnp.log(9.0)
    by_hand = -0.9 * jnp.log(0.9) - 0.1 * jnp.log(0.1)
    assert dpo_loss(margin[None], jnp.zeros(1), 0.1)[0] == pytest.approx(float(by_hand), rel=1e-5)
    slope = jax.grad(lambda m: dpo_loss(m[None], jnp.zeros(1), 0.1)[0])
    assert float(slope(margin)) == pytest.approx(0.0, abs=1e-6)
    assert configured("second-script").agent.label_smoothing == 0.1


def test_both_anchors_are_named_and_the_offline_control_has_equal_pairs_and_updates():
    frozen, previous, offline = map(configured, ("iterative", "iterative-previous", "offline"))
    assert (frozen.rounds.anchor, previous.rounds.anchor) == ("frozen", "previous")
    assert frozen.num_steps == offline.num_steps == offline.rounds.updates == 3 * frozen.rounds.updates
    assert offline.rounds.prompts == 3 * frozen.rounds.prompts <= offline.data.size
    assert offline.batch_size == frozen.batch_size and offline.rounds.samples == frozen.rounds.samples
    assert len({*sorting.LAYOUT.labels}) == 2  # one token each


# Stages


@pytest.mark.slow
def test_stages_pass_on_what_each_seed_has_trained(tmp_path):
    for stage, fields in (
        ("sft", {}), ("rm", {"start": "sft"}), ("pm", {"start": "sft"}),
        ("iterative", {"start": "sft", "reward.run": "rm"}), ("tournament", {"start": "sft", "reward.run": "pm"}),
    ):
        runs = {name: str(tmp_path / value) for name, value in fields.items()}
        run(paper.experiment, configured(f"tiny-{stage}", {"checkpoint.every": 0, **runs}), tmp_path / stage)
    outcomes = np.load(tmp_path / "iterative" / "outcomes.npz")
    assert {"gold", "reward", "kl", "answer_length"} <= set(outcomes.files)
    config = configured("tiny-iterative", {"start": str(tmp_path / "sft"), "reward.run": str(tmp_path / "rm")})
    task = tasks.sorting_task(config)
    fresh = jax.device_get(init_decoder(task.decoder, jax.random.key(0)))
    assert not np.allclose(task.starts[0]["norm"]["scale"], fresh["norm"]["scale"], atol=1e-6)
    samples = answered("31", ["13", "31", "1", "3"])
    one, other = (rank(samples, task.train, np.zeros(4, int), 4) for rank in rankings.rankings(config, task))
    assert one.shape == (1, 4) and not np.allclose(one, other)


@pytest.mark.slow
def test_texts_are_ranked_by_a_head_on_features(tmp_path):
    run(paper.experiment, configured("tiny-text-features"), tmp_path / "features")
    fields = {"reward.run": str(tmp_path / "features")}
    run(paper.experiment, configured("tiny-text-iterative", fields), tmp_path / "iterative")
    assert np.isfinite(np.load(tmp_path / "iterative" / "outcomes.npz")["reward"]).all()
    assert (tmp_path / "iterative" / "model").is_dir()


@pytest.mark.parametrize("fields, message", [
    ({"stage": "ppo"}, "unknown config.stage 'ppo'"),
    ({"task": "sort"}, "unknown config.task 'sort': did you mean sorting"),
    ({"selector": "min_max"}, "unknown config.selector 'min_max'"),
    ({"reward.kind": "judge"}, "unknown config.reward.kind 'judge'"),
    ({"reward.kind": "features"}, "config.reward.kind=features cannot rank answers of config.task=sorting"),
    ({"stage": "features"}, "config.stage=features is no stage of config.task=sorting"),
    ({}, "config.reward.run= is not the --workdir of a finished run: run that stage first"),
    ({"rounds.anchor": "last", "reward.kind": "gold"}, "unknown config.rounds.anchor 'last'"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    config = configured("tiny-iterative", fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(config).program(config)
