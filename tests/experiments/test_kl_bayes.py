"""KL-regularised RL as Bayesian inference: the sampler's and the exact probabilities, one update, the targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import kl_bayes
from experiments.kl_bayes import experiment as paper
from rl_jax.language import enumeration
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.distribution_matching import draw_texts, text_log_probs


def configured(preset, fields={}):
    config = kl_bayes.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


SHAPE = DecoderConfig(vocab_size=3, width=8, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=4, hidden_width=16)
PARAMS = jax.tree.map(lambda x: 20.0 * x, paper.init_decoder(SHAPE, jax.random.key(0)))  # far from uniform


@pytest.mark.slow
def test_probabilities_of_all_texts_are_those_of_samples():
    texts = paper.with_start(enumeration.all_sequences(3, 2))
    log_probs = text_log_probs(SHAPE, PARAMS, jnp.asarray(texts))
    assert float(jnp.sum(jnp.exp(log_probs))) == pytest.approx(1.0, abs=1e-5)
    drawn = draw_texts(SHAPE, PARAMS, paper.START, 4000, 2, jax.random.key(1))
    counts = np.bincount(np.asarray(drawn[:, 1] * 3 + drawn[:, 2]), minlength=9)
    expected = 4000 * np.exp(log_probs)
    assert np.all(np.abs(counts - expected) < 5.0 * np.sqrt(expected + 1.0))


def test_targets():
    """Each by hand on three texts; the distributional one has the share that is asked of it."""
    texts = jnp.array([[3, 3, 3], [3, 0, 0], [0, 1, 2]])

    def values(kind):
        config = configured(f"kl/{kind}", {"target.fitted_on": 1000})
        return paper.target_of(config, paper.load_prior(config)).potential(texts)

    np.testing.assert_allclose(values("reward"), [1.5 / 0.5, 0.5 / 0.5, 0.0])
    np.testing.assert_allclose(values("pointwise"), [0.0, -np.inf, -np.inf])
    found = values("distributional")
    assert found[0] == found[1] < 0 and found[2] == 0  # the symbol is in more than half of the prior's texts


def test_the_distributional_target_has_its_share():
    config = configured("kl/distributional", {"target.fitted_on": 1000})
    program = paper.experiment(config).program(config)
    state = jax.tree.map(lambda x: x[None], program.init(jax.random.key(0), program.resident))
    outcomes = program.evaluate(state, program.resident, jax.random.key(0)).outcomes
    assert outcomes["kl_from_prior"][0, 0] == pytest.approx(0.0, abs=1e-5) and outcomes["total_variation"][0, 0] > 0.2
    assert outcomes["identity_gap"][0, 0] < 1e-5 and outcomes["mass"][0, 0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["off_policy", "kl"])
def test_an_update_comes_nearer(method):
    """A hundred of them, in one program with the running normaliser."""
    config = configured(f"tiny-{method}", {"matching.samples": 64, "matching.length": 3, "num_steps": 100})
    program = paper.experiment(config).program(config)
    state = program.init(jax.random.key(0), program.resident)
    step = jax.jit(program.step)
    before = {}
    for name, count in (("start", 0), ("end", 100)):
        for number in range(count):
            state, metrics = step(state, program.resident, None, jax.random.key(number))
            state = state.replace(step=state.step + 1)
        of_runs = jax.tree.map(lambda x: x[None], state)
        before[name] = program.evaluate(of_runs, program.resident, jax.random.key(0)).outcomes["total_variation"][0, 0]
    assert before["end"] < 0.5 * before["start"]
    assert float(state.extra["estimates"]) == 100 and np.isfinite(float(metrics["policy/log_z"]))
    if method == "off_policy":  # the proposal has followed the policy
        moved = jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), state.extra["proposal"], program.resident)
        assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"matching.method": "kll"}, "unknown config.matching.method 'kll': did you mean kl"),
        ({"target.kind": "points"}, "unknown config.target.kind 'points': did you mean pointwise"),
        ({"matching.length": 9}, r"4\^9 sequences are more than 100,000"),
        ({"prior": "nowhere.npz"}, "nowhere.npz: no such model"),
        ({"decoder.width": 16}, "prior.npz: .* pretrain it again"),
        ({"target.kind": "pointwise", "target.times": 7}, "no sequence a positive probability"),
        ({"target.kind": "word"}, "config.target.kind='word' with config.model=''"),
    ],
)
def test_settings_that_cannot_work_are_named(fields, message):
    config = configured("tiny", fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        made = paper.experiment(config)
        program = made.program(config)
        state = jax.tree.map(lambda x: x[None], program.init(jax.random.key(0), program.resident))
        program.evaluate(state, program.resident, jax.random.key(0))


def test_words_are_found_where_their_tokens_stand_together():
    texts = jnp.array([[1, 5, 6, 2], [5, 1, 6, 2], [0, 0, 5, 6], [6, 5, 6, 5]])
    np.testing.assert_array_equal(paper.contains(texts, [5, 6]), [1.0, 0.0, 1.0, 1.0])


def test_a_word_that_is_too_rare_is_named():
    config = configured("tiny-texts", {"prior_texts": 20})
    with pytest.raises(ValueError, match="of 20 texts of the prior keep the constraint, too few to judge by"):
        paper.experiment(config)


@pytest.mark.parametrize("method", ["kl", pytest.param("off_policy", marks=pytest.mark.slow)])
def test_a_batch_without_a_wanted_text_is_no_nan(method):
    """Of texts of seven symbols none is all of one symbol, so the estimate of Z is 0 and every text is ruled out."""
    config = configured(f"tiny-{method}", {"matching.samples": 4, "matching.length": 7, "target.kind": "pointwise"})
    config.target.times = 7
    program = paper.experiment(config).program(config)
    state, metrics = jax.jit(program.step)(program.init(jax.random.key(0), program.resident), program.resident, None,
                                           jax.random.key(0))
    assert float(metrics["policy/reward"]) == 0.0 and all(np.isfinite(float(x)) for x in metrics.values())
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state.params))
