"""What RLCM's binary makes of a configuration: fine-tuning by rewards, or the pretraining of a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs.rlcm import REWARDS
from experiments.rlcm.claims import draw_rewards
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.program import PyTree
from rl_jax.data.cache import files_checksum
from rl_jax.generative.domain import KINDS, Domain
from rl_jax.generative.domain_evaluation import domain_evaluation
from rl_jax.generative.domain_fine_tuning import domain_fine_tuning
from rl_jax.generative.domains import load_domain, part_pretraining
from rl_jax.generative.image_grid import painter
from rl_jax.generative.model_file import load_model, save_model
from rl_jax.generative.pipeline_fine_tuning import pipeline_fine_tuning, pipeline_resident, read_prompts
from rl_jax.generative.pretrained import load_pipeline
from rl_jax.generative.pretraining import generator_pretraining, pretraining_program
from rl_jax.generative.rewards import Reward, reward
from rl_jax.reports.measures import Evaluations
from rl_jax.reports.records import load_runs

DATA, CHECKPOINTS, RESULTS = (Path(__file__).parent / name for name in ("data", "checkpoints", "results"))
ROWS, COLUMNS = 16, 8  # of before.png, after.png and samples.png


def experiment(config: ConfigDict) -> Experiment:
    """Chooses by `config.task` and `config.domain`."""
    tasks = {"fine_tune": fine_tuning, "pretrain": pretraining}
    if config.task not in tasks:
        raise ValueError(unknown("config.task", config.task, tasks))
    return (pipeline if config.domain == "pipeline" else tasks[config.task])(config)


def fine_tuning(config: ConfigDict) -> Experiment:
    """RLCM or DDPO of a domain's generator; writes before.png, after.png and rewards.png."""
    domain, score = load_domain(config.domain, DATA, CHECKPOINTS), host_reward(config)
    file, model = load_generator(config, domain, config.model.kind)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        paint = painter(domain, config.model, ROWS, COLUMNS)
        paint(jax.device_get(result.resident["model"]), workdir / "before.png")
        paint(first_run(result.state.params), workdir / "after.png")
        images = result.step * config.batch_size
        draw_beside_ddpo(config, images, result.step, workdir)
        before, after = (means(result.evaluations[at]) for at in (0, -1))
        return {"images": images, "before": before, "after": after}

    return Experiment(
        lambda config: domain_fine_tuning(config, domain, model, score),
        {"data": files_checksum(DATA / f"{config.domain}.npz"), "model": files_checksum(file)},
        Metric("eval/accepted_reward", "reward where the judge still sees the prompts"), finish,
    )


def pretraining(config: ConfigDict) -> Experiment:
    """A domain's generator or a network beside it; writes model.npz and, of a generator, samples.png."""
    generator = config.model.kind in KINDS
    if generator:
        domain, score = load_domain(config.domain, DATA, CHECKPOINTS), host_reward(config)
        teacher = load_generator(config, domain, "diffusion")[1] if config.pretraining.from_diffusion else None
    else:
        part = part_pretraining(config.domain, config.model.kind, DATA, config.batch_size)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        file, params = workdir / "model.npz", first_run(result.state.target_params)
        save_model(file, params, kind=config.model.kind, domain=config.domain)
        if generator:
            painter(domain, config.model, ROWS, COLUMNS)(params, workdir / "samples.png")
        return {"model": str(file), "after": means(result.evaluations[-1])}

    def trained(config: ConfigDict) -> Any:
        if not generator:
            return part
        return generator_pretraining(config, domain, teacher, domain_evaluation(config, domain, score))

    outcome = "judge_accuracy" if generator else "psnr" if config.model.kind == "autoencoder" else "accuracy"
    return Experiment(
        lambda config: pretraining_program(config, trained(config)),
        {"data": files_checksum(DATA / f"{config.domain}.npz")},
        Metric(f"eval/{outcome}", outcome.replace("_", " ")), finish,
    )


def pipeline(config: ConfigDict) -> Experiment:
    """RLCM or DDPO of a pipeline's folder."""
    folder, file = (Path(config.pipeline[name]).expanduser() for name in ("folder", "prompts"))
    prompts, loaded, score = read_prompts(file), load_pipeline(folder), host_reward(config)
    if score is None:
        raise ValueError(f"config.reward={config.reward!r} is the similarity of a domain: a pipeline has none")
    resident = pipeline_resident(loaded, prompts)
    return Experiment(
        lambda config: pipeline_fine_tuning(config, loaded, resident, prompts, score),
        {"pipeline": folder.name, "unet": files_checksum(folder / "unet"), "prompts": files_checksum(file)},
        Metric("eval/reward", "reward"),
    )


def load_generator(config: ConfigDict, domain: Domain, kind: str) -> tuple[Path, PyTree]:
    """The file of `config.model.path`, or the committed one of that kind, and its parameters."""
    path = Path(config.model.path) if config.model.path else CHECKPOINTS / f"{config.domain}_{kind}.npz"
    return path.expanduser(), load_model(path.expanduser(), kind, config.domain, domain.init)


def host_reward(config: ConfigDict) -> Reward | None:
    """The reward that the host computes, with the options that are set; None where the device computes it."""
    options = {name: value for name, value in config.reward_options.items() if value}
    return None if config.reward == REWARDS["align"] else reward(config.reward, **options)


def first_run(params: PyTree) -> PyTree:
    """The host's copy of the first run's "model"."""
    return jax.tree.map(lambda x: x[0], jax.device_get(params["model"]))


def means(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an evaluation, means over runs; without those that are not finite for every run."""
    values = {name: np.mean(np.asarray(x, np.float64)) for name, x in evaluation.items() if name.startswith("eval/")}
    return {name.removeprefix("eval/"): float(x) for name, x in values.items() if np.isfinite(x)}


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
