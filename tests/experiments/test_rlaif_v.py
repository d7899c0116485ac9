"""RLAIF-V on scenes: labels by claims, the binomial control, pairs, and the stages in order."""

import numpy as np
import pytest

from configs import rlaif_v
from experiments.rlaif_v import experiment as paper
from experiments.rlaif_v import labels
from rl_jax.core.main import run
from rl_jax.language import scenes


def configured(preset, fields={}):
    config = rlaif_v.get_config(preset)
    config.update_from_flattened_dict({"tensorboard": False, **fields})
    return config


# Labels


def test_claims_are_rejected_where_no_is_as_probable_as_yes(monkeypatch):
    """Four descriptions with 2, 1, 0 and 3 claims: a tie counts as no, and a description without claims has none."""
    asked = []

    def yes_no_of(decoder, yes, no, at_once):
        def answer(params, texts):
            asked.append(texts[0])
            value = texts[0][:, scenes.SLOTS] - scenes.FIRST_VALUE
            return np.where(value % scenes.VALUES == 0, 0.5, 0.9), np.where(value % scenes.VALUES == 3, 0.95, 0.5)
        return answer

    monkeypatch.setattr(labels, "yes_no_of", yes_no_of)
    of = np.zeros((4, scenes.SLOTS), int)

    def description(*values):
        return np.array([x for slot, value in enumerate(values)
                         for x in (1, scenes.FIRST_VALUE + scenes.VALUES * slot + value)] + [0])

    said = [description(0, 1), description(3), np.array([1, 0]), description(0, 0, 2)]
    assert labels.rejected_by(None, None)(of, said).tolist() == [1, 1, 0, 2]
    assert asked[0].shape == (6, scenes.SLOTS + 2)
    assert labels.rejected_by(None, None)(of[:1], [np.array([0])]).tolist() == [0]
    assert labels.errors(of, said).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("accuracy", [0.6, 0.85, 1.0])
def test_the_binomial_control_is_what_simulated_labels_do(accuracy):
    """Counts of independent labels order pairs as the closed form says, within 3 standard errors."""
    rng, draws = np.random.default_rng(0), 20_000
    for mentions, wrong in (((6, 6), (1, 2)), ((3, 8), (0, 4))):
        counts = [
            rng.binomial(e, accuracy, draws) + rng.binomial(m - e, 1 - accuracy, draws)
            for m, e in zip(mentions, wrong, strict=True)
        ]
        ordered = np.where(counts[1] > counts[0], 1.0, np.where(counts[1] < counts[0], 0.0, 0.5))
        expected = labels.order_accuracy(mentions, wrong, accuracy)
        assert ordered.mean() == pytest.approx(expected, abs=3 * ordered.std() / np.sqrt(draws) + 1e-9)


def test_the_binomial_control_by_hand():
    # One claim each, the worse one's wrong: 1 - 0 with probability q^2, tied with 2 q (1 - q).
    assert labels.order_accuracy((1, 1), (0, 1), 0.8) == pytest.approx(0.64 + 0.5 * 0.32)
    assert labels.order_accuracy((5, 5), (1, 3), 0.5) == pytest.approx(0.5)  # a labeller that knows nothing
    with pytest.raises(ValueError, match="the second answer has to have more errors"):
        labels.order_accuracy((2, 2), (1, 1), 0.9)


def test_a_judge_of_answers_orders_random_pairs(monkeypatch):
    """The judge prefers the answer whose first token is larger; equal answers are no pair, and 2 a prompt at most."""
    monkeypatch.setattr(labels, "preferred", lambda decoder, params, prompts, first, second: np.where(
        first[0][:, 0] > second[0][:, 0], 0.9, 0.2))
    tokens, same = np.array([[1], [2], [3], [7], [7], [7]]), np.array([[0, 1, 2], [3, 3, 3]])
    prompts = np.zeros((6, 1), int), np.ones(6, int)
    found = labels.judged_pairs(
        None, None, prompts, (tokens, np.ones(6, int)), 3, 2, same, np.random.default_rng(1)
    )
    assert found.prompt.tolist() == [0, 0] and (found.better > found.worse).all()
    assert found.margin == pytest.approx([0.3, 0.3])  # the first of each pair is the smaller one here


# Pairs


def test_confounded_pairs_are_won_by_the_other_writer():
    scores = -np.array([[2.0, 3.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 5.0, 4.5]])
    found = paper.beaten_by(3, scores, 2, 1.0, np.random.default_rng(0))
    assert set(found.better) == {3} and set(found.prompt) == {0} and len(found) == 2
    assert len(set(found.worse)) == 2 and (found.margin >= 1.0).all()


def test_pairs_that_labellers_learn_from_are_ordered_by_true_errors():
    config = configured("tiny-holistic")
    pairs = paper.ordered_pairs(config, 12, 1)
    better, worse = (
        labels.errors(np.array([pair[0] for pair in pairs]), [pair[place] for pair in pairs]) for place in (1, 2)
    )
    assert (better < worse).all()
    train, held_out = (paper.demonstrated(config, 4, offset)[0] for offset in (1, 2))
    assert not np.array_equal(train, held_out)


# The stages


@pytest.mark.slow
def test_the_stages_in_order(tmp_path):
    """The rounds read the start's and the labeller's own models, and say what the labels were."""
    for name in ("sft", "holistic"):
        assert run(paper.experiment, configured(f"tiny-{name}"), tmp_path / name)["step"] == 8
    fields = {"start": str(tmp_path / "sft"), "labels.run": str(tmp_path / "holistic"), "best_of.samples": 2}
    run(paper.experiment, configured("tiny-rounds-holistic", fields), tmp_path / "rounds")
    lines = (tmp_path / "rounds" / "metrics.jsonl").read_text()
    assert "labels/right" in lines and "round/pairs" in lines
    found = np.load(tmp_path / "rounds" / "outcomes.npz")
    names = {name.rpartition("/")[2] for name in found.files}
    assert {"hallucinated", "mentions", "kl", "mean_length", "sum_length", "one_hallucinated"} <= names


@pytest.mark.parametrize("preset, fields, message", [
    ("tiny-rounds", {"labels.kind": "divid"}, "config.labels.kind.*did you mean.*divide"),
    ("tiny-rounds", {"stage": "round"}, "config.stage.*did you mean.*rounds"),
    ("tiny-rounds", {"pairs.confounded": True, "labels.kind": "holistic"}, "take a labeller that counts"),
])
def test_settings_that_cannot_work_are_named(preset, fields, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        paper.experiment(configured(preset, fields))


def test_a_labeller_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.labels.run=.*is not the --workdir of a finished run"):
        paper.experiment(configured("tiny-rounds", {"labels.run": str(tmp_path)}))
