"""Offline RL with histories: one update by loops, what padding, time-outs and the loss of distances may not touch."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import obs_history
from experiments.obs_history import experiment as paper
from rl_jax.agents.representation import Representation, inputs
from rl_jax.control.histories import Judged, make_history_agent
from rl_jax.core.ranges import check_ranges
from rl_jax.data.sequences import RewardedSequences
from rl_jax.envs.stitching_grid import CROSSING, GOALS, nearer_to, stitching_grid, successors
from rl_jax.losses.bisimulation import Outlook
from rl_jax.networks.histories import HistoryEncoder, OnHistory
from rl_jax.tabular.stochastic import StochasticMDP, policy_value
from tests.data.sets import make_episodes

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
LENGTHS = (4, 2, 3)  # of episodes in batches of 4 steps; the first ends by a time-out, the others in terminals


def batch_of(rewards=None, junk=0.0):
    """Three episodes with observations [3], actions of 3 kinds; padding is `junk`."""
    mask = (np.arange(4) < np.array(LENGTHS)[:, None]).astype(np.float32)
    rng = np.random.default_rng(1)
    observations = rng.normal(size=(3, 5, 3))
    actions = np.eye(3)[rng.integers(0, 3, (3, 4))]
    masks = mask.copy()
    masks[1, 1] = masks[2, 2] = 0.0
    rewards = rng.normal(size=(3, 4)) if rewards is None else rewards

    def padded(x):
        wide = mask.reshape(*mask.shape, *(1,) * (x.ndim - 2))
        return jnp.asarray(np.where(wide > 0, x, junk), jnp.float32)

    return RewardedSequences(
        padded(observations[:, :4]), padded(actions), padded(rewards), jnp.asarray(np.arange(4) * mask, jnp.int32),
        jnp.asarray(mask), padded(rewards), jnp.asarray(masks, jnp.float32), padded(observations[:, 1:]),
    )


@functools.cache
def agent(preset, **fields):
    """(the agent, its state, its update of (state, batch, eta) compiled once, its settings)."""
    config = obs_history.get_config(preset)
    config.agent.update(fields)
    made = make_history_agent(config, 3)

    @jax.jit
    def update(state, batch, eta):
        own = config.copy_and_resolve_references()
        with own.ignore_type():
            own.agent.eta = eta
        return make_history_agent(own, 3).update(state, batch, KEY)

    return made, jax.jit(made.init)(KEY, batch_of()), update, config.agent


def test_an_update_of_cql_is_that_of_loops():
    """TD error with the maximum over a copy of the network, logsumexp less the data's Q, both over real steps alone; a
    terminal bootstraps nothing and a time-out does."""
    made, state, update, config = agent("tiny-cql_bisim")
    module = OnHistory(HistoryEncoder("gru", 8, 8), (8,), {"q": 3})
    batch = batch_of()
    _, heads = jax.jit(module.apply)(state.params["critic"], *inputs(batch))
    q, td, gap = np.asarray(heads["q"], np.float64), [], []
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            bootstrap = 0.0 if row > 0 and t == length - 1 else config.discount * q[row, t + 1].max()
            own = q[row, t, int(batch.actions[row, t].argmax())]
            td.append((float(batch.rewards[row, t]) + bootstrap - own) ** 2)
            gap.append(np.log(np.exp(q[row, t]).sum()) - own)
    _, metrics = update(state, batch, 0.1)
    assert float(metrics["critic/loss"]) == pytest.approx(np.mean(td), rel=1e-4)
    assert float(metrics["critic/gap"]) == pytest.approx(np.mean(gap), rel=1e-4)


def moved(params, seed):
    """Parameters in general position: heads begin near 0, and copies equal to what they follow."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(scale=0.3, size=x.shape), x.dtype), params)


def read_and_pull(batch, widths):
    """(params, a loss's slopes by head [3, 5, width]) -> what the heads of a GRU say, and the gradient's norm."""
    module = OnHistory(HistoryEncoder("gru", 8, 8), (8,), widths)

    @jax.jit
    def both(params, slopes):
        heads, pull = jax.vjp(lambda params: module.apply(params, *inputs(batch))[1], params)
        return heads, sum(jnp.sum(x**2) for x in jax.tree.leaves(pull(slopes))) ** 0.5

    return lambda params, slopes: jax.device_get(both(params, slopes))


