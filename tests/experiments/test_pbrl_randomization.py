"""PR-LSVI and PbTS: a round by its parts, exact values, what is counted when, settings, claims by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pbrl_randomization as configs
from experiments.pbrl_randomization import claims as declared
from experiments.pbrl_randomization.experiment import experiment
from rl_jax.control import dueling
from rl_jax.losses.preference_posterior import newton
from rl_jax.reports.judging import judge
from rl_jax.reports.measures import Evaluations
from rl_jax.reports.scores import Scores
from rl_jax.tabular import stochastic


def configured(preset, fields={}):
    config = configs.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


def one(problems, place=0):
    return jax.tree.map(lambda x: jnp.asarray(x[place]), problems)


def run(preset, rounds, fields={}):
    """[(state, metrics)] of every round; the first state has no metrics."""
    config = configured(preset, fields)
    program = experiment(config).program(config)
    states, step = [(program.init(jax.random.key(0), program.resident), {})], jax.jit(program.step)
    for number in range(rounds):
        states.append(step(states[-1][0], program.resident, None, jax.random.key(number)))
    return states


def test_values_and_roll_outs_are_those_of_the_mdp():
    config = configured("always/random", {"mdp.count": 2})
    problems, horizon = dueling.problems_of(config)
    problem, mdp = one(problems, 1), stochastic.random_mdp(4, 2, 3, seed=1)
    policy = np.array([1, 0, 1, 1])
    value = jax.jit(dueling.policy_value)(problem, jnp.tile(policy, (horizon, 1)))
    expected = stochastic.policy_value(mdp, np.eye(2)[policy], 1.0) * 5.0 / 3.0
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert problem.best == pytest.approx(stochastic.best_value(mdp) * 5.0 / 3.0) and problem.best > expected
    roll = jax.jit(jax.vmap(lambda key: dueling.roll_out(problem, jnp.tile(policy, (horizon, 1)), key)))
    states, actions, after = map(np.asarray, roll(jax.random.split(jax.random.key(0), 8000)))
    np.testing.assert_array_equal(actions, policy[states])
    np.testing.assert_array_equal(after[:, :-1], states[:, 1:])
    visits = np.stack([np.bincount(column, minlength=4) for column in states.T]) / 8000
    np.testing.assert_allclose(visits, stochastic.state_visitations(mdp, np.eye(2)[policy]), atol=0.025)
    x = dueling.trajectory_features(problem.features, states[0], actions[0], stacked=False)
    stacked = dueling.trajectory_features(problem.features, states[0], actions[0], stacked=True)
    assert x.sum() == 3 and stacked.shape == (24,)
    np.testing.assert_array_equal(stacked.reshape(3, 8).sum(0), x)
    assert float(x @ problem.rewards.ravel()) == pytest.approx(float(problem.rewards[states[0], actions[0]].sum()))


def test_what_a_round_changes():
    """Sigma_r and the estimate by answers alone, the counts by both trajectories of every round; both policies pay.

    Two Newton steps after each answer are as good as many from 0."""
    states = run("tiny-active", 60, {"rounds.epsilon": 0.9, "rounds.capacity": 100})
    asked = [float(metrics["round/queries"]) for _, metrics in states[1:]]
    assert 10 < sum(asked) < 50
    last = states[-1][0]
    best, _ = jax.jit(newton)(jnp.zeros(8), jnp.eye(8), last.extra["comparisons"], 1.0, 30)
    np.testing.assert_allclose(last.params["reward"], best, atol=5e-3)
    for number, ((before, _), (after, metrics)) in enumerate(zip(states, states[1:])):
        assert (float(metrics["round/unsure"]) > 0.9) == asked[number]
        grown = np.asarray(after.extra["precision"] - before.extra["precision"])
        assert np.any(grown) == np.any(after.params["reward"] != before.params["reward"]) == asked[number]
        assert int(after.extra["comparisons"].count - before.extra["comparisons"].count) == asked[number]
        if asked[number]:
            x = np.asarray(after.extra["comparisons"].features[int(before.extra["comparisons"].count)])
            np.testing.assert_array_equal(grown, np.outer(x, x))
        np.testing.assert_array_equal((after.extra["counts"] - before.extra["counts"]).sum((1, 2, 3)), [2, 2, 2])
        both = float(metrics["round/regret"] - metrics["round/regret_new"])
        if number:
            assert both == pytest.approx(float(states[number][1]["round/regret_new"]), abs=1e-5)
    totals = states[-1][0].extra["totals"]
    assert float(totals["regret"]) == pytest.approx(sum(float(m["round/regret"]) for _, m in states[1:]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", configs.METHODS)
def test_every_method_plays(method):
    state, metrics = run(f"tiny-{method}", 5)[-1]
    assert all(np.isfinite(value) for value in metrics.values()) and float(state.extra["totals"]["regret"]) >= 0
    assert len(state.params["reward"]) == (24 if method == "stacked" else 8)
    if method in ("always", "greedy", "pbts", "thresholds", "stacked"):
        assert float(state.extra["totals"]["queries"]) == 5


def test_a_table_of_bridge_has_an_end():
    problems, horizon = dueling.problems_of(configured("always/freeway_10_fs30"))
    assert horizon == 10 and problems.features.shape == (1, 198, 3, 591) and problems.best[0] == pytest.approx(0.5)
    assert not problems.features[0, -1].any() and problems.features[0, :-1].any(-1).all()
    assert (problems.transitions[0, -1, :, -1] == 1).all() and not problems.rewards[0, -1].any()


@pytest.mark.parametrize("fields, message", [
    ({"mdp.kind": "rivers"}, "unknown config.mdp.kind 'rivers': did you mean riverswim"),
    ({"mdp.kind": "riverswim", "mdp.states": 2}, "config.mdp.states=2"),
    ({"agent.name": "pbs"}, "unknown agent 'pbs': did you mean pbts"),
    ({"rounds.query": "allways"}, "unknown config.rounds.query 'allways': did you mean always"),
    ({"num_steps": 300}, "config.rounds.capacity=256 answers are fewer than config.num_steps=300"),
    ({"num_steps": 100_001, "rounds.capacity": 200_000}, "sums in float32 hold 100000 rounds at most"),
    ({"agent.alpha_low": 0.2, "agent.alpha_high": 0.1}, "alpha_high=0.1 is below config.agent.alpha_low=0.2"),
    ({"rounds.epsilon": 7.0}, r"epsilon=7.0: the rule is at most 6.77 .* nothing would ever be asked"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        experiment(configured("tiny", fields))


def test_claims_by_hand():
    """Regret that grows as the square root of the rounds, questions as 1 / epsilon^2 of which none is late."""
    steps = np.arange(1, 17) * 250

    def line(scale, power, asked, seeds=5):
        curve = scale * (steps / 4000.0) ** power
        seeds = 1.0 + 0.01 * np.arange(seeds)
        values = {"regret": np.outer(curve, seeds), "regret_new": np.outer(curve, seeds) / 2}
        values["queries"] = np.outer(np.minimum(steps, asked), seeds)
        return Evaluations(steps, 1.0 * steps, {name: x[..., None] for name, x in values.items()})

    def verdicts(active):
        saved = {"always": line(100, 0.5, 4000), "greedy": line(1000, 1.0, 4000), "random": line(400, 0.7, 99),
                 "pbts": line(90, 0.5, 4000), "active": active}
        others = {name: epsilon for name, epsilon in declared.EPSILONS.items() if name != "active"}
        saved |= {name: line(300, 0.6, 9 / epsilon**2) for name, epsilon in others.items()}
        preset = declared.PAPER.presets["quick"]()
        found = Scores(declared.PAPER, preset, {f"{name}-random": value for name, value in saved.items()})
        return {claim.name: judge(claim, found) for claim in preset.claims if claim.tasks == ("random",)}

    good = verdicts(line(150, 0.5, 100))
    by_slope = next(value for name, value in good.items() if name.startswith("always_reaches_slope"))
    assert by_slope["value"] == pytest.approx(0.5) and by_slope["verdict"] == "pass"
    assert good["questions_over_epsilon_on_random"]["value"] == pytest.approx(2.0, abs=0.1)
    assert {name for name, value in good.items() if value["verdict"] == "fail"} == {"active_02_few_questions"}
    bad = verdicts(line(500, 0.5, 100))
    assert bad["active_few_questions"]["verdict"] == "fail"
    gap = declared.GAP.of(line(100, 1.0, 10)).values
    np.testing.assert_allclose(gap, 50 / 4000 * (1.0 + 0.01 * np.arange(5)))
    np.testing.assert_allclose(declared.LATE.of(line(1, 1.0, 3000)).values, 1 / 3)
