"""RLIF's experiments: what the learner is shown, experts and references by name or path, counts, rates, errors."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import rlif
from experiments.rlif import asked
from experiments.rlif.experiment import experiment
from experiments.rlif.figure import rate_between
from rl_jax.control.interactive import REFERENCE, load_reference, shown
from rl_jax.control.tasks import ActionBox
from rl_jax.core.main import run
from rl_jax.core.metrics import read_metrics
from rl_jax.core.outcomes import read_outcomes
from rl_jax.data.episodes import check_episodes
from rl_jax.data.experts.experts import EXPERT_DIR, Blended, expert_episodes, load_expert, mode_returns
from rl_jax.envs.interventions import CHOICES, KINDS
from rl_jax.reports.measures import Evaluations


def config(preset: str, **fields):
    made = rlif.get_config(preset)
    made.update_from_flattened_dict(fields)
    return made


# Experts


def test_every_file_of_an_expert_has_its_source():
    table = (EXPERT_DIR / "SOURCE.md").read_text()
    for path in EXPERT_DIR.glob("*.npz"):
        assert f"| {path.name} | {hashlib.sha256(path.read_bytes()).hexdigest()} |" in table, path.name


@pytest.mark.parametrize("name, low, high", [
    ("tqc_pendulum", 90, 110), ("sac_pendulum", 45, 85), ("trpo_reacher_it0020", 30, 70),
    ("trpo_reacher_it0500", 90, 110), ("trpo_reacher_it0000", -15, 30), ("trpo_reacher_it0040", 70, 90),
])
def test_experts_are_as_good_as_the_presets_say(name, low, high):
    task = next(task for task in rlif.TASKS.values() if name in task.experts.values())
    returns = mode_returns(task.env_id, load_expert(name), 3, 0)
    random, best = task.returns
    assert low < 100 * (returns.mean() - random) / (best - random) < high


def test_the_episodes_of_an_expert_are_whole_and_show_no_reward():
    expert = load_expert("tqc_pendulum")
    episodes = expert_episodes("Pendulum-v1", expert, 3, 5)
    check_episodes(episodes, "made", 1.0)
    assert episodes.num_episodes == 3 and (episodes.lengths == 200).all()
    assert not episodes.terminated.any() and episodes.truncated.sum() == 3
    assert (episodes.rewards < 0).any()
    seen = shown(episodes)
    assert not seen.rewards.any() and seen.expert.all() and seen.masks.all()
    np.testing.assert_array_equal(seen.actions, episodes.actions)
    # Torque is twice the action: the velocity after a step tells (Pendulum's equation of motion).
    angle = np.arctan2(episodes.observations[:, 1], episodes.observations[:, 0])
    spin = episodes.observations[:, 2] + (15.0 * np.sin(angle) + 3.0 * 2.0 * episodes.actions[:, 0]) * 0.05
    np.testing.assert_allclose(episodes.next_observations[:, 2], np.clip(spin, -8, 8), atol=1e-4)


def test_uniform_actions_are_blended_in():
    expert, noise = load_expert("trpo_reacher_it0500"), np.random.default_rng(0).standard_normal((4000, 2))
    observations = np.zeros((4000, 11), np.float32)
    uniform = Blended(expert, 1.0).act(observations, noise)
    np.testing.assert_allclose(np.quantile(uniform, [0.1, 0.5, 0.9]), [-0.8, 0.0, 0.8], atol=0.04)
    mode = expert.act(observations, None)
    np.testing.assert_array_equal(Blended(expert, 0.5).act(observations, None), mode)
    np.testing.assert_allclose(Blended(expert, 0.5).act(observations, noise), (mode + uniform) / 2, atol=1e-6)


def test_an_expert_may_be_a_file(tmp_path):
    shutil.copy(EXPERT_DIR / "tqc_pendulum.npz", tmp_path / "mine.npz")
    one, other = load_expert(str(tmp_path / "mine.npz")), load_expert("tqc_pendulum")
    np.testing.assert_array_equal(one.layers[0][0], other.layers[0][0])


# Configurations


def test_methods_differ_by_their_settings():
    assert set(rlif.CLONES) < set(rlif.METHODS)
    for method in rlif.METHODS:
        made = config(f"{method}/pendulum-weak")
        assert (made.agent.name == "bc") == (method in rlif.CLONES)
        assert made.intervention.kind in KINDS and all(made.store[name] in known for name, known in CHOICES.items())
    # The same number of steps of the environment, to the end of the run.
    for method in ("rlif", "dagger", "hg_dagger"):
        made = config(f"{method}/pendulum-weak")
        calls = range(made.collect.first, made.num_steps, made.collect.every)
        assert len(calls) * made.collect.env_steps == 8000
    bc = config("bc/pendulum-weak")
    assert bc.collect.first == bc.num_steps
    assert config("rlif_coded/pendulum-weak").intervention.compared == "tqc_pendulum"
    shares = {share: config(f"rlif_random_{share}/reacher-middle") for share in (30, 85)}
    for share, made in shares.items():
        assert (made.intervention.kind, made.intervention.probability) == ("random", share / 100)
        assert made.expert.name == "trpo_reacher_it0040"
    assert config("dagger/reacher-untrained").expert.name == "trpo_reacher_it0000"
    assert config("reference/reacher-middle").expert.name == "trpo_reacher_it0500"
    hopper = config("rlif/hopper-weak")
    assert (hopper.agent.hidden_dims, hopper.agent.num_critics, hopper.agent.utd) == ((256, 256, 256), 10, 15)
    assert (hopper.intervention.threshold, hopper.intervention.alpha, hopper.num_steps) == ("relative", 0.975, 10**6)


# Runs


@pytest.mark.slow
def test_an_evaluation_says_what_was_asked_and_an_update_what_is_the_experts(tmp_path):
    made = config("tiny", num_steps=20, **{"loop.eval_every": 10, "checkpoint.every": 20, "eval_episodes": 1})
    result = run(experiment, made, tmp_path)
    steps, _, values = read_outcomes(tmp_path / "outcomes.npz")
    assert steps.tolist() == [0, 10, 20]
    np.testing.assert_array_equal(values["env_steps"][..., 0], [[0, 0], [10, 10], [20, 20]])
    assert (np.diff(values["expert_steps"], axis=0) >= 0).all() and values["expert_steps"].max() <= 20
    assert set(values) == {
        "return", "length", "normalized_score", "env_steps", "expert_steps", "interventions", "labels"
    }
    assert 45 < result["expert_level"] < 85 and result["score"] < 60
    shares = [x for line in read_metrics(tmp_path / "metrics.jsonl") for x in line.get("batch/expert_share", ())]
    assert 0.9 < min(shares) < 1.0  # 400 of its steps, and a few of the policy's


@pytest.mark.slow
def test_the_stage_leaves_a_reference_that_the_next_one_reads(tmp_path):
    made = config("tiny-reference", num_seeds=1, num_steps=20, **{"agent.hidden_dims": (64, 64)})
    result = run(experiment, made, tmp_path)
    assert (tmp_path / REFERENCE).is_file() and result["q_range"][0] < result["q_range"][1]
    params, q = load_reference(
        config("tiny", **{"intervention.reference": str(tmp_path)}), ActionBox(0.0, np.full(1, 2.0)), 3, 1
    )
    np.testing.assert_allclose(params["range"], result["q_range"], rtol=2e-3)
    found = q(params, np.zeros((4, 3), np.float32), np.linspace(-2, 2, 4, dtype=np.float32)[:, None])
    assert found.shape == (4,) and len(np.unique(found)) == 4


@pytest.mark.parametrize("task, spread", [("pendulum", 30.0), ("reacher", 1.0)])
def test_an_embedded_reference_knows_the_strong_expert(task, spread):
    """Against the discounted rewards that follow it; and a uniform action is mostly worse than its own."""
    own = rlif.TASKS[task]
    strong = load_expert(own.experts["strong"])
    episodes = expert_episodes(own.env_id, strong, 16, 3, False)
    params, q = load_reference(config(f"rlif/{task}-weak"), ActionBox(), *(
        x.shape[1] for x in (episodes.observations, episodes.actions)
    ))
    early = np.concatenate([start + np.arange(20) for start in episodes.starts])
    followed = episodes.returns_to_go(own.discount)[early]
    found = np.asarray(q(params, episodes.observations[early], episodes.actions[early]))
    assert np.corrcoef(found, followed)[0, 1] > 0.9 and followed.std() > 0.1 * spread
    wild = expert_episodes(own.env_id, Blended(strong, 1.0), 16, 4)
    best = np.asarray(q(params, wild.observations, strong.act(wild.observations, None)))
    assert np.mean(best > np.asarray(q(params, wild.observations, wild.actions))) > 0.75


@pytest.mark.parametrize("fields, error, message", [
    ({"expert.name": "tqc_pendulam"}, ValueError, "unknown expert 'tqc_pendulam': did you mean tqc_pendulum"),
    ({"expert.name": "nowhere.npz"}, FileNotFoundError, "nowhere.npz: no such behaviour policy"),
    ({"expert.name": "trpo_reacher_it0500"}, ValueError, "does not read the 3 observations of Pendulum-v1"),
    ({"intervention.reference": "walker"}, FileNotFoundError, "reference='walker' is neither .* pendulum, reacher"),
    ({"intervention.reference": "reacher"}, ValueError, "of Reacher-v4, and the reference model of Pendulum-v1 is"),
    ({"intervention.kind": "valu"}, ValueError, "unknown config.intervention.kind 'valu': did you mean value"),
])
def test_what_does_not_fit_is_one_error(fields, error, message):
    with pytest.raises(error, match=message):
        experiment(config("tiny", **fields))


def test_the_rate_is_that_between_two_evaluations():
    expert, steps = np.array([[0.0], [30.0], [50.0], [50.0]]), np.array([[0.0], [40.0], [80.0], [80.0]])
    np.testing.assert_allclose(rate_between(expert, steps)[:, 0], [0.75, 0.75, 0.5, 0.0])


# At equal numbers of what was asked


def test_scores_at_equal_numbers_by_hand():
    """Two seeds; the clone is trained before it asks, and one seed asks for less."""
    outcomes = {
        "normalized_score": [[-9, -9], [40, 50], [60, 70], [80, 30]], "expert_steps": [[0, 0], [0, 0], [0, 0], [4, 0]],
        "labels": [[0, 0], [0, 0], [100, 50], [196, 100]], "interventions": [[0, 0], [0, 0], [0, 0], [1, 0]],
    }
    outcomes = {name: np.array(x, float)[..., None] for name, x in outcomes.items()}
    run = Evaluations(np.arange(4), np.arange(4.0), outcomes)
    np.testing.assert_allclose(asked.at_equal(run, "actions", (0, 50, 75)), [[40, 50], [50, 70], [55, 50]])
    np.testing.assert_allclose(asked.at_equal(run, "actions", (150,)), [[70, np.nan]])


def test_the_readme_shows_scores_at_equal_numbers():
    readme = (Path(asked.__file__).parent / "README.md").read_text()
    for table in asked.tables():
        assert table in readme, "python -m experiments.rlif.asked"
