"""Trainers: one update against the same by hand, micro-batches and adapters that change nothing, learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rl_jax.core.fused import run_keys
from rl_jax.core.program import Program
from rl_jax.data.transitions import sample_rows
from rl_jax.language import dpo, reward_model, sft, training
from rl_jax.language.documents import PairDocuments
from rl_jax.language.pairs import Pairs, apart, compared, judged, with_change_weights
from rl_jax.language.rows import Builder, pack, pad
from rl_jax.language.training import Trainable, optimiser
from rl_jax.losses import preference
from rl_jax.networks.trained import global_norm
from tests.language.tiny import CONFIG, DOCUMENTS, PARAMS, log_probs

KEY = jax.random.key(3)
ROWS = pad(DOCUMENTS, 12)
PAIRS = compared([PairDocuments(DOCUMENTS[n], DOCUMENTS[n + 1], 0.5) for n in (0, 2, 4)], 12)
JUDGED = judged([document._replace(reward=float(n % 2)) for n, document in enumerate(DOCUMENTS)], 12)


def config_of(module, **fields) -> ConfigDict:
    config = ConfigDict({"agent": module.default_config(), "batch_size": 4, "num_steps": 20})
    config.agent.learning_rate = 1e-2
    config.agent.update(fields)
    return config


def updated(program: Program, steps: int = 1):
    """The state after some updates, and the metrics of the last one."""
    state = jax.jit(program.init)(jax.random.key(0), program.resident)
    for number in range(steps):
        state, metrics = jax.jit(program.step)(state, program.resident, None, jax.random.fold_in(KEY, number))
        state = state.replace(step=state.step + 1)
    return state, metrics


def program_of(name: str, **fields) -> Program:
    if name == "sft":
        return sft.sft_program(config_of(sft, **fields), CONFIG, PARAMS, pack(DOCUMENTS, 16), ROWS)
    if name == "reward":
        return reward_model.reward_model_program(config_of(reward_model, **fields), CONFIG, PARAMS, PAIRS, PAIRS)
    train = JUDGED if name == "kto" else PAIRS
    return dpo.dpo_program(config_of(dpo, loss=name, **fields), CONFIG, PARAMS, train, PAIRS)


@pytest.mark.parametrize("name", ["sft", pytest.param("kto", marks=pytest.mark.slow)])
def test_micro_batches_change_no_update(name):
    (one, metrics), (two, others) = (updated(program_of(name, micro_batches=number)) for number in (1, 2))
    assert metrics.keys() == others.keys()
    for metric, value in metrics.items():
        np.testing.assert_allclose(others[metric], value, rtol=1e-4, atol=1e-6, err_msg=metric)
    # Adam divides a gradient by its own size: where that is rounding alone, an update may be any.
    same = jax.tree.leaves(jax.tree.map(lambda a, b: np.isclose(a, b, atol=1e-5), one.params, two.params))
    assert sum(x.sum() for x in same) / sum(x.size for x in same) > 0.99


def test_a_batch_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="config.batch_size=4 does not divide into agent.micro_batches=3"):
        jax.eval_shape(program_of("sft", micro_batches=3).step, *_abstract(program_of("sft")))


def _abstract(program):
    state = jax.eval_shape(program.init, KEY, program.resident)
    return state, program.resident, None, KEY


def test_the_gradient_of_dpo_is_that_of_its_formula():
    """Of a batch of pairs: the reference is the start, and beta the implicit reward's."""
    program = program_of("dpo", beta=0.3)
    batch = sample_rows(PAIRS, jax.random.fold_in(KEY, 0), 4, len(PAIRS))
    before = jax.jit(answer)(PARAMS, batch)

    def loss(params):
        chosen, rejected = (0.3 * (x - y) for x, y in zip(answer(params, batch), before, strict=True))
        return jnp.mean(preference.dpo_loss(chosen, rejected))

    _, metrics = updated(program)
    np.testing.assert_allclose(metrics["policy/grad_norm"], global_norm(jax.jit(jax.grad(loss))(PARAMS)), rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/loss"], np.log(2.0), rtol=1e-6)


def answer(params, batch: Pairs):
    """Log-probs of first and second answers, [P] each."""
    return tuple(jnp.sum(log_probs(params, rows) * rows.mask, -1) for rows in (batch.first, batch.second))


def judged_by(program, state):
    several = state.replace(params=jax.tree.map(lambda x: x[None], state.params))
    return program.evaluate(several, program.resident, KEY).outcomes


def test_judged_answers_are_held_out_too():
    """The margin of each is to the mean of the mismatched answers' rewards, by hand, and it grows."""
    program = dpo.dpo_program(config_of(dpo, loss="kto", beta=0.5, learning_rate=0.03), CONFIG, PARAMS, JUDGED, JUDGED)
    state, _ = updated(program, 12)
    after = judged_by(program, state)
    now, before = (jax.jit(answer)(params, JUDGED) for params in (state.params["policy"], PARAMS))
    own, other = (0.5 * (x - y) for x, y in zip(now, before, strict=True))
    signs = np.where(JUDGED.desirable, 1, -1)
    # Two answers to each of the prompts.
    margins = (signs * (own - max(other.mean(), 0))).reshape(-1, 2).mean(1)
    np.testing.assert_allclose(after["margin"][0], margins, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after["chosen_log_prob"][0], now[0][JUDGED.desirable], rtol=1e-4)
    np.testing.assert_allclose(after["rejected_log_prob"][0], now[0][~JUDGED.desirable], rtol=1e-4)
    assert after["margin"].mean() > 0.1 and after["accuracy"].mean() > 0.5


@pytest.mark.parametrize("name, outcome, better, fields", [
    ("sft", "loss", -1, {}), ("reward", "margin", 1, {"lora_rank": 2}),
    ("dpo", "margin", 1, {"lora_rank": 2, "beta": 1.0, "learning_rate": 0.03}),
])
def test_every_trainer_learns_its_few_records(name, outcome, better, fields):
    program = program_of(name, **fields)
    start = jax.jit(program.init)(jax.random.key(0), program.resident)
    state, _ = updated(program, 12)
    before, after = judged_by(program, start), judged_by(program, state)
    assert better * (after[outcome].mean() - before[outcome].mean()) > 0.1
    if outcome == "margin":
        assert not before["margin"].any() and np.all(before["accuracy"] == 0.5) and after["accuracy"].mean() > 0.5
    if name == "dpo":
        check_adapters(state.params["policy"], Trainable(CONFIG, config_of(dpo, **fields).agent))


def check_adapters(adapters, own):
    """They alone were trained, they change the decoder, and as zeros they are the reference."""
    assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(adapters)} == {"a", "b"}
    assert set(adapters) == {"layers"}
    jax.tree.map(np.testing.assert_array_equal, own.params(jax.tree.map(jnp.zeros_like, adapters), PARAMS), PARAMS)
    changed = own.params(adapters, PARAMS)["layers"]["mlp"]["up"]["kernel"]
    assert float(jnp.abs(changed - PARAMS["layers"]["mlp"]["up"]["kernel"]).max()) > 1e-4


