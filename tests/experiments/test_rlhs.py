"""RLHS: what customers buy, what they and judges know, hindsight that sees no chat, pairs, stages, chats in English."""

import itertools

import jax
import numpy as np
import pytest

from configs import rlhs
from experiments.rlhs import experiment as paper
from experiments.rlhs import market, texts
from experiments.rlhs.domain import preference_bounds, preferences
from experiments.rlhs.market import HAS, LACKS, NOTHING, UNSPECIFIED, Market, ratings
from rl_jax.core.main import run
from rl_jax.language.dialogues import document
from rl_jax.language.own_answers import Drawn
from rl_jax.language.rows import pad
from rl_jax.language.sampler import Samples
from rl_jax.language.stages import trained_models


def configured(preset, fields={}):
    config = rlhs.get_config(preset)
    config.update_from_flattened_dict({"tensorboard": False, **fields})
    return config


def scene(features, prices, follows=False, world=None):
    features = np.array([features])
    world = features == HAS if world is None else np.array([world], bool)
    return Market(features, np.array([prices]), np.array([follows]), world)


def said(claims, option):
    return " ".join(map(str, [*claims, market.FIRST_OPTION + option]))


# The marketplace


@pytest.mark.parametrize("follows, claims, option, wanted", [
    # Features: A lacks, B has, C has; prices 2, 8, 4: the best is C.
    (False, (LACKS, HAS, HAS), 2, (1.0, 1.0, 1.0, 1.0)),
    (False, (HAS, HAS, HAS), 2, (1.0, -1.0, -1.0, -1.0)),  # the lie about A is believed
    (True, (HAS, HAS, HAS), 2, (0.5, 0.5, 1.0, 1.0)),  # and not by who follows the advice
    (False, (LACKS, HAS, UNSPECIFIED), 1, (1.0, 1.0, 0.5, 0.5)),  # only the oracle knows that C was cheaper
    (False, (LACKS, LACKS, LACKS), 2, (0.0, 0.0, 0.0, 0.0)),
    (True, (LACKS, LACKS, LACKS), 1, (-1.0, 1.0, 0.5, 0.5)),  # advice against its own words turns out well
    (True, (LACKS, HAS, HAS), NOTHING, (0.0, 0.0, 0.0, 0.0)),
])
def test_ratings_before_and_after_hindsight(follows, claims, option, wanted):
    scenes, text = scene((LACKS, HAS, HAS), (2, 8, 4), follows), said(claims, option)
    found = [float(ratings(scenes, [text], hindsight)[0]) for hindsight in ("none", "partial", "oracle")]
    assert (*found, float(market.measured(scenes, [text])["utility"][0])) == wanted


def test_a_purchase_where_nothing_qualifies_divides_by_nothing():
    scenes = scene((LACKS, UNSPECIFIED, LACKS), (2, 3, 4))
    with np.errstate(all="raise"):
        assert market.measured(scenes, [said((LACKS, HAS, LACKS), 1)])["utility"].tolist() == [-1.0]
        assert market.measured(scenes, [said((LACKS, LACKS, LACKS), NOTHING)])["utility"].tolist() == [0.0]


def test_denials_are_counted_apart_from_lies():
    found = market.measured(scene((LACKS, UNSPECIFIED, HAS), (2, 3, 4)), [said((HAS, LACKS, HAS), 2)])
    assert [int(found[name][0]) for name in ("lies", "without", "denials", "unspecified")] == [1, 2, 1, 1]


@pytest.mark.parametrize("text", ["", "3 3 3", "3 3 4 3", "3 3 3 4 4", "3 3 3 8", "0 3 3 4"])
def test_malformed_answers_cost_one_in_every_judge(text):
    scenes = scene((HAS, HAS, HAS), (2, 3, 4))
    assert [ratings(scenes, [text], hindsight)[0] for hindsight in ("none", "partial", "oracle")] == [-1.0] * 3
    found = market.measured(scenes, [text])
    assert found["utility"][0] == -1.0 and found["malformed"][0]


