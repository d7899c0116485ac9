"""Fine-tunes a consistency model by RLCM, or a diffusion model by DDPO, for a reward of its images; or pretrains one.

    python -m experiments.rlcm.train --config=configs/rlcm.py:quick --workdir=runs/rlcm

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, provenance.json, checkpoints; the best checkpoint has the best reward at which the judge still saw what
was asked for), before.png and after.png, images of some prompts, one row each, and rewards.png, what the images
were worth against images rewarded and against time, beside DDPO. The last line on standard output is one JSON object:
what the images of each run are worth in the end, with what an independent judge sees in them.

A pretraining writes samples.png and model.npz, which --config.model.path takes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.rlcm import reproduce
from experiments.rlcm.domain import Domain, load_domain
from experiments.rlcm.emoji import PARTS
from experiments.rlcm.models import CHECKPOINTS, load_model, save_model
from experiments.rlcm.pictures import save_grid, save_rewards
from experiments.rlcm.pipeline import pipeline_program
from experiments.rlcm.pretraining import generator_pretraining, part_pretraining, pretraining_program
from experiments.rlcm.tuning import evaluation, host_reward, sampler_of, tuning_program
from rl_jax.core.config import unknown
from rl_jax.core.loop import run
from rl_jax.core.program import Program, PyTree, TrainState
from rl_jax.core.runtime import is_main_process
from rl_jax.generative.policy import sample

COLUMNS, ROWS = 8, 16  # of a picture
HEADLINE = "eval/accepted_reward"
TASKS = ("fine_tune", "pretrain")


def make_program(config: ConfigDict, workdir: Path) -> tuple[Program, dict[str, Any]]:
    """(Program, inputs for the provenance) of a configuration."""
    if config.task not in TASKS:
        raise ValueError(unknown("config.task", config.task, TASKS))
    inputs = {"domain": config.domain}
    if config.domain == "pipeline":
        return pipeline_program(config, workdir)
    if config.model.kind in PARTS:
        return pretraining_program(config, part_pretraining(config, config.model.kind)), inputs
    domain = load_domain(config.domain)
    if config.task == "fine_tune":
        return tuning_program(config, domain, load(config, domain)), inputs
    judged = evaluation(config, domain, sampler_of(config, domain), host_reward(config))
    start = load(config, domain, "diffusion") if config.pretraining.from_diffusion else None
    return pretraining_program(config, generator_pretraining(config, domain, start, judged)), inputs


def load(config: ConfigDict, domain: Domain, kind: str = "") -> PyTree:
    """The parameters to start from, of a model of the configuration's kind or another."""
    kind = kind or config.model.kind
    path = Path(config.model.path) if config.model.path else CHECKPOINTS / f"{config.domain}_{kind}.npz"
    return load_model(path.expanduser(), kind, config.domain, domain.init)


def painter(config: ConfigDict, domain: Domain) -> Callable[[PyTree, Path], None]:
    """(params, path) -> None: writes COLUMNS images of each prompt, or of ROWS of the prompts; always of the same
    noise."""
    shown = np.linspace(0, len(domain.names) - 1, min(ROWS, len(domain.names))).round().astype(np.int32)
    prompts = np.repeat(shown, COLUMNS)
    shape, sampler = (len(prompts), *domain.images.shape[1:]), sampler_of(config, domain)
    drawn = jax.jit(lambda params: domain.decode(sample(sampler, params, shape, prompts, jax.random.key(0)).final))
    return lambda params, path: save_grid(domain.render(np.asarray(drawn(params))), COLUMNS, path)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    program, inputs = make_program(config, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    by_judge = "eval/judge_accuracy" if config.task == "pretrain" else HEADLINE
    headline = "eval/reward" if config.domain == "pipeline" else by_judge
    result = run(program, config, workdir, headline=headline, inputs=inputs)
    summary = {"paper": config.paper, "preset": config.preset, "step": result.step, "workdir": str(workdir)}
    summary |= outcomes(result.evaluations[-1] if result.evaluations else {})
    if config.domain == "pipeline":
        return summary
    if config.task == "pretrain":
        return summary | pretrained(config, result.state, workdir)
    return tuned(config, program, result.state, summary | {"images": result.step * config.batch_size}, workdir)


def pretrained(config: ConfigDict, state: TrainState, workdir: Path) -> dict[str, Any]:
    """Writes what a pretraining leaves."""
    if not is_main_process():
        return {}
    path, model = workdir / "model.npz", first_run(state.target_params["model"])
    save_model(path, model, kind=config.model.kind, domain=config.domain)
    if config.model.kind not in PARTS:
        painter(config, load_domain(config.domain))(model, workdir / "samples.png")
    return {"model": str(path)}


def tuned(
    config: ConfigDict, program: Program, state: TrainState, summary: dict[str, Any], workdir: Path
) -> dict[str, Any]:
    """Writes the pictures that fine-tuning leaves; the summary with what images were worth at the start."""
    domain = load_domain(config.domain)
    start = jax.device_get(load(config, domain))
    # In the place of every run's parameters, so that the evaluation is not compiled again.
    as_runs = jax.tree.map(
        lambda x, own: jax.device_put(np.broadcast_to(x, own.shape), own.sharding), start, state.params["model"]
    )
    at_start = program.evaluate(state.replace(params={"model": as_runs}), jax.random.key(config.seed))
    summary = summary | {"start": outcomes(at_start)}
    if is_main_process():
        paint = painter(config, domain)
        paint(start, workdir / "before.png")
        paint(first_run(state.params["model"]), workdir / "after.png")
        curves = reproduce.rewards(workdir, summary, Path(__file__).parent / "results" / config.domain)
        save_rewards(curves, reproduce.TASKS[reproduce.task_of(config.preset)], workdir / "rewards.png")
    return summary


def first_run(params: PyTree) -> PyTree:
    """The host's copy of the first run's parameters."""
    return jax.tree.map(lambda x: x[0], jax.device_get(params))


def outcomes(metrics: Mapping[str, Any]) -> dict[str, list[float]]:
    """An evaluation's metrics, by name, for each run."""
    named = {name.removeprefix("eval/"): values for name, values in metrics.items() if name.startswith("eval/")}
    return {name: np.atleast_1d(values).tolist() for name, values in named.items()}


if __name__ == "__main__":
    run_experiment(main, "configs/rlcm.py:quick")