def test_each_loss_reads_what_it_is_a_function_of():
    """Sums or means, with or without the reference; of one pair, by hand."""
    one = [jnp.float32([x]) for x in (-6.0, -8.0, -7.0, -4.0, 2.0, 4.0)]
    scored = dpo.Scored(tuple(one[:2]), tuple(one[2:4]), tuple(one[4:]), jnp.array([False]), jnp.float32(0.5))
    settings = dpo.default_config()
    settings.update(beta=0.5, gamma=0.3, odds_ratio_weight=0.2, undesirable_weight=3.0, label_smoothing=0.1)
    # Log ratios 1 and -4, rewards 0.5 and -2, ratios a token 0.5 and -1, log-probs a token -3 and -2.
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    odds = [np.exp(x) / (1 - np.exp(x)) for x in (-3.0, -2.0)]
    expected = {
        "dpo": -0.9 * np.log(sigmoid(2.5)) - 0.1 * np.log(sigmoid(-2.5)),
        "ipo": (1.5 - 1.0) ** 2,
        "nca": -np.log(sigmoid(0.5)) - 0.5 * np.log(sigmoid(-0.5)) - 0.5 * np.log(sigmoid(2.0)),
        "kto": 3.0 * (1 - sigmoid(0.25 - 0.5)),
        "orpo": 3.0 - 0.2 * np.log(sigmoid(np.log(odds[0] / odds[1]))),
        "simpo": -np.log(sigmoid(-0.5 - 0.3)),
    }
    for name, loss in dpo.LOSSES.items():
        without = scored._replace(reference=None) if name in dpo.WITHOUT_REFERENCE else scored
        np.testing.assert_allclose(loss(without, settings), [expected[name]], rtol=1e-5, err_msg=name)


def corrected_pair(first, second):
    prompt = [1, 2]
    documents = (
        Builder(13, 32).append(prompt, sampled=False).append(own, sampled=True).document() for own in (first, second)
    )
    return compared([PairDocuments(*documents, 0.0)], 12)


