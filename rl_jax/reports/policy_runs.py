"""What a run that trains a policy says at its end: its learning curve, and its gain on the policy behind the data."""

from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rl_jax.control.tasks import references_of
from rl_jax.core import sweep
from rl_jax.core.experiment import Experiment
from rl_jax.core.loop import Result
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.provenance import read_starts
from rl_jax.data.scores import score_between
from rl_jax.reports.curves import plot_learning_curve
from rl_jax.reports.measures import outcome_name
from rl_jax.reports.statistics import mean_difference_interval


def with_learning_curve(
    config: ConfigDict, experiment: Experiment, behaviour_returns: np.ndarray | None = None
) -> Experiment:
    """The experiment of a policy in `experiment.inputs["env_id"]`, whose end draws learning_curve.png.

    Its last line gets `return`; `score_before` of a run that is evaluated at step 0; with a behaviour policy,
    `behaviour_score`, `best_episode_score` and `gain_interval`, the 95% bootstrap interval of the gain over seeds and
    episodes (a sweep has a list of them, one a setting); and with `config.rival`, the folder of a finished run on the
    same data, `rival_score` and `gain_over_rival_interval` likewise.

    Args:
      behaviour_returns: [N], of the episodes of the data set.

    Raises:
      FileNotFoundError or ValueError: the rival is no finished run, or one on other data.
    """
    env_id, outcome = experiment.inputs["env_id"], outcome_name(experiment.headline)
    subject = experiment.inputs.get("dataset", env_id)
    others = {}  # by name: scores of episodes that the run is held against, [N]
    if behaviour_returns is not None:
        references = references_of(env_id, config)
        scored = behaviour_returns if references is None else score_between(references, behaviour_returns)
        others["behaviour"] = scored
        logging.info("%s: %s of the behaviour policy %.1f", subject, experiment.headline.label, scored.mean())
    if rival := config.get("rival", ""):
        others["rival"] = last_scores(Path(rival), experiment)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        del result
        steps, _, values = read_outcomes(workdir / "outcomes.npz")
        scores = values[outcome]
        groups = sweep.groups(config)
        fields = {"return": float(values["return"][-1].mean())}
        if steps[0] == 0:
            fields["score_before"] = float(scores[0].mean())
        levels = {}
        for name, theirs in others.items():
            gains = [mean_difference_interval(scores[-1, rows], theirs) for rows in groups.values()]
            over = "" if name == "behaviour" else f"_over_{name}"
            fields[f"{name}_score"] = float(theirs.mean())
            fields[f"gain{over}_interval"] = gains if config.sweep else gains[0]
            levels["behaviour policy" if name == "behaviour" else Path(rival).name] = fields[f"{name}_score"]
        if "behaviour" in others:
            fields["best_episode_score"] = levels["best episode of the data"] = float(others["behaviour"].max())
        plot_learning_curve(
            {name: (steps, scores[:, rows].mean(-1)) for name, rows in groups.items()}, workdir / "learning_curve.png",
            levels=levels, title=f"{config.agent.name}: {subject}", score=experiment.headline.label,
        )
        return fields

    return experiment._replace(finish=finish)


def last_scores(rival: Path, experiment: Experiment) -> np.ndarray:
    """The scores of the last evaluation of a finished run on the experiment's data, all seeds and episodes: [N].

    Raises:
      FileNotFoundError: it is no finished run.
      ValueError: it is one on other data.
    """
    field = "config.rival"
    if not (rival / "result.json").exists():
        raise FileNotFoundError(f"{field}: {rival} is not the folder of a finished run: give the --workdir of one")
    inputs = read_starts(rival / "provenance.json")[-1]["inputs"]
    for name in ("checksum", "env_id"):
        if inputs.get(name) != experiment.inputs.get(name):
            raise ValueError(
                f"{field}: {rival} has the {name} {inputs.get(name)}, and this run {experiment.inputs.get(name)}: "
                "name a run on the same data"
            )
    return read_outcomes(rival / "outcomes.npz").values[outcome_name(experiment.headline)][-1].ravel()