@pytest.mark.parametrize("preset", ["tiny-wordle-ilql", "tiny-iql"])
def test_an_update_of_ilql_and_of_iql_is_that_of_loops(preset):
    """V's expectile of the smaller Q of the copies, both Q after V of the next history, ILQL's conservative term, and
    cloning, which in IQL counts an action by exp(beta A); the slopes by hand, none through a target or a weight."""
    _, state, update, config = agent(preset, encoder="gru", num_layers=1, max_weight=1.5)
    params = {name: moved(own, seed) for seed, (name, own) in enumerate(state.params.items())}
    state = state.replace(params=params, target_params={"critic": moved(params["critic"], 7)})
    batch, count, weights = batch_of(), sum(LENGTHS), []
    critic, actor = (read_and_pull(batch, widths) for widths in ({"q1": 3, "q2": 3, "v": 1}, {"logits": 3}))
    flat = {"q1": np.zeros((3, 5, 3)), "q2": np.zeros((3, 5, 3)), "v": np.zeros((3, 5, 1))}
    slopes, slopes_of_actor = jax.tree.map(np.float32, (flat, {"logits": np.zeros((3, 5, 3))}))
    copies, heads = (critic(own, slopes)[0] for own in (state.target_params["critic"], params["critic"]))
    logits = actor(params["actor"], slopes_of_actor)[0]["logits"]
    taken, rewards = np.asarray(batch.actions).argmax(-1), np.asarray(batch.rewards)
    value = td = gap = clone = 0.0

    def softmax_less_taken(x, action):
        return np.exp(x) / np.exp(x).sum() - np.eye(3)[action]

    for row, length in enumerate(LENGTHS):
        for t in range(length):
            action, here = taken[row, t], (row, t)
            advantage = min(copies["q1"][here][action], copies["q2"][here][action]) - heads["v"][here][0]
            side = config.expectile if advantage > 0 else 1 - config.expectile
            value += side * advantage**2
            slopes["v"][here] -= 2 * side * advantage
            ends = row > 0 and t == length - 1
            target = rewards[here] + (0.0 if ends else config.discount * heads["v"][row, t + 1, 0])
            for name in ("q1", "q2"):
                q = heads[name][here]
                td += (q[action] - target) ** 2
                gap += np.log(np.exp(q).sum()) - q[action]
                slopes[name][here] += 2 * (q[action] - target) * np.eye(3)[action]
                slopes[name][here] += config.conservatism * softmax_less_taken(q, action)
            weights.append(1.0 if preset.endswith("ilql") else min(np.exp(config.beta * advantage), 1.5))
            clone += weights[-1] * (np.log(np.exp(logits[here]).sum()) - logits[here][action])
            slopes_of_actor["logits"][here] = weights[-1] * softmax_less_taken(logits[here], action)
    assert preset.endswith("ilql") or min(weights) < max(weights) == 1.5
    of_critic, of_actor = (jax.tree.map(lambda x: x / count, own) for own in (slopes, slopes_of_actor))
    expected = {
        "value/loss": value / count, "critic/loss": td / count, "critic/gap": gap / count, "actor/loss": clone / count,
        "critic/grad_norm": critic(params["critic"], of_critic)[1],
        "actor/grad_norm": actor(params["actor"], of_actor)[1],
    }
    new, metrics = update(state, batch, 0.0)
    for name, number in expected.items():
        assert float(metrics[name]) == pytest.approx(float(number), rel=1e-4), name
    jax.tree.map(
        lambda x, old, own: np.testing.assert_allclose(x, old + config.tau * (own - old), rtol=1e-4, atol=1e-6),
        new.target_params["critic"], state.target_params["critic"], new.params["critic"],
    )


@pytest.mark.parametrize("preset", ["tiny-cql_bisim", *(pytest.param(f"tiny-{m}", marks=pytest.mark.slow)
                                                        for m in ("bc", "iql_bisim", "cql_transformer"))])
def test_what_padding_holds_changes_nothing(preset):
    _, state, update, _ = agent(preset)
    clean, dirty = (update(state, batch_of(junk=junk), 0.1) for junk in (0.0, 7.0))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), clean, dirty)


def test_the_loss_of_distances_moves_the_encoder_and_not_its_model():
    """The weights of the model after an update are the same whatever `eta` is; the encoder's are not."""
    _, state, update, _ = agent("tiny-cql_bisim")
    moved, still = (update(state, batch_of(), eta)[0] for eta in (1.0, 0.0))
    jax.tree.map(np.testing.assert_array_equal, moved.params["model"], still.params["model"])
    encoder = [jax.tree.leaves(one.params["critic"]["params"]["encoder"]) for one in (moved, still)]
    assert any(np.any(x != y) for x, y in zip(*encoder))