def test_weights_of_what_a_correction_changed():
    pairs = corrected_pair([3, 4, 5, 0], [3, 9, 9, 5, 0])
    plain = with_change_weights(pairs, 5.0, normalised=False)
    assert plain.first.weights[0].tolist() == [0, 0, 1, 5, 1, 1] + [0] * 6
    assert plain.second.weights[0].tolist() == [0, 0, 1, 5, 5, 1, 1] + [0] * 5
    dense = with_change_weights(pairs, 5.0)
    np.testing.assert_allclose(dense.first.weights[0], plain.first.weights[0] / 8, rtol=1e-6)
    np.testing.assert_allclose(dense.second.weights[0], plain.second.weights[0] / 13, rtol=1e-6)
    same = with_change_weights(pairs, 1.0, normalised=False)
    np.testing.assert_array_equal(same.first.weights, pairs.first.mask)
    assert not pairs.first.weights.any()


@pytest.mark.slow
def test_the_gradient_of_dense_dpo_is_that_of_its_formula():
    """beta times the difference of normalised sums of weighted log ratios; the plain log-probs are reported."""
    dense = with_change_weights(PAIRS, 3.0)
    program = dpo.dpo_program(config_of(dpo, score="weighted", beta=0.7, likelihood_weight=0.2), CONFIG, PARAMS, dense,
                              PAIRS)
    batch = sample_rows(dense, jax.random.fold_in(KEY, 0), 4, len(PAIRS))

    def loss(params, before):
        def score(rows):
            changed = rows.weights * (rows.mask > 0)
            return jnp.sum(changed * log_probs(params, rows), -1) - jnp.sum(changed * log_probs(before, rows), -1)

        chosen = batch.first
        mean = jnp.sum(log_probs(params, chosen) * chosen.mask, -1) / jnp.sum(chosen.mask, -1)
        margins = 0.7 * (score(chosen) - score(batch.second))
        return jnp.mean(-jax.nn.log_sigmoid(margins) - 0.2 * mean)

    _, metrics = updated(program)
    value, gradient = jax.jit(jax.value_and_grad(loss))(PARAMS, PARAMS)
    np.testing.assert_allclose(metrics["policy/grad_norm"], global_norm(gradient), rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy/first_log_prob"], np.mean(answer(PARAMS, batch)[0]), rtol=1e-5)
    without = config_of(dpo, score="weighted")
    with pytest.raises(ValueError, match="config.agent.score='weighted': the pairs have no weights"):
        dpo.dpo_program(without, CONFIG, PARAMS, PAIRS, PAIRS)


def test_a_reference_that_is_computed_once_changes_no_update():
    """That of the start; and any other one is what margins are to."""
    settings = config_of(dpo, beta=0.3, micro_batches=2)
    referenced = dpo.reference_of(CONFIG, settings.agent, 4)
    train = referenced(PARAMS, PAIRS)
    own, expected = (updated(dpo.dpo_program(settings, CONFIG, PARAMS, pairs, PAIRS)) for pairs in (train, PAIRS))
    np.testing.assert_allclose(own[1]["policy/margin"], 0.0, atol=2e-6)
    for name, value in expected[1].items():
        np.testing.assert_allclose(own[1][name], value, rtol=1e-4, atol=2e-6, err_msg=name)
    other = jax.tree.map(lambda x: 0.9 * x, PARAMS)
    found = dpo.dpo_program(settings, CONFIG, PARAMS, referenced(other, PAIRS), PAIRS)
    batch = sample_rows(PAIRS, jax.random.fold_in(KEY, 0), 4, len(PAIRS))
    now, before = (jax.jit(answer)(params, batch) for params in (PARAMS, other))
    expected = 0.3 * np.mean((now[0] - before[0]) - (now[1] - before[1]))
    np.testing.assert_allclose(updated(found)[1]["policy/margin"], expected, rtol=1e-4)


def test_the_learning_rate_rises_and_falls():
    config = training.default_config()
    config.learning_rate, config.warmup_steps, config.decay, config.max_grad_norm = 1.0, 3, True, 1e9
    tx = optimiser(config, 13)
    state, sizes = tx.init(jnp.zeros(())), []
    for _ in range(13):
        update, state = tx.update(jnp.ones(()), state, jnp.zeros(()))
        sizes.append(-float(update))
    np.testing.assert_allclose(sizes[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-3)
    assert all(one > other for one, other in zip(sizes[3:], sizes[4:], strict=False)) and sizes[-1] < 0.05


def test_an_unknown_loss_or_dtype_is_an_error():
    with pytest.raises(ValueError, match="unknown config.agent.loss 'dop': did you mean dpo"):
        program_of("dop")
    with pytest.raises(ValueError, match="unknown config.agent.dtype 'float8': did you mean float32"):
        Trainable(CONFIG, config_of(sft, dtype="float8").agent).hidden(PARAMS, ROWS)


def test_seeds_draw_batches_of_their_own():
    keys = run_keys("train", 0, 2)
    one, other = (sample_rows(ROWS, key, 16, len(ROWS)).tokens for key in keys)
    assert np.any(one != other) and apart(jnp.arange(4))[0].tolist() == [0, 2]
