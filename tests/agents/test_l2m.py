"""L2M: what an update moves and leaves, counts from the second task on, old keys, EWC, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents.l2m import TaskBatch, default_config, l2m
from rl_jax.data.sequences import Sequences
from rl_jax.networks.multi_domain_transformer import UNUSED, MultiDomainTransformer, to_bins


def config(**fields):
    made = default_config()
    made.update({"embedding_dim": 8, "num_layers": 1, "num_heads": 2, "num_bins": 4, "max_timesteps": 9, "dropout": 0.0,
                 "learning_rate": 0.01, "pool_size": 4, "old_keys": 3, "rank": 2, **fields})
    return made


def sequences(shift=0.0):
    rng, ones = np.random.default_rng(0), np.ones((6, 3), np.float32)
    observations, actions = shift + 0.1 * rng.normal(size=(6, 3, 5)), rng.uniform(-1.0, 1.0, (6, 3, 2))
    actions[:, :, 1] = UNUSED
    steps = np.tile(np.arange(3, dtype=np.int32), (6, 1))
    return Sequences(observations.astype(np.float32), actions.astype(np.float32), ones, steps, ones)


def updates(own, states, pretrains=False, previous=None):
    """States after updates on task 0, 1, ... whose states lie at `states`."""
    agent = l2m(own, 2, pretrains)
    step = jax.jit(agent.update)
    made = [jax.jit(agent.init)(jax.random.key(1), sequences())]
    for task, shift in enumerate(states):
        batch = TaskBatch(sequences(shift), jnp.int32(task), jnp.bool_(True), previous)
        made.append(step(made[-1], batch, jax.random.key(2))[0])
    return agent, made


def test_only_the_selected_modulator_and_its_key_move():
    agent, made = updates(config(), (2.0, 2.0))
    selected = []
    for before, after in zip(made, made[1:], strict=False):
        jax.tree.map(np.testing.assert_array_equal, before.params["model"], after.params["model"])
        np.testing.assert_array_equal(before.params["old"]["keys"], after.params["old"]["keys"])
        moved = np.any(np.asarray(before.params["pool"]["keys"] != after.params["pool"]["keys"]), 1)
        selected.append(np.flatnonzero(moved))
        (one,) = selected[-1]  # states lie so close together that all windows select the same
        rest = np.arange(4) != one
        pools = [jax.tree.leaves((state.params["pool"], state.opt_state["pool"])) for state in (before, after)]
        for x, y in zip(*pools, strict=True):
            np.testing.assert_array_equal(np.asarray(x)[rest], np.asarray(y)[rest])
    # The second task has the same states, and selects another member for the count of the first one.
    assert selected[0] != selected[1]
    np.testing.assert_allclose(made[1].extra["counts"], np.eye(4)[selected[0][0]])
    # When it acts counts do not matter, and what is nearest to an old key is not modulated.
    params = made[2].params
    own = jax.tree.map(np.array, params)
    query = sequences(2.0).observations.mean(1) @ own["model"]["params"]["observation"]["kernel"]
    own["pool"]["keys"][:] = -query[0]
    own["pool"]["keys"][selected[1][0]] = 0.9 * query[0] + 0.1 * np.abs(query[0]).max() * np.eye(8)[0]
    rng = np.random.default_rng(0)
    own["pool"]["modulators"] = jax.tree.map(lambda x: x + 3.0 * rng.normal(size=x.shape), own["pool"]["modulators"])
    context, choose, act = sequences(2.0), jax.jit(agent.chosen), jax.jit(lambda *args: agent.act(*args, None, 0.0))
    assert set(np.asarray(choose(own, context))) == {selected[1][0]}
    old = own | {"old": {"keys": np.stack([-query[0], query[0], -query[0]])}}
    assert set(np.asarray(choose(old, context))) == {4 + 1}
    unmodulated = np.asarray(act(old, context))
    np.testing.assert_array_equal(unmodulated, act(old | {"pool": params["pool"]}, context))
    assert (unmodulated[:, 1] == UNUSED).all() and np.isin(unmodulated[:, 0], [-0.75, -0.25, 0.25, 0.75]).all()
    assert np.any(unmodulated != act(own, context))


@pytest.mark.slow
def test_pre_training_moves_model_and_old_keys():
    _, (before, after) = updates(config(), (1.0,), pretrains=True)
    assert set(before.params) == {"model", "old"}
    assert float(jnp.abs(before.params["model"]["params"]["head"]["kernel"]
                         - after.params["model"]["params"]["head"]["kernel"]).max()) > 0.0
    moved = np.any(np.asarray(before.params["old"]["keys"] != after.params["old"]["keys"]), 1)
    assert moved.sum() == 1


@pytest.mark.slow
def test_a_part_of_the_model_moves_and_a_shared_modulator_needs_no_key():
    agent, (before, after) = updates(config(modulator="", pool_size=0, trainable="head/"), (1.0,))
    names = before.params["model"]["params"]
    moved = {name for name in names if any(
        (x != y).any() for x, y in zip(*(jax.tree.leaves(s.params["model"]["params"][name]) for s in (before, after)))
    )}
    assert moved == {"head"} and agent.trained(before.params)[0] == 8 * 4 + 4
    agent, (before, after) = updates(config(modulator="ia3", pool_size=1, pull=0.0), (1.0,))
    assert set(np.asarray(agent.chosen(after.params, sequences()))) == {0}
    assert agent.trained(before.params)[0] == 8 + 8 + 8 + 32


@pytest.mark.slow
def test_ewc_holds_what_was_important():
    previous = jax.tree.map(lambda x: x[None], sequences(1.0))
    own = config(modulator="", pool_size=0, trainable="head/", penalty="ewc")
    agent, made = updates(own, (1.0, 1.0), previous=previous)
    params = made[0].params["model"]
    model, batch = MultiDomainTransformer(2, 4, 8, 1, 2, 9), sequences(1.0)

    def fit(head):
        changed = {"params": params["params"] | {"head": head}}
        logits = model.apply(changed, **vars(batch))[:, :, 0]
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), to_bins(batch.actions[:, :, :1], 4), -1)
        return -jnp.mean(picked)

    squared = jax.tree.map(jnp.square, jax.grad(fit)(params["params"]["head"]))
    found = made[1].extra["importance"]
    np.testing.assert_allclose(found["params/head/bias"], squared["bias"], rtol=1e-4)
    np.testing.assert_array_equal(made[1].extra["anchor"]["params/head/bias"], params["params"]["head"]["bias"])
    # The second task's importance comes on top, and the anchor moves to where the first one ended.
    assert (made[2].extra["importance"]["params/head/bias"] > found["params/head/bias"]).all()
    moved = made[1].params["model"]["params"]["head"]["bias"]
    np.testing.assert_array_equal(made[2].extra["anchor"]["params/head/bias"], moved)


@pytest.mark.parametrize("fields, message", [
    ({"modulator": "lara"}, "unknown kind in config.agent.modulator 'lara': did you mean lora"),
    ({"penalty": "ewd"}, "unknown penalty in config.agent.penalty 'ewd': did you mean ewc"),
])
def test_what_is_unknown_is_named(fields, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        l2m(config(**fields), 2, False)
