"""Fine-tunes a consistency model by RLCM, or a diffusion model by DDPO, for a reward of its images; or pretrains one.

    python -m experiments.rlcm.train --config=configs/rlcm.py:digits-compress --workdir=runs/rlcm

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, provenance.json, checkpoints) and before.png and after.png, images of all prompts, one row each. The
last line on standard output is one JSON object: what the images of each run are worth in the end, with what an
independent judge sees in them.

A pretraining writes samples.png and model.npz, which --config.model.path takes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.rlcm.domain import Domain, load_domain, train_judges
from experiments.rlcm.pictures import save_grid
from experiments.rlcm.pretraining import CHECKPOINTS, load_model, pretraining_program, save_model
from experiments.rlcm.tuning import evaluation, sampler_of, tuning_program
from rl_jax.core.config import unknown
from rl_jax.core.loop import run
from rl_jax.core.program import Program, PyTree, TrainState
from rl_jax.core.runtime import is_main_process
from rl_jax.generative.policy import sample

COLUMNS = 8
HEADLINE = "eval/judge_accuracy"


def make_program(config: ConfigDict, workdir: Path) -> tuple[Program, dict[str, Any]]:
    """(Program, inputs for the provenance) of a configuration."""
    del workdir
    if config.task not in ("fine_tune", "pretrain"):
        raise ValueError(unknown("config.task", config.task, ("fine_tune", "pretrain")))
    domain = load_domain(config.domain)
    judges, inputs = train_judges(domain), {"domain": config.domain}
    if config.task == "fine_tune":
        return tuning_program(config, domain, load(config, domain), judges), inputs
    program = pretraining_program(config, domain)
    judged = evaluation(config, domain, judges, sampler_of(config, domain))
    return program._replace(evaluate=lambda state, key: judged(averaged(state), key)), inputs


def averaged(state: TrainState) -> TrainState:
    """The state with the mean of the parameters over time in their place."""
    return state.replace(params=state.target_params)


def load(config: ConfigDict, domain: Domain) -> PyTree:
    """The parameters that fine-tuning starts from."""
    path = Path(config.model.path) if config.model.path else CHECKPOINTS / f"{config.domain}_{config.model.kind}.npz"
    return load_model(path.expanduser(), config.model.kind, config.domain, domain)


def draw(config: ConfigDict, domain: Domain, params: PyTree, path: Path) -> None:
    """Writes COLUMNS images of each prompt; always of the same noise."""
    prompts = jnp.repeat(jnp.arange(len(domain.names)), COLUMNS)
    shape = (len(prompts), *domain.images.shape[1:])
    drawn = jax.jit(lambda p: sample(sampler_of(config, domain), p, shape, prompts, jax.random.key(0)).final)(params)
    save_grid(domain.render(np.asarray(drawn)), COLUMNS, path)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    program, inputs = make_program(config, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    domain = load_domain(config.domain)
    result = run(program, config, workdir, headline=HEADLINE, inputs=inputs)
    summary = {"paper": config.paper, "preset": config.preset, "step": result.step, "workdir": str(workdir)}
    if not is_main_process():
        return summary
    first = jax.tree.map(lambda x: x[0], jax.device_get(result.state.replace(step=None)))
    if config.task == "pretrain":
        model = first.target_params["model"]
        save_model(workdir / "model.npz", model, kind=config.model.kind, domain=config.domain)
        draw(config, domain, model, workdir / "samples.png")
        return summary | {"model": str(workdir / "model.npz")} | outcomes(result.evaluations[-1])
    start = load(config, domain)
    draw(config, domain, start, workdir / "before.png")
    draw(config, domain, first.params["model"], workdir / "after.png")
    at_start = program.evaluate(
        result.state.replace(params={"model": jax.tree.map(lambda x: x[None], start)}), jax.random.key(config.seed)
    )
    summary |= {"images": result.step * config.batch_size, "start": outcomes(at_start)}
    return summary | outcomes(result.evaluations[-1] if result.evaluations else {})


def outcomes(metrics: Mapping[str, Any]) -> dict[str, list[float]]:
    """An evaluation's metrics, by name, for each run."""
    named = {name.removeprefix("eval/"): values for name, values in metrics.items() if name.startswith("eval/")}
    return {name: np.atleast_1d(values).tolist() for name, values in named.items()}


if __name__ == "__main__":
    run_experiment(main, "configs/rlcm.py:digits-compress")
