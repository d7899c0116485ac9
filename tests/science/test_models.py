"""The generator, its policy and the predictors: by hand, by sums over all texts, and against other formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rl_jax.generative import molecule_policy
from rl_jax.generative.molecule_policy import Written, log_prob, reinforce, sample, until_stop
from rl_jax.generative.molecule_rewards import effect_reward
from rl_jax.generative.molecule_stages import area_under_curve, correlation_within
from rl_jax.science.molecule_vae import MoleculeConfig, init_molecule_vae, molecule_loss, updated_stack
from rl_jax.science.molecules import PAD, START, STOP, UNKNOWN
from rl_jax.science.predictors import AttentionPredictor, BimodalPredictor, masked_cross_entropy
from rl_jax.science.profiles import ProfileVAE, profile_loss

SHAPE = MoleculeConfig(vocab_size=6, width=8, embedding=4, latent=4, stack_depth=3, stack_width=5)
PARAMS = jax.tree.map(lambda x: 3.0 * x, jax.jit(init_molecule_vae, static_argnums=0)(SHAPE, jax.random.key(0)))
LATENTS = jax.random.normal(jax.random.key(1), (1, 4))


def test_a_stack_pushes_pops_and_keeps():
    stack, pushed = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[9.0]])
    one = lambda *shares: updated_stack(stack, jnp.array([shares]), pushed)[0, :, 0].tolist()  # noqa: E731
    assert one(1.0, 0.0, 0.0) == [9.0, 1.0, 2.0]
    assert one(0.0, 1.0, 0.0) == [2.0, 3.0, 0.0]
    assert one(0.0, 0.0, 1.0) == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(one(0.5, 0.25, 0.25), [0.5 * 9 + 0.5 + 0.25, 0.5 + 0.75 + 0.5, 1.0 + 0.75], rtol=1e-6)


def test_probabilities_of_all_texts_are_those_of_samples():
    """Of two tokens each 3 of 6 can be written: stop and two letters."""
    texts = jnp.array([[a, b] for a in (STOP, 4, 5) for b in (STOP, 4, 5)])
    states = jnp.concatenate([jnp.full((9, 1), START), texts[:, :1]], 1)
    log_probs, entropies = log_prob(SHAPE, PARAMS, jnp.repeat(LATENTS, 9, 0), states, texts, 0.7)
    chances = jnp.exp(log_probs.sum(1))
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-5)
    first = jnp.exp(log_probs[::3, 0])
    assert float(entropies[0, 0]) == pytest.approx(float(-(first * jnp.log(first)).sum()), abs=1e-5)
    drawn = sample(SHAPE, PARAMS, jnp.repeat(LATENTS, 4000, 0), 2, 0.7, jax.random.key(2))
    assert not np.isin(np.asarray(drawn.final), (PAD, START, UNKNOWN)).any()
    counts = np.asarray([(drawn.final == text).all(1).sum() for text in texts])
    assert (abs(counts - 4000 * chances) < 5 * np.sqrt(4000 * chances + 1)).all()
    again, _ = log_prob(SHAPE, PARAMS, jnp.repeat(LATENTS, 4000, 0), drawn.states.T, drawn.actions.T, 0.7)
    np.testing.assert_allclose(again, drawn.log_probs.T, atol=1e-4)


def test_masks_end_with_the_first_stop():
    actions = jnp.array([[4, STOP, 5, STOP], [4, 5, 4, 5], [STOP, STOP, 4, 4]])
    assert until_stop(actions).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


def batch_of(rewards, valid, key=3):
    drawn = sample(SHAPE, PARAMS, jnp.repeat(LATENTS, 4, 0), 5, 0.7, jax.random.key(key))
    return Written(drawn.states.T, drawn.actions.T, drawn.log_probs.T, jnp.repeat(LATENTS, 4, 0),
                   jnp.asarray(rewards), jnp.asarray(valid))


OFFICIAL = {"baseline": "none", "mask_after_stop": False, "match_temperature": False, "temperature": 0.7,
            "drop_invalid": True, "weight_decay": 0.0, "max_grad_norm": 1e9}


def stepped(batch, **fields):
    """The gradient norm and the metrics of one update."""
    config = molecule_policy.default_config()
    config.update(fields)
    trainer = reinforce(config, SHAPE)
    state, metrics = jax.jit(trainer.update, static_argnums=2)(trainer.init(PARAMS), batch, 2)
    return state, metrics


def test_the_official_update_is_the_papers_formula():
    batch = batch_of([1.0, 0.5, 0.25, 9.0], [1.0, 1.0, 1.0, 0.0])

    def loss(params):
        log_probs, _ = log_prob(SHAPE, params, batch.latents, batch.states, batch.actions, 1.0)
        return -jnp.sum(log_probs[:3].sum(1) * batch.rewards[:3]) / 3.0

    decoder = {name: PARAMS[name] for name in molecule_policy.DECODER}
    gradient = jax.jit(jax.grad(loss))(decoder)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(gradient)))
    state, metrics = stepped(batch, **OFFICIAL)
    assert float(metrics["model/grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
    assert set(state.params["model"]) == set(molecule_policy.DECODER)
    assert float(metrics["actor/off_policy"]) > 0.01  # drawn at 0.7, learnt at 1
    assert float(stepped(batch, **OFFICIAL | {"match_temperature": True})[1]["actor/off_policy"]) < 1e-4


@pytest.mark.slow
def test_each_of_the_four_settings_acts():
    batch = batch_of([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    # Equal rewards: without a baseline everything written is pushed up, with one nothing is.
    assert float(stepped(batch, **OFFICIAL)[1]["model/grad_norm"]) > 0.1
    for baseline in ("leave_one_out", "moving_average"):
        assert float(stepped(batch, **OFFICIAL | {"baseline": baseline})[1]["model/grad_norm"]) < 1e-6
    masked = stepped(batch, **OFFICIAL | {"mask_after_stop": True})[1]
    assert float(masked["model/grad_norm"]) != pytest.approx(float(stepped(batch, **OFFICIAL)[1]["model/grad_norm"]))
    spoilt = batch._replace(valid=jnp.array([1.0, 1.0, 1.0, 0.0]))
    assert float(stepped(spoilt, **OFFICIAL)[1]["reward/mean"]) == 1.0
    assert float(stepped(spoilt, **OFFICIAL | {"drop_invalid": False})[1]["reward/mean"]) == 0.75
    with pytest.raises(ValueError, match="unknown config.policy.baseline 'mean'"):
        stepped(batch, baseline="mean")


@pytest.fixture(scope="module")
def of_equal_rewards():
    """(batch, state, metrics) of an update on molecules that are worth the same, so that none has an advantage."""
    batch = batch_of([0.5] * 4, [1.0] * 4)
    return batch, *stepped(batch, baseline="moving_average", baseline_decay=0.5, entropy_coefficient=0.3,
                           max_grad_norm=1e9, weight_decay=0.0)


def test_the_baseline_moves(of_equal_rewards):
    _, state, _ = of_equal_rewards
    assert float(state.extra["baseline"]) == 0.5 and float(state.extra["seen"]) == 1.0


def test_the_entropy_coefficient_pushes_the_entropy_up(of_equal_rewards):
    """Without an advantage the gradient is that of the mean entropy up to and with each first stop."""
    batch, state, metrics = of_equal_rewards
    mask = until_stop(batch.actions)
    assert 0.0 < float(mask.mean()) < 1.0

    @jax.jit
    @jax.value_and_grad
    def entropy(params):
        tokens = jnp.repeat(jnp.array([STOP, 4, 5]), 4)  # all that can be written
        every = (jnp.tile(x, (3, 1)) for x in (batch.latents, batch.states))
        log_probs = log_prob(SHAPE, params, *every, jnp.broadcast_to(tokens[:, None], (12, 5)), 1.0)[0]
        return -jnp.sum((jnp.exp(log_probs) * log_probs).reshape(3, 4, 5).sum(0) * mask) / jnp.sum(mask)

    before, gradient = entropy({name: PARAMS[name] for name in molecule_policy.DECODER})
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(jax.device_get(gradient))))
    assert float(metrics["actor/entropy"]) == pytest.approx(float(before), rel=1e-4)
    assert float(metrics["model/grad_norm"]) == pytest.approx(0.3 * norm, rel=1e-3)
    assert float(entropy(state.params["model"])[0]) > float(before)


def test_rewards_of_predictions():
    config = ConfigDict({"effect": "sensitivity", "threshold": 0.0, "inactive": 10.0, "midpoint": 0.0})
    found = effect_reward(jnp.array([-2.0, -0.1, 0.0, 3.0]), config)
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-0.1)), 4.54e-5, 4.54e-5], rtol=1e-3)
    config.midpoint = -2.0
    assert float(effect_reward(jnp.array([-2.0]), config)[0]) == pytest.approx(0.5)
    config.effect = "binding"
    assert float(effect_reward(jnp.array([0.0]), config)[0]) == pytest.approx(0.5)


@pytest.mark.slow
def test_losses_of_autoencoders():
    tokens = jnp.array([[START, 4, 5, STOP, PAD], [START, 5, STOP, PAD, PAD]])
    value = lambda tokens, weight: molecule_loss(  # noqa: E731
        SHAPE, PARAMS, tokens, jax.random.key(0), kl_weight=weight, keep=1.0)
    loss, info = value(tokens, 0.5)
    assert float(loss) == pytest.approx(float(info["model/cross_entropy"] + 0.5 * info["model/kl"]), rel=1e-5)
    longer = jnp.concatenate([tokens, jnp.full((2, 3), PAD)], 1)
    assert float(value(longer, 0.0)[0]) == pytest.approx(float(value(tokens, 0.0)[0]), rel=1e-5)
    module = ProfileVAE(6, (8,), 3)
    profiles = jax.random.normal(jax.random.key(0), (5, 6))
    params = module.init(jax.random.key(1), profiles)["params"]
    clean = profile_loss(module, params, profiles, jax.random.key(2), kl_weight=0.0, masked=0.0, noise=0.0)[0]
    blind = profile_loss(module, params, profiles, jax.random.key(2), kl_weight=0.0, masked=1.0, noise=0.0)[0]
    assert float(clean) != pytest.approx(float(blind))


def test_attention_reads_the_profile_and_no_padding():
    module = AttentionPredictor(vocab_size=9, features=(8,), filters=4, heads=2, attention=6, widths=(3,))
    tokens = jnp.array([[4, 5, 6, PAD, PAD]])
    params, apply = jax.jit(module.init)(jax.random.key(0), tokens, jnp.ones((1, 3))), jax.jit(module.apply)
    one = apply(params, tokens, jnp.ones((1, 3)))
    assert not np.allclose(one, apply(params, tokens, jnp.zeros((1, 3))))
    # A molecule's own tokens alone are weighed: with the convolution off, more padding changes nothing.
    plain = AttentionPredictor(vocab_size=9, features=(8,), heads=2, attention=6, widths=())
    params, apply = jax.jit(plain.init)(jax.random.key(0), tokens, jnp.ones((1, 3))), jax.jit(plain.apply)
    longer = jnp.concatenate([tokens, jnp.full((1, 4), PAD)], 1)
    np.testing.assert_allclose(*(apply(params, x, jnp.ones((1, 3))) for x in (tokens, longer)), rtol=1e-5)


def test_bimodal_attention_is_what_numpy_computes():
    """Tokens by amino acids, amino acids by tokens, each scale beside its own of the other, padding without weight."""
    module = BimodalPredictor(vocab_size=9, features=(), widths=((1, 3),), filters=3, embeddings=(4, 5), attention=6)
    tokens, acids = np.array([[4, 5, 6, PAD, PAD]]), np.array([[1, 2, 21, 3, 0, 0, 0]])
    params = jax.jit(module.init)(jax.random.key(0), tokens, acids)["params"]
    params = jax.tree.map(lambda x: np.asarray(x, np.float64) + 0.1, params)  # biases too
    dense = lambda name, x: x @ params[name]["kernel"] + params[name].get("bias", 0.0)  # noqa: E731

    def convolved(name, x):
        kernel = params[name]["kernel"]
        padded = np.pad(x, ((len(kernel) // 2,) * 2, (0, 0)))
        windows = [sum(padded[at + i] @ kernel[i] for i in range(len(kernel))) for at in range(len(x))]
        return np.maximum(np.stack(windows) + params[name]["bias"], 0.0)

    one, other = params["Embed_0"]["embedding"][tokens[0]], params["Embed_1"]["embedding"][acids[0]]
    one, other, expected = [one, convolved("Conv_0", one)], [other, convolved("Conv_1", other)], []
    for own, theirs, there in ((one, other, tokens[0] > 0), (other, one, acids[0] > 0)):
        for x, context in zip(own, theirs):
            number = len(expected)
            by_context = dense(f"Dense_{3 * number + 2}", dense(f"Dense_{3 * number + 1}", context).T).T
            scores = np.tanh(dense(f"Dense_{3 * number}", x) + by_context) @ params[f"vector_{number}"][0]
            weights = np.exp(scores) * there
            expected.append(weights @ x / weights.sum())
    expected = np.concatenate(expected) @ params["MLP_0"]["Dense_0"]["kernel"] + params["MLP_0"]["Dense_0"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, tokens, acids)[0], expected, rtol=1e-4)


def test_cross_entropy_passes_over_gaps():
    logits, labels = jnp.array([[0.0, 2.0], [1.0, -1.0]]), jnp.array([[1.0, jnp.nan], [0.0, jnp.nan]])
    expected = (np.log(2.0) + np.log1p(np.exp(1.0))) / 2.0
    assert float(masked_cross_entropy(logits, labels)[0]) == pytest.approx(expected, rel=1e-5)
    gradient = jax.grad(lambda x: masked_cross_entropy(x, labels)[0])(logits)
    assert np.isfinite(gradient).all() and not gradient[:, 1].any()


def test_statistics():
    values, groups = np.array([1.0, 2.0, 11.0, 12.0, 7.0]), np.array([0, 0, 1, 1, 2])
    assert correlation_within(np.array([0.0, 0.0, 9.0, 9.0, 5.0]), values, groups) != correlation_within(
        values, values, groups)
    assert correlation_within(values, values, groups) == pytest.approx(1.0)
    assert np.isnan(correlation_within(np.array([0.0, 0.0, 9.0, 9.0, 5.0]), values, groups))  # groups alone
    assert area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(0.75)
    assert area_under_curve(np.ones(4), np.array([0, 1, 0, 1])) == 0.5
    assert np.isnan(area_under_curve(np.ones(2), np.ones(2)))