def test_what_the_seller_earns_is_the_sum_over_its_answers():
    """Rating and utility of the noisy seller, by the probability of every row of claims and every kind of scenario."""
    noise, cases = 0.25, list(itertools.product((LACKS, UNSPECIFIED, HAS), repeat=3))
    scenes = market.market(400, 7)
    exact = {"rating": 0.0, "utility": 0.0}
    for claims in cases:
        share = np.where(scenes.features == np.array(claims), 1 - noise, noise / 2).prod(1)
        bought = [min((p, i) for i, (p, c) in enumerate(zip(own, claims)) if c == HAS)[1] if HAS in claims else None
                  for own in scenes.prices.tolist()]
        for row, option in enumerate(bought):
            if option is None:
                continue
            prices, true = scenes.prices[row], scenes.features[row] == HAS
            exact["rating"] += share[row] / 400
            value = min(prices[true]) / prices[option] if true[option] else -1.0
            exact["utility"] += share[row] * value / 400
    many = scenes.take(np.repeat(np.arange(400), 50))
    answers = market.demonstrated(many, noise, np.random.default_rng(8))
    found = market.measured(many, [market.WORDS.decode(own[:-1]) for own in answers])
    for name, wanted in exact.items():
        assert found[name].mean() == pytest.approx(wanted, abs=4 * found[name].std() / np.sqrt(20_000))


# Hindsight


def test_permuted_chats_change_no_outcome():
    """The world model is given facts and choices; chats with the same choice have the same outcome."""
    scenes = market.market(300, 9, 0.2)
    answers = market.demonstrated(scenes, 0.5, np.random.default_rng(0))
    spoken = [market.WORDS.decode(own[:-1]) for own in answers]
    for hindsight in ("none", "partial", "oracle"):
        shown = {}
        for text in spoken:  # every chat in one scenario
            *_, choice, learnt = market.dialogue(scenes, 0, text, hindsight)
            assert shown.setdefault(int(choice.tokens[0]), learnt.tokens.tolist()) == learnt.tokens.tolist()
        assert len(shown) > 1 or hindsight == "none"


def test_the_wrong_world_model_is_wrong_about_a_share_and_nothing_else():
    right, wrong = market.market(20_000, 3), market.market(20_000, 3, 0.2)
    assert all(np.array_equal(*both) for both in zip(right[:3], wrong[:3]))
    assert np.mean(right.world != wrong.world) == pytest.approx(0.2, abs=0.01)
    assert np.array_equal(right.world, right.features == HAS)


def test_the_ideal_preference_lies_within_the_bounds_of_finite_hindsight():
    rng, beta, discount, low, high = np.random.default_rng(0), 2.0, 0.8, -1.0, 1.5
    for steps in (0, 3, 10):
        rewards = rng.uniform(low, high, (200, 2, 300)) * discount ** np.arange(300)
        seen, whole = rewards[..., : steps + 1].sum(-1), rewards.sum(-1)
        ideal = 1 / (1 + np.exp(-beta * (whole[:, 0] - whole[:, 1])))
        found = np.array([
            preference_bounds(own, beta, discount, steps, high - low) for own in seen[:, 0] - seen[:, 1]
        ])
        assert np.all((found[:, 0] <= ideal) & (ideal <= found[:, 1]))
    assert np.ptp(preference_bounds(0.3, beta, discount, 60, 2.5)) < 1e-4


# Pairs


def test_both_orders_are_judged_and_ties_are_dropped():
    """A customer that sees no difference says the first place in both orders; in one order that is a label."""
    scenes = scene((LACKS, HAS, HAS), (2, 8, 4))
    judge, best, lie = market.Customer(scenes, "oracle"), said((LACKS, HAS, HAS), 2), said((HAS, HAS, HAS), 2)
    given = [0, 0, 0], [best, lie, best], [lie, best, said((LACKS, LACKS, HAS), 2)]
    numbers = np.array(given[0])
    assert preferences(judge, numbers, *given[1:], both_orders=True).tolist() == [[1, 0], [0, 1], [0.5, 0.5]]
    assert preferences(judge, numbers, *given[1:], both_orders=False).tolist() == [[1, 0], [0, 1], [1, 0]]


