"""The stages of a paper of molecules at scale, on a test's files, each with the models of those before it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from rl_jax.core import loop
from rl_jax.core.experiment import Experiment
from tests.promises.runner import on_devices

# The networks are those of the presets; batches and what is judged are small.
FIELDS = {
    "num_steps": 2, "num_seeds": 1, "judging.molecules": 8, "loop.chunk": 1, "loop.log_every": 1, "batch_size": 16,
}


def take_two_steps(
    experiment: Callable[[ConfigDict], Experiment], config: Callable[..., ConfigDict], models: Mapping[str, str],
    folder: Path,
) -> None:
    """Two steps of `paper/<stage>` in `folder/<stage>`, then of both policies, on the activities in `folder`.

    Args:
      models: by stage, the field of config.models that those after it read it by.
    """
    fields = FIELDS | {"activities.path": str(folder)}
    for name in (*models, "ours", "official"):
        own = config(f"paper/{name}", **fields)
        made = experiment(own)
        with on_devices(1):
            result = loop.run(made, own, folder / name)
        assert result.trained_steps == 2 and result.evaluations[-1]["step"] == 2, name
        if name in models:
            assert own.task != "policy"
            made.finish(result, folder / name)
            fields[f"models.{models[name]}"] = str(folder / name)
