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
from rl_jax.evaluation.scores import score_between
from rl_jax.reports.curves import plot_learning_curve
from rl_jax.reports.measures import outcome_name
from rl_jax.reports.statistics import mean_difference_interval


def with_learning_curve(
    config: ConfigDict, experiment: Experiment, behaviour_returns: np.ndarray | None = None
) -> Experiment:
    """The experiment of a policy in `experiment.inputs["env_id"]`, whose end draws learning_curve.png.

    Its last line gets `return`; `score_before` of a run that is evaluated at step 0; and, with a behaviour policy,
    `behaviour_score` and `gain_interval`, the 95% bootstrap interval of the gain over seeds and episodes. A sweep has a
    list of them, one a setting.

    Args:
      behaviour_returns: [N], of the episodes of the data set.
    """
    env_id, outcome = experiment.inputs["env_id"], outcome_name(experiment.headline)
    subject = experiment.inputs.get("dataset", env_id)
    behaviour = behaviour_returns
    references = references_of(env_id, config)
    if behaviour is not None and references is not None:
        behaviour = score_between(references, behaviour)
    if behaviour is not None:
        logging.info("%s: %s of the behaviour policy %.1f", subject, experiment.headline.label, behaviour.mean())

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        del result
        steps, _, values = read_outcomes(workdir / "outcomes.npz")
        scores = values[outcome]
        fields = {"return": float(values["return"][-1].mean())}
        if steps[0] == 0:
            fields["score_before"] = float(scores[0].mean())
        groups = sweep.groups(config)
        if behaviour is not None:
            gains = [mean_difference_interval(scores[-1, rows], behaviour) for rows in groups.values()]
            fields |= {"behaviour_score": float(behaviour.mean()), "gain_interval": gains if config.sweep else gains[0]}
        plot_learning_curve(
            {name: (steps, scores[:, rows].mean(-1)) for name, rows in groups.items()}, workdir / "learning_curve.png",
            behaviour_score=fields.get("behaviour_score"), title=f"{config.agent.name}: {subject}",
            score=experiment.headline.label,
        )
        return fields

    return experiment._replace(finish=finish)
