"""The experiments of image models that are no reinforcement learning of a domain, and what all of them share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run
from rl_jax.core.program import PyTree
from rl_jax.data.cache import files_checksum
from rl_jax.generative.domain import ALIGNMENT, KINDS, Domain
from rl_jax.generative.domain_evaluation import domain_evaluation
from rl_jax.generative.domains import load_domain, part_pretraining
from rl_jax.generative.image_grid import painter
from rl_jax.generative.pipeline_fine_tuning import pipeline_fine_tuning, pipeline_resident, read_prompts
from rl_jax.generative.pretrained import load_pipeline
from rl_jax.generative.pretraining import generator_pretraining, pretraining_program
from rl_jax.generative.rewards import Reward, reward
from rl_jax.networks.model_file import load_model, save_model

ROWS, COLUMNS = 16, 8  # of a picture


def pretraining_experiment(config: ConfigDict, data: Path, checkpoints: Path) -> Experiment:
    """The pretraining of a domain's generator or of a network beside it; writes model.npz and, of a generator,
    samples.png.

    Args:
      data, checkpoints: the folders of the domains' images and of committed models.
    """
    generator = config.model.kind in KINDS
    if generator:
        domain, score = load_domain(config.domain, data, checkpoints), host_reward(config)
        starts = config.pretraining.from_diffusion
        teacher = load_generator(config, domain, "diffusion", checkpoints)[1] if starts else None
    else:
        part = part_pretraining(config.domain, config.model.kind, data, config.batch_size)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        file, params = workdir / "model.npz", first_run(result.state.target_params["model"])
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
        {"data": files_checksum(data / f"{config.domain}.npz")},
        Metric(f"eval/{outcome}", outcome.replace("_", " ")), finish,
    )


def pipeline_experiment(config: ConfigDict) -> Experiment:
    """RLCM or DDPO of a pipeline's folder."""
    folder, file = (Path(config.pipeline[name]).expanduser() for name in ("folder", "prompts"))
    prompts, score = read_prompts(file), host_reward(config)
    loaded = load_pipeline(folder, variant=config.pipeline.variant)
    if score is None:
        raise ValueError(f"config.reward={config.reward!r} is the similarity of a domain: a pipeline has none")
    resident = pipeline_resident(loaded, prompts)
    return Experiment(
        lambda config: pipeline_fine_tuning(config, loaded, resident, prompts, score),
        {"pipeline": folder.name, "unet": files_checksum(folder / "unet"), "prompts": files_checksum(file)},
        Metric("eval/reward", "reward"),
    )


def load_generator(config: ConfigDict, domain: Domain, kind: str, checkpoints: Path) -> tuple[Path, PyTree]:
    """The file of `config.model.path`, or the one in `checkpoints` of that kind, and its parameters."""
    path = Path(config.model.path) if config.model.path else checkpoints / f"{config.domain}_{kind}.npz"
    return path.expanduser(), load_model(path.expanduser(), kind, config.domain, domain.init)


def host_reward(config: ConfigDict) -> Reward | None:
    """The reward that the host computes, with the options that are set; None where the device computes it."""
    options = {name: value for name, value in config.reward_options.items() if value}
    return None if config.reward == ALIGNMENT else reward(config.reward, **options)


def means(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an evaluation, means over runs; without those that are not finite for every run."""
    values = {name: np.mean(np.asarray(x, np.float64)) for name, x in evaluation.items() if name.startswith("eval/")}
    return {name.removeprefix("eval/"): float(x) for name, x in values.items() if np.isfinite(x)}
