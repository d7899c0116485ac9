"""PPO, GRPO and its kin: one update against its formula, what changes none, failures, what is asked, learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rl_jax.language import curriculum, grpo
from rl_jax.language.critic import Critic
from rl_jax.language.grpo import METHODS, grpo_program
from rl_jax.language.questions import Questions, Words
from rl_jax.language.reward_pool import RewardPool
from rl_jax.language.rewards import FAILURES, Score
from rl_jax.language.rollouts import Anchored, Learned
from rl_jax.language.rows import Rows
from rl_jax.language.training import Trainable
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
    method="grpo", scorer=None, batch_size=8, overlap=0, words=WORDS, questions=QUESTIONS, curriculum_low=0.0,
    curriculum_least=8, **fields
):
    config = ConfigDict({"batch_size": batch_size, "num_steps": 10, "overlap": overlap})
    config.agent, config.curriculum = grpo.default_config(method), curriculum.default_config()
    config.curriculum.update({"low": curriculum_low, "least": curriculum_least})
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


@pytest.mark.slow
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


# PPO


def test_a_critics_first_update_is_that_of_the_formulas(batch):
    """Values are 0 at the start: advantages are whitened discounted returns, the value loss is half their square."""
    _, metrics = stepped(batch, "ppo", samples=4, kl_coefficient=0.0, gae_lambda=0.5, discount=0.5)
    mask, rewards = np.asarray(batch["mask"]), np.asarray(batch["reward"])
    found, number = np.zeros_like(mask), mask.sum()
    for row, own in enumerate(mask):
        at = np.flatnonzero(own)
        found[row, at] = rewards[row] * 0.25 ** np.arange(len(at))[::-1]
    assert float(metrics["critic/loss"]) == pytest.approx(0.5 * np.sum(found**2) / number, rel=1e-4)
    assert float(metrics["critic/explained_variance"]) == pytest.approx(0.0, abs=1e-6)
    mean = found.sum() / number
    white = (found - mean) / np.sqrt(np.sum(mask * (found - mean) ** 2) / (number - 1) + 1e-8)
    zeros = jnp.zeros_like(batch["mask"])
    rows = Rows(**batch, weights=zeros, advantages=zeros)

    def objective(params):
        return -jnp.sum(white * log_probs(params, rows) * mask) / number

    wanted = global_norm(jax.jit(jax.grad(objective))(PARAMS))
    np.testing.assert_allclose(metrics["policy/grad_norm"], wanted, rtol=1e-3)
    assert float(metrics["policy/ratio_distance"]) == 0.0 and float(metrics["policy/clip_fraction"]) == 0.0


@pytest.mark.slow
def test_micro_batches_change_no_update_of_a_critic(batch):
    found = [stepped(batch, "ppo", samples=4, micro_batches=pieces)[1] for pieces in (1, 4)]
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-4, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_a_critic_learns_alone_at_first_and_the_coefficient_follows_the_divergence(batch):
    fields = {"samples": 4, "critic_warmup": 2, "kl_control": "adaptive", "kl_target": 1.0, "kl_horizon": 80}
    program, state, step = compiled("ppo", tuple(fields.items()))
    for number in range(3):
        before = state.params
        state, metrics = step(state, program.resident, batch, jax.random.key(0))
        state = state.replace(step=state.step + 1)
        leaves = (jax.tree.leaves(params["policy"]) for params in (before, state.params))
        still = [np.array_equal(*pair) for pair in zip(*leaves, strict=True)]
        assert all(still) if number < 2 else not any(still)
        assert not np.array_equal(before["critic"]["head"], state.params["critic"]["head"])
    # The divergence was 0: three errors of -0.2, of 8 responses in a horizon of 80.
    assert float(state.extra["kl_coefficient"]) == pytest.approx(0.05 * 0.98**3)
    assert float(metrics["policy/kl_coefficient"]) == pytest.approx(0.05 * 0.98**2)


# What the feed asks and keeps


class Flat(Counting):
    """Rewards are all 1 in the first `calls` batches, but for failures; then those of letters."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def scores(self, rows, responses, progress):
        found = super().scores(rows, responses, progress)
        self.left -= 1
        return [Score(1.0) for _ in found] if self.left >= 0 else found