def with_chats(monkeypatch, task, noise):
    """A start draws a noisy seller's answers, two in each training scenario; another seed's draws others."""
    scenes, rng = market.market(len(task.train.rows), 1), np.random.default_rng(5)
    asked = np.repeat(task.train.tokens, 2, axis=0)

    def draw(*_):
        spoken = market.demonstrated(scenes.take(np.repeat(np.arange(len(asked) // 2), 2)), noise, rng)
        tokens = np.concatenate([asked, spoken], axis=1)
        whole = np.full(len(tokens), tokens.shape[1])
        drawn = np.broadcast_to(np.arange(tokens.shape[1]) >= 7, tokens.shape)
        samples = Samples(tokens, whole, whole - 5, drawn, 0.0 * tokens, 0.0 * tokens, whole < 0)
        return jax.tree.map(lambda x: x[None], Drawn(samples, 0.0 * whole))

    monkeypatch.setattr(paper, "drawer", lambda *_: draw)
    return scenes


def test_pairs_are_the_starts_own_chats_in_the_judges_order(monkeypatch):
    """Only what the assistant says is learnt, and the label is that of the hindsight; seeds have as many pairs."""
    config = configured("tiny-dpo-oracle", {"feedback.both_orders": True})
    task = market.domain(config)
    scenes = with_chats(monkeypatch, task, 0.4)
    found, again = paper.own_pairs(config, task, [{}, {}])
    assert len(found) == len(again) > 20
    for chosen, rejected, _ in found:
        assert chosen.group == rejected.group
        assert all(np.array_equal(x.tokens[:7], task.train.tokens[chosen.group]) for x in (chosen, rejected))
        assert not chosen.mask[:7].any() and chosen.mask[7:].all()
        own = [market.WORDS.decode(x.tokens[7:-1]) for x in (chosen, rejected)]
        better, worse = ratings(scenes.take(np.array([chosen.group] * 2)), own, "oracle")
        assert better > worse
    config.data.pairs = 2
    assert [len(own) for own in paper.own_pairs(config, task, [{}, {}])] == [2, 2]
    with_chats(monkeypatch, task, 0.0)
    with pytest.raises(ValueError, match="of 64 pairs of chats the judge tells none apart in both orders: raise data"):
        paper.own_pairs(config, task, [{}])


def test_of_a_whole_dialogue_the_assistants_turn_alone_is_learnt():
    scenes, text = scene((LACKS, HAS, HAS), (2, 8, 4)), said((LACKS, HAS, HAS), 2)
    whole = market.dialogue(scenes, 0, text, "oracle")
    shape = market.DecoderConfig(vocab_size=market.VOCABULARY, **configured("quick").decoder.to_dict() | {
        "context_length": 20})
    row = pad([document(whole, market.MARKS, shape)], 20)
    assert row.tokens[0][row.mask[0] > 0].tolist() == [*map(int, text.split()), market.END]
    assert market.told(whole).splitlines() == [
        "facts      A no (price 2), B yes (price 8), C yes (price 4)",
        "assistant  has it: no, yes, yes; buy C", "customer   buys C", "outcome    A no, B yes, C yes",
    ]


# Stages


@pytest.mark.slow
def test_ppo_is_rewarded_by_the_reward_model_of_its_seed(tmp_path):
    """Stages from the start to PPO; what a run leaves behind can be read."""
    few = {"num_steps": 2, "loop.eval_every": 0, "checkpoint.every": 0}
    run(paper.experiment, configured("tiny-reward-partial", few), tmp_path / "reward")
    config = configured("tiny-ppo-partial", few | {"reward.run": str(tmp_path / "reward")})
    program = paper.experiment(config).program(config)
    width, folder = config.decoder.width, str(tmp_path / "reward")
    heads = np.stack([
        own["head"] for own in trained_models("reward.run", folder, {"head": np.zeros(width)}, (0, 1), "reward")
    ])
    assert any(np.array_equal(x, heads) for x in program.resident["own"]) and not np.array_equal(*heads)
    run(paper.experiment, config, tmp_path / "ppo")
    assert (tmp_path / "ppo" / "dialogues.txt").read_text().count("customer   buys") == paper.DIALOGUES
    with pytest.raises(ValueError, match="config.reward.run=.*reward has no params/reward/.* of shape"):
        paper.experiment(configured("tiny-ppo-partial", {
            "reward.run": str(tmp_path / "reward"), "decoder.width": 8, "decoder.head_dim": 4}))


@pytest.mark.parametrize("preset, fields, message", [
    ("tiny", {"stage": "ppo"}, "unknown config.stage 'ppo': did you mean dpo"),
    ("tiny", {"domain": "text"}, "unknown config.domain 'text': did you mean texts"),
    ("tiny", {"feedback.hindsight": "full"}, "unknown config.feedback.hindsight 'full'"),
    ("tiny-dpo-weak", {"start": "nowhere"}, "config.start=nowhere is not the --workdir of a finished run"),
    ("tiny-ppo-weak", {"reward.run": "nowhere"}, "config.reward.run=nowhere is not the --workdir of a finished run"),
    ("tiny-texts-dpo-weak", {"world.kind": "models"}, "unknown config.world.kind 'models': did you mean model"),
    ("tiny-texts-dpo-weak", {"stage": "sft"}, "the models of domain 'texts' can talk: begin with stage dpo"),
    ("tiny-texts-dpo-weak", {"data.longest": 100}, "config.data.longest=100: prompts have up to .* tokens"),
])
def test_settings_that_cannot_work_are_named(preset, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(configured(preset, fields))


# In English


def test_the_catalogue_is_whole():
    assert len(texts.CATALOGUE) == 10
    assert all(len(set(features.split(", "))) == 8 for features in texts.CATALOGUE.values())
    assert {wish.family for wish in texts.wishes(50, 0)} == set(texts.FAMILIES)


def test_what_each_role_reads():
    wish = texts.Wish("tent", "a vestibule", ("fly nets", "a footprint"), "no price shown")
    prices, features = np.array([2, 3, 4]), np.array([HAS, LACKS, UNSPECIFIED])
    facts = texts.offers(wish, features, np.full((3, 2), HAS))
    assert "Offer (B): it comes without a vestibule; it has fly nets; it has a footprint." in facts
    assert "(C): the maker does not say whether it has a vestibule" in facts
    assert "dollars" not in texts.request(wish, prices) and "a vestibule" in texts.request(wish, prices)
    assert "(C) 40 dollars" in texts.request(wish._replace(family="price"), prices)
    assert texts.outcome(wish, 1, np.array([-1, 0, -1])) == (
        "You buy and try offer (B): it does not have a vestibule."
    )
    assert texts.outcome(wish, NOTHING, np.array([-1, -1, -1])) == "You buy nothing."


@pytest.mark.parametrize("kind", texts.KINDS)
def test_the_world_model_in_english_sees_no_chat(kind, monkeypatch):
    """Whatever was said, a choice has one outcome; what the model reads has nothing of the chat in it."""
    task = texts.domain(configured("tiny-texts-dpo-partial", {"world.kind": kind}))
    roles, numbers, read = task.feedback, np.arange(4), []
    asked = texts.Roles._asked
    monkeypatch.setattr(texts.Roles, "_asked", lambda self, role, text: read.append((role, text)) or asked(
        self, role, text))
    monkeypatch.setattr(texts.Roles, "choices", lambda self, numbers, said: np.array([0, 1, 2, NOTHING]))
    chats = ["Take A.", "Zebras fly.", "B has it all.", "None."]
    ends = [
        [chat.rpartition("\n")[2] for chat in roles.chats(numbers, order)] for order in (chats, chats[::-1])
    ]
    assert ends[0] == ends[1] and all(ends[0])
    assert all(chat not in text for role, text in read if role == "facts" for chat in chats)
    assert (kind == "model") == any(role == "facts" for role, _ in read)


@pytest.mark.slow
def test_chats_in_english_are_judged_by_the_model_that_it_started_from():
    task = texts.domain(configured("tiny-texts-dpo-partial", {"feedback.thoughts": 0}))
    roles, numbers = task.feedback, np.arange(3)
    found = roles.ratings(numbers, ["Take B.", " ", "Take C."])
    assert found[1] == -1.0 and set(found.tolist()) <= {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert not roles.says_first(numbers, [" "] * 3, ["Take B."] * 3).any()
    measured = task.measure(numbers, ["Take B.", "", "Take C."])
    assert measured["utility"][1] == -1.0 and measured["malformed"].tolist() == [False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dpo-weak", "reward-partial", "ppo-immediate"])
def test_stages_in_english_run(stage, tmp_path, monkeypatch):
    if stage != "ppo-immediate":
        monkeypatch.setattr(
            paper, "preferences", lambda feedback, numbers, *rest: np.tile([1.0, 0.0], (len(numbers), 1)))
    result = run(paper.experiment, configured(f"tiny-texts-{stage}"), tmp_path)
    assert np.isfinite(result["score"]) and result["step"] == 2
    if stage != "reward-partial":
        assert (tmp_path / "dialogues.txt").read_text().count("Assistant:") == paper.DIALOGUES
        assert (tmp_path / "model" / "config.json").is_file()
