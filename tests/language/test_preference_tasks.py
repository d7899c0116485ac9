"""The tasks with a known reward that learners of preferences are judged on: by hand, and by counting."""

import numpy as np

from rl_jax.language import scenes, sorting
from rl_jax.language.rewards import Score
from tests.language.test_comparisons import samples_of

RNG = np.random.default_rng(5)


def test_the_gold_reward_of_sorting_by_hand():
    for answer, expected in (("12357", 1), ("12357..", 1), ("12375", 0.6), ("123", 0.6), ("1235799", 5 / 7), ("", 0)):
        assert sorting.gold("52713", answer) == expected
    found = sorting.Gold(0.1).scores([{"digits": "21", "response_tokens": 4}], ["12."], 0.0)
    assert found == [Score(1 - 0.4, {"gold": 1.0})]


def test_problems_to_sort_are_different_and_a_demonstrator_errs_as_often_as_it_is_told():
    found = sorting.problems(300, (3, 5), 0)
    assert len(set(found)) == 300 and {len(x) for x in found} == {3, 4, 5}
    assert not set(sorting.problems(300, (3, 5), 0, found)) & set(found)
    answers = sorting.demonstrated(found, 0.4, 0.5, RNG)
    golds = [sorting.gold(*both) for both in zip(found, answers)]
    assert abs(np.mean(golds) - (1 - 0.4 * 0.9)) < 0.05  # a random digit is the right one in a tenth of the cases
    dots = [len(x) - len(x.rstrip(".")) for x in answers]
    assert abs(np.mean(dots) - 1.0) < 0.3
    assert all(set(x) <= set("0123456789") for x in sorting.demonstrated(found, 0.0, 0.0, RNG))


def test_what_is_asked_and_learnt_of_sorting():
    asked = sorting.questions(["21", "321"], ["12", "123"])
    assert [sorting.decode(x) for x in asked.tokens] == ["21=\n", "321="] and asked.lengths.tolist() == [3, 4]
    assert sorting.decode(asked.anchors[0][0]) == "12\n\n" and asked.anchors[1].tolist() == [3, 4]
    document = sorting.document("21", "12", 16, 3)
    assert sorting.decode(document.tokens) == "21=12\n" and document.mask.tolist() == [0, 0, 0, 1, 1, 1]
    assert sorting.LAYOUT.labels == tuple(sorting.encode("AB")) and sorting.questions(["21"]).anchors is None


def test_a_description_claims_corrects_and_hallucinates():
    scene = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    right = scenes.described(scene, 0.0, RNG)
    assert len(scenes.mentions(right)) == scenes.SLOTS and not scenes.wrong_mentions(scene, right)
    wrong = scenes.described(scene, 1.0, RNG, (3, 3), style=1)
    found = scenes.wrong_mentions(scene, wrong)
    assert len(found) == len(scenes.mentions(wrong)) == 3 and wrong[-1] == scenes.END
    assert all(mention.value == (scene[mention.slot] + 1) % scenes.VALUES for mention in found)
    assert set(wrong[:-1:2]) <= set(range(1 + scenes.FILLERS, scenes.FIRST_VALUE))
    fixed = scenes.corrected(scene, wrong)
    assert np.flatnonzero(fixed != wrong).tolist() == [mention.place for mention in found] == [1, 3, 5]
    assert not scenes.wrong_mentions(scene, fixed)


def test_the_share_of_hallucinated_mentions_is_the_demonstrators():
    found = scenes.scenes(400, RNG)
    said = [(scenes.prompt(scene), scenes.described(scene, 0.3, RNG, (3, 8))) for scene in found]
    measured = scenes.measured(found, samples_of(said))
    number = measured["mentions"].sum()
    assert set(measured["mentions"]) == set(range(3, 9))
    assert abs(measured["errors"].sum() / number - 0.3) < 4 * np.sqrt(0.21 / number)
    np.testing.assert_allclose(measured["hallucinated"] * measured["mentions"], measured["errors"])
    nothing = scenes.measured(found[:1], samples_of([(scenes.prompt(found[0]), [scenes.END])]))
    assert nothing["hallucinated"].tolist() == [0.0]


def test_claims_are_questions_about_one_mention():
    scene = np.arange(scenes.SLOTS) % scenes.VALUES
    description = np.array([1, scenes.prompt(scene)[2], 2, scenes.prompt(scene)[3] - 1, scenes.END])
    asked, truths = scenes.claims(scene, description)
    assert truths.tolist() == [True, False] and asked.shape == (2, scenes.SLOTS + 2)
    assert asked[1].tolist() == [*scenes.prompt(scene), description[3], scenes.ASKS]
    document = scenes.claim_document(asked[1], False, 4)
    assert document.tokens[-1] == scenes.NO and document.mask.sum() == 1 and document.group == 4
    assert scenes.claims(scene, np.array([scenes.END]))[0].shape == (0, scenes.SLOTS + 2)
    learnt = scenes.document(scene, description, 32)
    assert learnt.mask.tolist() == [0] * 8 + [1] * 5 and learnt.tokens.max() < scenes.VOCABULARY
    assert len(scenes.questions(scene[None]).rows) == 1
