"""Policies of runs on a user's logged data: their log-probs, and models of them that learn from the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from rl_jax.control.candidates import Candidate, Kernel, at_mode, learnt_box, learnt_policy
from rl_jax.control.off_policy import learning_program, prepared
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.program import Evaluation
from rl_jax.data.episodes import Episodes
from rl_jax.data.logged import pad_episodes
from rl_jax.evaluation.off_policy.estimators import Logged, estimate
from rl_jax.evaluation.off_policy.files import MODELS, episodes_of, field_of, read_fields

ESTIMATE = Metric("eval/dm", "DM, mean over policies")


def policies_of_runs(runs: Sequence[str], episodes: Episodes, modes: bool) -> dict[str, Candidate]:
    """The policies of runs' folders by the folders' names; what the data are asked about.

    Args:
      modes: whether each does the mode of its distribution, as it is deployed without noise.

    Raises:
      ValueError: two folders have one name, or a policy does not fit the data.
    """
    names = [Path(run).expanduser().absolute().name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two runs are called {name!r}: rename the folder of one")
    found = {}
    for name, run in zip(names, runs, strict=True):
        policy = learnt_policy(run, episodes.observations.shape[1], episodes.actions.shape[1])
        found[name] = Candidate(at_mode(policy) if modes else policy, learnt_box(run))
    return found


def log_prob_fields(policies: Mapping[str, Candidate], episodes: Episodes, kernel: Kernel) -> dict[str, np.ndarray]:
    """"policy/NAME/log_prob", [N], of each."""
    return {
        field_of(name, "log_prob"): candidate.log_prob(episodes.observations, episodes.actions, kernel)
        for name, candidate in policies.items()
    }


def logged_experiment(config: ConfigDict) -> Experiment:
    """Models of the policies of `config.runs` on the file `config.data`; outcomes are the fields of MODELS, [1, P N].

    Raises:
      ValueError: the discount is 1, with which endless episodes have no value.
    """
    if not config.discount < 1.0:
        raise ValueError("config.discount is 1: models of values and visitations need one below it, such as 0.99")
    episodes = episodes_of(config.data, read_fields(config.data))
    padded, kernel = pad_episodes(episodes), Kernel(**config.kernel)
    policies = policies_of_runs(config.runs, episodes, config.modes)
    log_probs = [
        one.log_prob(padded.observations[:, :-1], padded.actions, kernel) for one in policies.values()
    ]
    resident = prepared(config, padded, list(policies.values()), log_probs)
    steps = padded.mask > 0

    def judge(data: Logged) -> Evaluation:
        fields = {name: getattr(data, name)[:, steps].reshape(1, -1) for name in MODELS}
        return Evaluation({ESTIMATE.name: estimate("dm", data, config.discount).mean()}, fields)

    inputs = {"data": config.data, "runs": list(config.runs)}
    return Experiment(lambda config: learning_program(config, resident, judge), inputs, ESTIMATE,
                      lambda result, workdir: {"policies": list(policies)})


def model_fields(workdir: Path, policies: Sequence[str]) -> dict[str, np.ndarray]:
    """"policy/NAME/MODEL", [N], of a finished run of `logged_experiment`."""
    found = read_outcomes(workdir / "outcomes.npz").values
    return {
        field_of(name, model): own for model in MODELS
        for name, own in zip(policies, np.split(found[model][-1, 0], len(policies)), strict=True)
    }