def test_groups_of_equal_rewards_are_refilled_from_other_prompts():
    """Four prompts, two a round: the first round is flat, the second is taken in its place, there is no third."""
    scorer = Flat(1)
    program = program_of("dapo", scorer, refill=2)
    state = program.init(jax.random.key(0), program.resident)
    batch, host = collected(program, state)
    assert len(scorer.asked) == 16 and host["group/extra_rounds"] == 1.0 and host["group/refilled"] == 1.0
    first, second = (set(x[0] for x in scorer.asked[part]) for part in (slice(8), slice(8, 16)))
    assert len(set(np.asarray(batch["group"]).tolist())) == 2 and first | second == {"few", "many"}
    texts = [text for _, _, text, _ in scorer.asked[8:]]
    np.testing.assert_allclose(batch["reward"], [share(text) for text in texts], rtol=1e-6)
    for row, text in enumerate(texts):
        tokens = np.asarray(batch["tokens"][row])[np.asarray(batch["mask"][row]) > 0].tolist()
        assert WORDS.decode([token for token in tokens if token]) == text


def test_groups_that_stay_flat_after_the_last_round_stay():
    scorer = Flat(9)
    batch, host = collected(*(lambda program: (program, program.init(jax.random.key(0), program.resident)))(
        program_of("dapo", scorer, refill=2)
    ))
    assert len(scorer.asked) == 24 and (host["group/refilled"], host["group/extra_rounds"]) == (0.0, 2.0)
    assert np.all(batch["reward"] == 1.0)
    assert float(stepped(batch, "dapo")[1]["policy/grad_norm"]) == 0.0


def test_prompts_are_asked_by_their_pass_rates_and_a_feed_that_resumes_asks_the_same():
    """Few letters are wanted, so that no response reaches the bound: all that was asked is out, until all is."""
    def fresh():
        program = program_of("grpo", Flat(0), curriculum_low=0.99, curriculum_least=1)
        return program, program.init(jax.random.key(0), program.resident)

    program, state = fresh()
    groups = [set(np.asarray(collected(program, state, number)[0]["group"]).tolist()) for number in range(2)]
    assert groups[0] | groups[1] == {0, 1, 2, 3}
    saved = program.feed.save()
    batch, host = collected(program, state, 2)
    other, _ = fresh()
    other.feed.restore(jax.tree.map(np.array, saved))
    again, same = collected(other, state, 2)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert host["curriculum/allowed"] == same["curriculum/allowed"] < 1.0
    np.testing.assert_array_equal(saved["rates"]["seen"], np.full((1, 4), 4.0))


@pytest.mark.slow
def test_the_most_likely_response_is_the_baseline_of_remax():
    scorer = Counting()
    program = program_of("remax", scorer, samples=2)
    state = program.init(jax.random.key(0), program.resident)
    batch, host = collected(program, state)
    assert len(scorer.asked) == 8 + 4
    greedy = [share(text) for _, _, text, _ in scorer.asked[8:]]
    np.testing.assert_allclose(batch["baseline"], np.repeat(greedy, 2), rtol=1e-6)
    assert host["reward/greedy"] == pytest.approx(np.mean(greedy))
    _, plain = stepped(batch, "remax", samples=2)
    _, none = stepped(batch | {"reward": batch["baseline"]}, "remax", samples=2)
    assert float(plain["policy/grad_norm"]) > 0.0 and float(none["policy/grad_norm"]) == 0.0


@pytest.mark.parametrize("level", ["token", pytest.param("sequence", marks=pytest.mark.slow)])
def test_what_sampler_and_trainer_disagree_about_may_be_rejected(batch, level):
    """Of one response the sampler's log-probs are lower by log 3, at one token of another higher by as much."""
    at, lengths = int(np.argmax(batch["mask"][1])), np.asarray(batch["mask"]).sum(1)
    log_probs = batch["log_probs"].at[0].add(-np.log(3.0)).at[1, at].add(np.log(3.0))
    _, metrics = stepped(batch | {"log_probs": log_probs}, "dapo", rejection=level)
    of_second = 1 if level == "token" else lengths[1] * (3.0 ** (1 / lengths[1]) > 2.0)  # by its geometric mean
    assert float(metrics["sampler/rejected"]) == pytest.approx((lengths[0] + of_second) / lengths.sum(), rel=1e-5)


