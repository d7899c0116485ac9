"""Candidate policies: densities of the task's own actions, kernels, draws, modes."""

import numpy as np
import pytest

from rl_jax.control.candidates import Candidate, Kernel, at_mode, learnt_policy
from rl_jax.control.off_policy_problems import embedded_policy, softmax_policy
from rl_jax.control.tasks import ActionBox
from rl_jax.networks.distributions import Deterministic, SquashedGaussian

BOX = ActionBox(np.array([1.0], np.float32), np.array([2.0], np.float32))  # actions in [-1, 3]


def squashed(observations):
    return SquashedGaussian(0.3 * observations, np.full_like(observations, -0.5))


@pytest.mark.parametrize("policy, tolerance", [(squashed, 1e-3), (lambda x: Deterministic(0.0 * x), 1e-3)])
def test_a_density_of_the_task_s_actions_integrates_to_one(policy, tolerance):
    actions = np.linspace(-0.9999, 2.9999, 20_001, dtype=np.float32)[:, None]
    density = np.exp(Candidate(policy, BOX).log_prob(np.ones_like(actions), actions, Kernel("epanechnikov", 0.4)))
    assert np.trapezoid(density, actions[:, 0]) == pytest.approx(1.0, abs=tolerance)


def test_numbered_actions_have_their_chances_and_a_mode_is_certain():
    observations, actions = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), np.eye(3, dtype=np.float32)[[2, 0]]
    policy = softmax_policy([1.0, -2.0], 3)  # scores -1 0 1 and 2 0 -2
    expected = [1 - np.log(np.exp([-1, 0, 1]).sum()), 2 - np.log(np.exp([2, 0, -2]).sum())]
    np.testing.assert_allclose(Candidate(policy).log_prob(observations, actions, Kernel()), expected, rtol=1e-5)
    sure = Candidate(at_mode(policy))
    np.testing.assert_array_equal(sure.log_prob(observations, actions, Kernel()), [0.0, 0.0])
    np.testing.assert_array_equal(np.exp(sure.log_prob(observations, actions[::-1], Kernel())), [0.0, 0.0])


def test_what_is_drawn_ahead_is_of_the_policy_in_the_task_s_actions():
    observations = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6, 1)
    found = Candidate(lambda x: Deterministic(0.5 * x), BOX).ahead(observations, 3, 0).actions
    np.testing.assert_allclose(found, np.repeat((1.0 + observations)[:, :, None], 3, 2), rtol=1e-6)
    noisy = Candidate(squashed, BOX).ahead(observations, 500, 0).actions
    assert noisy.shape == (2, 6, 500, 1) and (np.abs(noisy - 1.0) < 2.0).all()
    np.testing.assert_allclose(np.median(noisy, 2), 1.0 + 2.0 * np.tanh(0.3 * observations), atol=0.25)


def test_an_embedded_policy_acts_as_its_distribution_says():
    candidate = embedded_policy("sac_hopper_100k", 0.3)
    observations, noise = np.ones((4, 11), np.float32), np.full((4, 3), 0.7, np.float32)
    distribution = candidate.policy(observations)
    expected = np.tanh(distribution.mean + np.exp(distribution.log_std) * noise)
    np.testing.assert_allclose(candidate.actor.act(observations, noise), expected, rtol=1e-5)
    mode = embedded_policy("sac_hopper_100k", 0.0)
    np.testing.assert_allclose(mode.policy(observations).mode(), mode.actor.act(observations, noise), rtol=1e-5)


@pytest.mark.parametrize("written, message", [
    ("", "not the --workdir of a run"), ('{"task": "tabular"}', "its agent '' is no policy of one observation"),
    ('{"agent": {"name": "ppo"}}', "its agent 'ppo' is no policy"),
])
def test_a_folder_that_is_no_policy(written, message, tmp_path):
    if written:
        (tmp_path / "config.json").write_text(written)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        learnt_policy(tmp_path, 4, 2)
