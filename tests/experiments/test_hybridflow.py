"""HybridFlow: drivers and their advantages by hand, placements that change nothing, layouts, the search, bad settings.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hybridflow
from experiments.hybridflow import experiment as paper
from experiments.hybridflow import layouts
from experiments.hybridflow.advantages import Numbers, against_greedy, generalized, in_groups, lagrangian
from experiments.hybridflow.drivers import DRIVERS, lines_of_code
from experiments.hybridflow.mapping import partitions, search, seconds
from experiments.hybridflow.models import Experience, Prompts
from experiments.hybridflow.placements import follow, meshes, placed
from experiments.hybridflow.sorting import LETTERS, answer, make_task, share_right, shows, solved
from rl_jax.core.mesh import make_mesh
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.roles import put_batch


def configured(preset, fields={}):
    config = hybridflow.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


SMALL = {
    "batch_size": 16, "agent.updates": 1, "decoder.width": 16, "decoder.num_layers": 1, "decoder.hidden_width": 16,
    "decoder.head_dim": 4,
}


@functools.cache
def dataflow(method):
    """Of a small random decoder."""
    config = configured(f"{method}/placements", SMALL)
    shape = DecoderConfig(**config.decoder)
    # Far from uniform: a text that differs would be seen.
    start = jax.tree.map(lambda x: 10 * x if x.ndim > 1 else x, init_decoder(shape, jax.random.key(0)))
    return paper.Dataflow(config, shape, start, make_task(4, 64, 7))


# The task


def test_sorting():
    task = make_task(2, 20, 7)
    assert len({tuple(row) for row in np.concatenate([task.train, task.held_out]).tolist()}) == 100
    prompt = np.array([[LETTERS.index(x) for x in "3170="]])
    right = np.array([[LETTERS.index(x) for x in "0137\n"]])
    np.testing.assert_array_equal(answer(prompt), right)
    both = np.concatenate([np.concatenate([prompt, right], 1), np.concatenate([prompt, right[:, ::-1]], 1)])
    np.testing.assert_allclose(share_right(both, 4), [1.0, 0.2])
    np.testing.assert_array_equal(shows(both, 4, 7), [1.0, 1.0])
    np.testing.assert_array_equal(shows(both, 4, 9), [0.0, 0.0])
    rows = solved(prompt, 16)
    np.testing.assert_array_equal(rows.tokens[rows.mask > 0], right[0])


# Drivers


def test_drivers_are_short():
    assert {name: lines_of_code(driver) for name, driver in DRIVERS.items()} == {
        "ppo": 7, "remax": 7, "grpo": 6, "safe_rlhf": 7,
    }

    def three(x):
        """Not code."""
        # nor this

        y = [
            x,
        ]
        return y

    assert lines_of_code(three) == 4


def rows_of(rewards, values=None, log_probs=0.0):
    """Answers of 2 and 3 tokens after a prompt of 1; the rest is padding."""
    mask = jnp.array([[0, 1, 1, 0], [0, 1, 1, 1]], jnp.float32)
    zeros, number = jnp.zeros_like(mask), jnp.zeros(2, jnp.int32)
    return Experience(
        tokens=number[:, None] + zeros.astype(jnp.int32), mask=mask, segments=mask.astype(jnp.int32),
        positions=mask.astype(jnp.int32), log_probs=log_probs * mask, weights=zeros, advantages=zeros, group=number,
        source=number, policy_step=number, truncated=number > 0, reward=jnp.array(rewards, jnp.float32),
        values=zeros if values is None else jnp.array(values, jnp.float32), reference_log_probs=zeros,
    )


def test_generalised_advantages_by_hand():
    """The reward stands at the last token, k1 at every one; values bootstrap, but not out of the answer."""
    numbers = Numbers(0.1, 1.0, 0.5)
    rows = rows_of([1.0, 0.0], [[9, 0.5, 0.25, 9], [9, 0, 0, 0.5]], log_probs=1.0)
    penalty = -0.1
    last = penalty + 1.0 - 0.25
    one = [penalty + 0.25 - 0.5 + 0.5 * last, last]
    end = penalty - 0.5
    middle = penalty + 0.5 + 0.5 * end
    other = [penalty + 0.5 * middle, middle, end]
    found = generalized(rows, numbers)
    returns = [one[0] + 0.5, one[1] + 0.25, *(np.array(other) + [0, 0, 0.5])]
    np.testing.assert_allclose(found.returns[rows.mask > 0], returns, rtol=1e-6)
    raw = np.array([*one, *other])
    np.testing.assert_allclose(found.advantages[rows.mask > 0], (raw - raw.mean()) / raw.std(ddof=1), rtol=1e-4)
    without = generalized(rows.replace(reference_log_probs=None), numbers)
    np.testing.assert_allclose(without.returns[0, 2], 1.0)


def test_the_other_advantages_by_hand():
    numbers, prompts = Numbers(0.5, 1.0, 1.0), Prompts(jnp.zeros((1, 1)), jnp.zeros(1, jnp.int32), None)
    found = in_groups(rows_of([1.0, 0.0]), prompts).advantages
    np.testing.assert_allclose(found, [[0, 2**-0.5, 2**-0.5, 0], [0, *[-(2**-0.5)] * 3]], rtol=1e-5)
    drawn, greedy = rows_of([1.0, 0.5], log_probs=0.1), rows_of([0.25, 0.5])
    found = against_greedy(drawn, greedy, numbers).advantages  # the penalty is 0.5 0.1 a token
    np.testing.assert_allclose(found[:, 1], [1.0 - 0.1 - 0.25, 0.5 - 0.15 - 0.5], rtol=1e-5)
    one, other = (rows_of([0.0, 0.0]).replace(advantages=jnp.full((2, 4), x)) for x in (1.0, 2.0))
    np.testing.assert_allclose(lagrangian(one, other, jnp.array(3.0)).advantages, (1.0 - 3.0 * 2.0) / 4.0)


def test_groups_that_lie_on_several_devices_are_compared_whole():
    rewards = np.arange(32, dtype=np.float32) ** 2
    rows = jax.tree.map(lambda x: jnp.tile(x, (16, *[1] * (x.ndim - 1))), rows_of([0.0, 0.0])).replace(reward=rewards)
    prompts = Prompts(jnp.zeros((4, 1)), jnp.arange(4), None)
    expected = in_groups(rows, prompts).advantages
    spread = put_batch((rows, prompts), make_mesh(data=8))
    np.testing.assert_allclose(in_groups(*spread).advantages, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "ppo", "remax", "safe_rlhf"])
def test_placements_change_neither_texts_nor_losses(method):
    """Plain Python over roles on 8 devices, on 4 and 4, on one, and the same driver as one compiled step.

    The quick one has roles without a place beside those on 4 and 4.
    """
    flow, quick = dataflow(method), method == "grpo"
    resident = flow.resident()
    state = jax.jit(flow.init)(jax.random.key(0), resident)
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(5), number)) for number in range(2)]
    asked = [jax.jit(flow.prompts)(resident, own[0]) for own in keys]
    fused, seen = jax.jit(flow.iteration), []

    def step(state, number):
        found = fused(state, resident, jax.random.fold_in(jax.random.key(5), number))
        seen.append(found[2])
        return found

    def drive(roles, number):
        found = flow.driver(roles, flow.numbers, asked[number], keys[number][1])
        seen.append(found[2] | paper.watched(found[1], flow.task))
        return found

    roles, places = flow.roles(state, resident["reference"]), meshes(jax.devices())
    expected = follow(drive, roles, 2) if quick else follow(step, state, 2)
    for name in ("split",) if quick else places:
        found = follow(drive, placed(roles, *places[name]), 2)
        np.testing.assert_allclose(found.losses, expected.losses, atol=1e-5)
        for one, other in zip(found.tokens, expected.tokens, strict=True):
            np.testing.assert_array_equal(one, other)
        assert found.parameters > 0
    # Compiled once: a second iteration has the shapes and layouts of the first.
    for function in (flow.functions.generate, flow.functions.update_actor):
        assert function._cache_size() == (2 if quick else len(places))
    # Log-probs are computed anew in the layout that learns, so the first ratio is 1; the sampler's gap is logged.
    assert float(seen[0]["actor/ratio"]) == pytest.approx(1.0, abs=1e-6)
    assert 0.0 < float(seen[0]["sampler/gap_max"]) < 1e-4


# Layouts


@pytest.mark.parametrize("way", ["hybridflow", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("minor", "contiguous", "deepspeed_chat")
)])
def test_ways_between_layouts_are_what_the_formulae_say(way):
    shape = DecoderConfig(vocab_size=64, width=64, num_layers=1, num_heads=4, num_kv_heads=4, head_dim=16,
                          hidden_width=64)
    found = layouts.measured(way, shape, jax.device_get(init_decoder(shape, jax.random.key(0))))
    for column in ("moved", "peak", "redundant"):
        if way != "minor":
            assert found[column] == pytest.approx(found[f"{column}_formula"], abs=0.01)
    assert found["equal"] == 1.0 and found["log_prob_gap"] < 1e-5
    expected = {"gathers": 1.0, "permutations": way == "minor", "other_collectives": 0.0,
                "temporary": way == "minor", "kept": 8 if way == "hybridflow" else 4}
    assert {name: found[name] for name in expected} == expected


def test_formulae_by_hand():
    """Table 2 of the paper with t = 4, t_g = 2, d = 2."""
    mesh = make_mesh(seed=2, data=2, model=2)
    assert layouts.formulae("hybridflow", mesh) == {"moved": 0.25, "peak": 0.5, "redundant": 0.0}
    assert layouts.formulae("contiguous", mesh) == {"moved": 0.75, "peak": 1.0, "redundant": 0.25}
    assert layouts.formulae("deepspeed_chat", mesh) == {"moved": 0.875, "peak": 1.0, "redundant": 0.125}


# The search


def test_four_models_have_fifteen_groupings():
    found = [frozenset(map(frozenset, groups)) for groups in partitions(("actor", "critic", "reference", "reward"))]
    assert len(found) == len(set(found)) == 15
    assert [len(list(partitions("abcde"[:n]))) for n in range(6)] == [1, 1, 2, 5, 15, 52]


def test_the_search_on_tables_made_by_hand():
    def halving(work):
        return {number: work / number for number in range(1, 9)}

    def constant(work):
        return dict.fromkeys(range(1, 9), work)

    # Perfect scaling: nothing beats all models together, 8 / 8 + 2 / 8 + (8 + 4) / 8.
    costs = {
        "generate": {"actor": halving(8.0)}, "score": {"critic": halving(1.0), "reward": halving(1.0)},
        "update": {"actor": halving(8.0), "critic": halving(4.0)},
    }
    best = search(("actor", "critic", "reward"), 8, costs)[0]
    assert best == ((("actor", "critic", "reward"),), (8,), 2.75)
    assert seconds((("actor",), ("critic", "reward")), (4, 4), costs) == 2.0 + 0.5 + 2.0
    # No scaling: every model alone, so that a stage takes as long as its slowest one.
    costs = {stage: {model: constant(4.0) for model in by_model} for stage, by_model in costs.items()}
    best = search(("actor", "critic", "reward"), 8, costs)[0]
    assert best.seconds == 12.0 and ("actor",) in best.groups
    # A model that needs six devices leaves two for the others.
    costs["generate"]["actor"] = {number: 1.0 for number in (6, 7)}
    assert search(("actor", "critic", "reward"), 8, costs)[0].devices[0] in (6, 7)
    with pytest.raises(ValueError, match="no grouping of actor fits 2 devices"):
        search(("actor",), 2, {"generate": {"actor": {8: 1.0}}})


# Settings


@pytest.mark.parametrize("fields, message", [
    ({"task": "sft"}, "unknown config.task 'sft'"),
    ({"method": "pp"}, "unknown config.method 'pp': did you mean ppo"),
    ({"task": "resharding"}, "unknown config.method 'ppo'"),
    ({"devices": 9}, "config.devices=9 and there are 8: start with XLA_FLAGS"),
    ({"data.judged": 10_000}, "config.data.judged=10000 of 10000 prompts leaves none"),
    ({"agent.samples": 3}, "config.batch_size=16 answers do not divide into agent.samples=3"),
    ({"agent.updates": 5}, "into agent.updates=5"),
    ({"start": "nowhere.npz"}, "nowhere.npz: no such model"),
    ({"decoder.width": 32}, "start.npz: .* pretrain it again"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    config = configured("tiny", fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(config).program(config)