def test_a_learned_reward_reads_tokens_on_the_devices():
    def rewards(params, tokens, lengths):
        return params["by"] * lengths.astype(jnp.float32) + tokens[:, 0]

    program = program_of("ppo", Learned({"by": jnp.float32(0.5)}, rewards))
    state = program.init(jax.random.key(0), program.resident)
    batch, host = collected(program, state)
    lengths = np.sum(np.asarray(batch["segments"]) > 0, axis=1)
    np.testing.assert_allclose(batch["reward"], 0.5 * lengths + np.asarray(batch["tokens"])[:, 0])
    assert host["outcome/raised"] == 0.0
    program.feed.close()


def test_a_reward_beside_an_anchor_reads_that_of_its_own_question():
    anchors = np.array([[1, 0], [2, 3], [4, 0], [5, 6]]), np.array([1, 2, 1, 2])

    def rewards(params, samples, tokens, lengths):
        return params * tokens[:, 0] + lengths.astype(jnp.float32) + 100.0 * samples.tokens[:, 0]

    program = program_of(scorer=Anchored(jnp.float32(0.5), rewards), questions=QUESTIONS._replace(anchors=anchors))
    batch, _ = collected(program, program.init(jax.random.key(0), program.resident))
    of_question = 0.5 * anchors[0][:, 0] + anchors[1] + 100.0 * QUESTIONS.tokens[:, 0]
    np.testing.assert_allclose(batch["reward"], of_question[np.asarray(batch["group"])])
    with pytest.raises(ValueError, match="compares with anchor answers and the questions have none"):
        program_of(scorer=Anchored(jnp.float32(0.5), rewards))


def test_a_bounded_critic_starts_at_one_half_and_stays_a_probability(batch):
    """The loss of the first update is half the squared distance of 1/2 to the return, which is each reward here."""
    _, metrics = stepped(
        batch, "ppo", samples=4, kl_coefficient=0.0, gae_lambda=1.0, discount=1.0, critic_bounded=True
    )
    mask, rewards = np.asarray(batch["mask"]), np.asarray(batch["reward"])
    expected = 0.5 * np.sum(mask * (rewards[:, None] - 0.5) ** 2) / mask.sum()
    assert float(metrics["critic/loss"]) == pytest.approx(expected, rel=1e-4)
    own = Critic(Trainable(CONFIG, grpo.default_config("ppo")), 0.5, bounded=True)
    start = own.init(jax.random.key(0), PARAMS) | {"head": 50.0 * jnp.ones(CONFIG.width)}
    zeros = jnp.zeros_like(batch["mask"])
    values = own.values(start, PARAMS, Rows(**batch, weights=zeros, advantages=zeros))
    assert 0.0 <= float(values.min()) < float(values.max()) <= 1.0


@pytest.mark.parametrize("fields, message", [
    ({"samples": 3}, "config.batch_size=8 responses, agent.samples=3 to a prompt, of 4 prompts"),
    ({"samples": 1}, "agent.samples=1: groups of responses to a prompt are compared"),
    ({"batch_size": 32}, "no more prompts than there are"),
    ({"advantages": "groups"}, "unknown config.agent.advantages 'groups': did you mean group"),
    ({"rejection": "tokens"}, "unknown config.agent.rejection 'tokens': did you mean token"),
    ({"refill": 1, "overlap": 1}, "agent.refill=1 and config.overlap=1: which groups are refilled is known when"),
    ({"method": "remax", "samples": 1, "refill": 1}, "agent.samples=1: groups of responses .* are compared"),
    ({"max_new_tokens": 30}, "prompts with agent.max_new_tokens=30 have up to 33 tokens, more than the context of 32"),
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