@pytest.mark.parametrize("compared", ["logged", "behaviour", "uniform"])
def test_distances_under_the_datas_actions_or_its_policy(compared):
    """By hand on a model whose outlook is its action: the policy that is sure of an action has that action's."""

    class Model:
        def apply(self, params, latents, actions):
            number = jnp.argmax(actions, -1).astype(jnp.float32)
            outlook = Outlook(number, number[:, None] * jnp.ones(2), jnp.ones((len(actions), 2)))
            return outlook, jnp.broadcast_to(jnp.array([0.0, 0.0, 50.0]), actions.shape)

    own = Representation(Model(), 1e-3, 0.9, compared)
    found = own.outlook({}, jnp.zeros((2, 2)), jnp.eye(3)[:2])
    want = {"logged": [0.0, 1.0], "behaviour": [2.0, 2.0], "uniform": [1.0, 1.0]}[compared]
    np.testing.assert_allclose(found.reward, want, atol=1e-5)
    np.testing.assert_allclose(found.mean[:, 0], want, atol=1e-5)
    np.testing.assert_allclose(found.std, (1 + 2 / 3) ** 0.5 if compared == "uniform" else 1.0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ilql", "iql"])
def test_ilql_acts_by_the_datas_policy_and_the_advantage(method):
    """With beta near 0 it is the data's policy, with a large one the best advantage; IQL's policy reads no Q."""
    preset = "tiny-wordle-ilql" if method == "ilql" else "tiny-iql"
    fields = {"encoder": "gru", "num_layers": 1}
    (made, state, *_), (greedy, *_) = agent(preset, beta=1e-6, **fields), agent(preset, beta=1e6, **fields)
    history = jax.tree.map(lambda x: x[:1, :3], batch_of())
    clone, best = (int(one.act(state.params, history, KEY, 0.0)[0]) for one in (made, greedy))
    module = OnHistory(HistoryEncoder("gru", 8, 8), (8,), {"q1": 3, "q2": 3, "v": 1})
    read = history.observations, history.actions, history.timesteps, history.mask
    _, heads = module.apply(state.params["critic"], *read)
    least = jnp.minimum(heads["q1"], heads["q2"])[0, -1]
    assert best == (int(jnp.argmax(least)) if method == "ilql" else clone)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"data.kind": "gird"}, "unknown config.data.kind 'gird': did you mean grid"),
        ({"data.episodes": 7}, "config.data.episodes=7: give an even number"),
        ({"data.view": "full"}, "unknown view 'full'"),
        ({"agent.name": "history_cqll"}, "unknown agent 'history_cqll': did you mean history_cql"),
        ({"agent.compared": "policy"}, "config.agent.compared is 'policy': choose logged, behaviour, uniform"),
        ({"agent.encoder": "lstm"}, "encoder is 'lstm': choose one of none, gru, transformer"),
        ({"data.noise": 1.5}, r"config.data.noise=1.5: must be in \[0, 1\]"),
    ],
)
def test_settings_that_cannot_work_are_named(fields, message, monkeypatch):
    config = obs_history.get_config("tiny")
    config.update_from_flattened_dict(fields)
    if any(name.startswith("agent.") for name in fields):  # the data do not matter
        monkeypatch.setattr(paper, "gridworld", lambda data: (make_episodes(), Judged(stitching_grid(), 1.0)))
    with pytest.raises(ValueError, match=message):
        check_ranges({name: value for name, value in fields.items() if not isinstance(value, str)})
        program = paper.experiment(config).program(config)
        jax.eval_shape(program.init, KEY, program.resident)


def test_no_extraction_but_the_two():
    with pytest.raises(ValueError, match="config.agent.extraction is 'greedy': choose shifted or weighted"):
        agent("tiny-iql", extraction="greedy")


def test_the_datas_policy_tells_start_a_from_start_b_at_the_crossing():
    """Exactly: B's is worth 0.50 there and A's, which never gets to a goal, nothing. Distances under the data's own
    actions are at least the difference of values, so they do not ask for one latent of both."""
    after, values = successors(), []
    moves = np.eye(len(after))[after]
    moves[list(GOALS)] = np.eye(len(after))[list(GOALS), None]
    pays = np.where(np.isin(np.arange(len(after)), GOALS)[:, None], 0.0, after == GOALS[0])
    start = np.eye(len(after))[CROSSING]
    for goal in GOALS:
        nearer = nearer_to(goal)
        policy = 0.9 * nearer / nearer.sum(1, keepdims=True) + 0.1 / 4
        values.append(policy_value(StochasticMDP(moves, pays, start, 30), policy, 0.95))
    assert np.average(values, weights=(0.75, 0.25)) == pytest.approx(0.501, abs=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vizdoom") is None, reason="the extra vizdoom")
def test_an_agent_learns_in_vizdoom_and_is_judged_there():
    config = obs_history.get_config("tiny-vizdoom-cql_bisim")
    program = paper.experiment(config).program(config)
    state = jax.jit(jax.vmap(lambda key: program.init(key, program.resident)))(jax.random.split(KEY, 2))
    outcomes = program.evaluate(state.replace(step=jnp.int32(0)), program.resident, KEY).outcomes
    assert outcomes["success"].shape == (2, 2) and np.isfinite(outcomes["bisimulation_loss"]).all()


@pytest.mark.slow
def test_an_agent_that_sees_the_state_stitches():
    """No episode leads from start A to a goal, and CQL with the state learns to get there."""
    config = obs_history.get_config("oracle/n50")
    program = paper.experiment(config).program(config)
    state = jax.jit(program.init)(KEY, program.resident)

    @jax.jit
    def trained(state):
        def one(state, number):
            return program.step(state, program.resident, None, jax.random.fold_in(KEY, number))[0], None

        return jax.lax.scan(one, state, jnp.arange(800))[0]

    state = jax.tree.map(lambda x: x[None], trained(state).replace(step=None)).replace(step=jnp.int32(800))
    assert program.evaluate(state, program.resident, KEY).outcomes["success"].mean() > 0.8
