"""What RLCM's binary makes of a configuration: fine-tuning by rewards, or the pretraining of a network."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from configs.rlcm import REWARDS
from experiments.rlcm.claims import draw_rewards
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run
from rl_jax.core.outcomes import read_outcomes
from rl_jax.data.cache import files_checksum
from rl_jax.generative.domain_fine_tuning import domain_fine_tuning
from rl_jax.generative.domains import load_domain
from rl_jax.generative.experiments import (
    COLUMNS,
    ROWS,
    host_reward,
    load_generator,
    means,
    pipeline_experiment,
    pretraining_experiment,
)
from rl_jax.generative.image_grid import painter
from rl_jax.reports.measures import Evaluations
from rl_jax.reports.records import load_runs

DATA, CHECKPOINTS, RESULTS = (Path(__file__).parent / name for name in ("data", "checkpoints", "results"))


def experiment(config: ConfigDict) -> Experiment:
    """Chooses by `config.task` and `config.domain`."""
    if config.task not in ("fine_tune", "pretrain"):
        raise ValueError(unknown("config.task", config.task, ("fine_tune", "pretrain")))
    if config.domain == "pipeline":
        return pipeline_experiment(config)
    return fine_tuning(config) if config.task == "fine_tune" else pretraining_experiment(config, DATA, CHECKPOINTS)


def fine_tuning(config: ConfigDict) -> Experiment:
    """RLCM or DDPO of a domain's generator; writes before.png, after.png and rewards.png."""
    domain, score = load_domain(config.domain, DATA, CHECKPOINTS), host_reward(config)
    file, model = load_generator(config, domain, config.model.kind, CHECKPOINTS)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        paint = painter(domain, config.model, ROWS, COLUMNS)
        paint(jax.device_get(result.resident["model"]), workdir / "before.png")
        paint(first_run(result.state.params["model"]), workdir / "after.png")
        images = result.step * config.batch_size
        draw_beside_ddpo(config, images, result.step, workdir)
        before, after = (means(result.evaluations[at]) for at in (0, -1))
        return {"images": images, "before": before, "after": after}

    return Experiment(
        lambda config: domain_fine_tuning(config, domain, model, score),
        {"data": files_checksum(DATA / f"{config.domain}.npz"), "model": files_checksum(file)},
        Metric("eval/accepted_reward", "reward where the judge still sees the prompts"), finish,
    )


def draw_beside_ddpo(config: ConfigDict, images: int, step: int, workdir: Path) -> None:
    """Draws the run's JPEG bytes, or its reward, beside those of DDPO's saved runs for the same reward."""
    outcome = "bytes" if config.reward in (REWARDS["compress"], REWARDS["incompress"]) else "reward"
    own = Evaluations(*read_outcomes(workdir / "outcomes.npz"), {"images": images, "step": step})
    saved = load_runs(RESULTS / config.domain).values()
    ddpo = {
        "DDPO, saved results": run.evaluations for run in saved
        if run.about["method"] == "ddpo" and REWARDS[run.about["task"]] == config.reward
    }
    draw_rewards({config.preset: own} | ddpo, outcome, outcome.replace("bytes", "JPEG bytes"), workdir / "rewards.png")
