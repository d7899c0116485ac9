"""RLHF-V: pairs of corrections and rankings, the weights of what was corrected, the margin at the start, judging."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rlhf_v
from experiments.rlhf_v import corrections
from experiments.rlhf_v import experiment as paper
from rl_jax.core.config import flat
from rl_jax.core.fused import init_runs, run_keys
from rl_jax.data.text import records
from rl_jax.language import scenes
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.pairs import compared, with_change_weights
from rl_jax.language.training import Trainable

SHAPE = DecoderConfig(vocab_size=scenes.VOCABULARY, **rlhf_v.get_config("tiny").decoder)
PARAMS = jax.device_get(init_decoder(SHAPE, jax.random.key(3)))


def configured(preset, fields={}):
    config = rlhf_v.get_config(preset)
    config.update_from_flattened_dict({"tensorboard": False, **fields})
    return config


@pytest.fixture(scope="module")
def corrected():
    return corrections.own_pairs("corrections", SHAPE, PARAMS, 8, 18, 5)


# Pairs


def test_a_correction_differs_in_the_wrong_values_alone(corrected):
    for chosen, rejected, _ in corrected:
        scene, said = np.array(chosen.tokens[: scenes.SLOTS]), rejected.tokens[scenes.SLOTS :]
        values = (scene - scenes.FIRST_VALUE) % scenes.VALUES
        wrong = [mention.place for mention in scenes.wrong_mentions(values, said)]
        assert np.flatnonzero(chosen.tokens[scenes.SLOTS :] != said).tolist() == wrong != []
        assert not scenes.wrong_mentions(values, chosen.tokens[scenes.SLOTS :])


def test_rankings_prefer_fewer_errors_and_are_of_the_same_samples(corrected):
    ranked = corrections.own_pairs("rankings", SHAPE, PARAMS, 8, 18, 5)
    for chosen, rejected, _ in ranked:
        values = (np.array(chosen.tokens[: scenes.SLOTS]) - scenes.FIRST_VALUE) % scenes.VALUES
        assert chosen.tokens[: scenes.SLOTS].tolist() == rejected.tokens[: scenes.SLOTS].tolist()
        first, second = (len(scenes.wrong_mentions(values, x.tokens[scenes.SLOTS :])) for x in (chosen, rejected))
        assert first < second
    said = {tuple(x.tokens) for pair in ranked for x in pair[:2]}
    assert said & {tuple(pair.rejected.tokens) for pair in corrected}


def test_a_corrupted_number_is_as_likely_by_itself_and_the_only_change():
    train, _ = records.split(records.load("gsm8k").records, 0.2)
    found = corrections.corrupted(train[:60], 3, 7)
    known = {number for record in train[:60] for number in re.findall(r"\d+", record.answer)}
    for pair in found:
        right, wrong = (re.findall(r"\d+", text) for text in (pair.chosen, pair.rejected))
        (changed,) = [both for both in zip(right, wrong, strict=True) if both[0] != both[1]]
        assert len(changed[0]) == len(changed[1]) and changed[1] in known and pair.margin == 0.0
    assert 60 < len(found) <= 180 and found == corrections.corrupted(train[:60], 3, 7)


# Dense weights


def test_weights_follow_the_shifted_tokens_in_both_halves():
    """Entry t of a row speaks of token t: a corrected token has its own weight, in each answer and after padding."""
    told, rng, pairs = configured("ddpo").pairs, np.random.default_rng(2), []
    for scene in scenes.scenes(8, rng):
        said = scenes.described(scene, 0.4, rng, (3, 8))
        both = (scenes.document(scene, own, SHAPE.context_length) for own in (scenes.corrected(scene, said), said))
        pairs.append(corrections.PairDocuments(*both, 0.0))
    pairs = compared(pairs, SHAPE.context_length)
    plain, dense = (with_change_weights(pairs, gamma, normalised=told.normalised) for gamma in (1.0, told.gamma))
    differs = np.asarray(dense.first.tokens != dense.second.tokens)
    for rows in (dense.first, dense.second):
        np.testing.assert_allclose(rows.weights.sum(-1), 1.0, rtol=1e-6)  # N
        assert np.array_equal(rows.weights > 0, rows.mask > 0)
        for weights, changed, mask in zip(rows.weights, differs, rows.mask):
            np.testing.assert_allclose(weights[changed] / weights[(mask > 0) & ~changed].min(), 5.0, rtol=1e-5)
    lengths = np.asarray(plain.first.mask).sum(-1, keepdims=True)
    np.testing.assert_allclose(plain.first.weights, plain.first.mask / lengths, rtol=1e-6)


def test_the_released_script_counts_short_matches_as_changed_and_leaves_insertions():
    told, builder = configured("ddpo-released").pairs, np.array([0, 1, 2, 3, 0, 1, 2, 3])
    right, wrong = ([1, 9, 2, 14, 3, 19, 0], [1, 9, 2, 13, 3, 19, 0])
    documents = [scenes.document(builder, x, SHAPE.context_length) for x in (right, wrong)]
    pairs = compared([corrections.PairDocuments(*documents, 0.0)], SHAPE.context_length)
    found = with_change_weights(
        pairs, told.gamma, normalised=told.normalised, shortest=told.shortest, one_sided=told.one_sided
    )
    at = slice(scenes.SLOTS, scenes.SLOTS + len(right))
    np.testing.assert_allclose(found.first.weights[0, at], [1, 1, 1, 1.1, 1, 1, 1], rtol=1e-6)
    shorter = scenes.document(builder, wrong[:4] + wrong[5:], SHAPE.context_length)  # also without a filler
    found = with_change_weights(
        compared([corrections.PairDocuments(documents[1], shorter, 0.0)], SHAPE.context_length), told.gamma,
        normalised=told.normalised, shortest=1, one_sided=told.one_sided,
    )
    assert set(found.first.weights[0, at].tolist()) == {1.0}


def test_arms_differ_in_what_they_say():
    base = flat(configured("ddpo"))

    def changed(name):
        return {field: x for field, x in flat(configured(name)).items() if x != base[field]} | {"preset": None}

    assert changed("correction") == {"preset": None, "pairs.gamma": 1.0}
    assert changed("ranking") == {"preset": None, "pairs.gamma": 1.0, "pairs.kind": "rankings"}
    assert changed("ddpo-nll") == {"preset": None, "agent.likelihood_weight": 0.1}
    assert set(changed("ddpo-released")) == {
        "preset", "pairs.gamma", "pairs.normalised", "pairs.shortest", "pairs.one_sided", "agent.beta"
    }
    assert (base["pairs.gamma"], base["agent.beta"], base["agent.score"]) == (5.0, 0.5, "weighted")
    assert set(changed("wide/ddpo")) == {
        "preset", "decoder.width", "decoder.head_dim", "decoder.hidden_width", "batch_size", "agent.learning_rate",
        "agent.beta",
    }


# Programs


def started(preset, seeds=1):
    """A program, its state before the first update, and what is said of it there."""
    config = configured(preset, {"num_seeds": seeds})
    program = paper.experiment(config).program(config)
    keys = run_keys("init", config.seed, seeds)
    state = init_runs(lambda settings: program, keys, {}, program.resident, "vmap")
    return program, state, program.evaluate(state, program.resident, jax.random.key(0)).outcomes


@pytest.fixture(scope="module")
def judged():
    return started("tiny-ddpo")


def test_the_margin_is_zero_before_the_first_update(judged):
    _, _, outcomes = judged
    np.testing.assert_allclose(outcomes["margin"], 0.0, atol=1e-5)  # references are cached one a token
    np.testing.assert_allclose(outcomes["style_kl"], 0.0, atol=1e-6)
    np.testing.assert_allclose(outcomes["kl"], 0.0, atol=1e-4)


def test_the_chosen_answer_is_what_is_kept_and_what_is_corrected(judged):
    _, _, outcomes = judged
    assert np.all(outcomes["corrected_log_prob"] < outcomes["unchanged_log_prob"])
    np.testing.assert_allclose(outcomes["chosen_log_prob"].mean(), outcomes["corrected_log_prob"].mean(), rtol=1e-5)


def test_the_divergence_of_the_style_is_that_of_whole_distributions(corrected):
    """Against numpy, place by place, of logits that one forward pass gives."""
    rows = compared(corrected, SHAPE.context_length).first
    own, other = Trainable(SHAPE, configured("tiny-ddpo").agent), init_decoder(SHAPE, jax.random.key(4))
    found = paper.style_kl(own, PARAMS, other, rows, paper.FILLERS)

    def probabilities(params):
        hidden = np.asarray(own.hidden(params, jax.tree.map(jnp.asarray, rows)), np.float64)
        raw = np.asarray(paper.logits(jnp.asarray(hidden, jnp.float32), paper.head_kernel(params, SHAPE)), np.float64)
        return np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)

    p, q = probabilities(PARAMS), probabilities(other)
    for row in range(len(rows)):
        places = [t for t in range(1, rows.tokens.shape[1]) if rows.mask[row, t] and 1 <= rows.tokens[row, t] <= 4]
        wanted = [(p[row, t - 1] * np.log(p[row, t - 1] / q[row, t - 1])).sum() for t in places]
        assert float(found[row]) == pytest.approx(np.mean(wanted) if wanted else 0.0, rel=1e-3, abs=1e-6)


def test_texts_are_what_a_reader_sees():
    scene = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    said = [1, scenes.prompt(scene)[0], 4, scenes.prompt(scene)[1] + 1, scenes.END]
    assert paper.as_text(scenes.prompt(scene), scene) == "A0 B1 C2 D3 E0 F1 G2 H3"
    assert paper.as_text(said, scene) == "a A0 d B2*"


@pytest.mark.slow
def test_corrected_numbers_of_real_text_are_told_apart():
    """GSM8K read for a small model: pairs of all seeds are one, and each is judged by the number that differs."""
    program, _, outcomes = started("tiny-gsm8k-ddpo", 2)
    assert outcomes["segment"].shape == (2, 16) and set(np.unique(outcomes["segment"])) <= {0.0, 0.5, 1.0}
    assert program.resident["own"] == [] and "style_kl" not in outcomes


@pytest.mark.parametrize("preset, fields, message", [
    ("tiny-ddpo", {"stage": "dpo"}, "unknown config.stage 'dpo'"),
    ("tiny-ddpo", {"domain": "scene"}, "unknown config.domain 'scene': did you mean scenes"),
    ("tiny-ddpo", {"pairs.kind": "ranking"}, "unknown config.pairs.kind 'ranking': did you mean rankings"),
    ("tiny-ddpo", {"start": "nowhere"}, "config.start=nowhere is not the --workdir of a finished run"),
    ("tiny-gsm8k-ddpo", {"pairs.kind": "rankings"}, "config.domain=texts has corrections alone"),
    ("tiny-gsm8k-ddpo", {"data.name": "hh_harmless"}, "config.data.name=hh_harmless holds pairs, and answers are"),
])
def test_settings_that_cannot_work_are_named(preset, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(configured(preset, fields))


def test_too_few_pairs_are_one_error(monkeypatch):
    monkeypatch.setattr(corrections.scenes, "wrong_mentions", lambda scene, said: [])
    with pytest.raises(ValueError, match="config.pairs.kind=corrections finds 0 pairs in 16 scenes, and 8 are asked"):
        corrections.own_pairs("corrections", SHAPE, PARAMS, 8, 18, 5)
    with pytest.raises(ValueError, match="no answer has a number that can be replaced"):
        corrections.corrupted([records.Answer((), "no number")], 0, 0)
