"""What a configuration says: training by a driver, one driver on three placements, or a way between two layouts."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.hybridflow import layouts
from experiments.hybridflow.advantages import Numbers
from experiments.hybridflow.drivers import DRIVERS, lines_of_code
from experiments.hybridflow.mapping import search
from experiments.hybridflow.models import (
    Actor,
    Cost,
    Critic,
    Functions,
    Learner,
    Multiplier,
    Prompts,
    Reference,
    Reward,
    Roles,
    functions_of,
    init_critic,
    optimisers,
)
from experiments.hybridflow.placements import TRAINED, Clock, follow, meshes, placed
from experiments.hybridflow.sorting import Task, make_task, share_right, shows, solved
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run, gather
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.core.runtime import add_xla_flag
from rl_jax.data.cache import files_checksum
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.experiments import leaves_start
from rl_jax.language.roles import TRAINING_RULES
from rl_jax.language.rows import Rows
from rl_jax.language.sft import sft_program
from rl_jax.networks.model_file import load_model

START = Path(__file__).parent / "start.npz"
TASKS = ("training", "placements", "resharding", "pretrain")
ITERATIONS = 3  # that placements are compared over
REWARD = Metric("eval/reward", "reward, held out")
GAP = Metric("eval/loss_gap", "largest difference of losses", "lower")
MOVED = Metric("eval/moved", "data moved a device", "lower", "M")
LOSS = Metric("eval/loss", "held-out loss", "lower", "nats a token")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/hybridflow.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist, or there are too few devices.
    """
    if config.task not in TASKS:
        raise ValueError(unknown("config.task", config.task, TASKS))
    methods = layouts.ENGINES if config.task == "resharding" else DRIVERS
    if config.method not in methods and config.task != "pretrain":
        raise ValueError(unknown("config.method", config.method, methods))
    ask_for_devices(config.devices)
    shape = DecoderConfig(**config.decoder)
    fresh = init_decoder(shape, jax.random.key(config.decoder_seed))
    if config.task == "resharding":
        return Experiment(lambda config: resharding(config, shape, fresh), {}, MOVED)
    task = make_task(config.data.digits, config.data.judged, config.data.costly)
    if config.task == "pretrain":
        train, held_out = (solved(part, shape.context_length) for part in (task.train, task.held_out))
        return Experiment(
            lambda config: sft_program(config, shape, fresh, train, held_out), {}, LOSS, leaves_start("sorting")
        )
    path = Path(config.start or START)
    path = path / "model.npz" if path.is_dir() else path
    params = jax.tree.map(jnp.asarray, load_model(path, "start", "sorting", functools.partial(init_decoder, shape)))
    inputs = {"start": files_checksum(path)}
    if config.task == "training":
        return Experiment(lambda config: Dataflow(config, shape, params, task).program(), inputs, REWARD)
    clocks: dict[str, Clock] = {}

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        del result, workdir
        return of_stages(clocks)

    return Experiment(lambda config: Dataflow(config, shape, params, task).on_placements(clocks), inputs, GAP, finish)


def ask_for_devices(number: int) -> None:
    """Makes a CPU so many virtual devices, where nothing has touched it yet; 0 takes what there is.

    Raises:
      ValueError: there are fewer.
    """
    if number > 1:
        add_xla_flag(f"--xla_force_host_platform_device_count={number}")
    if len(jax.devices()) < number:
        raise ValueError(
            f"config.devices={number} and there are {len(jax.devices())}: start with XLA_FLAGS="
            f"--xla_force_host_platform_device_count={number} and JAX_PLATFORMS=cpu, or with so many accelerators"
        )


class Dataflow:
    """A driver with its roles, as programs of the core."""

    def __init__(self, config: ConfigDict, shape: DecoderConfig, start: PyTree, task: Task):
        settings = config.agent
        if config.batch_size % settings.samples or config.batch_size % settings.updates:
            raise ValueError(
                f"config.batch_size={config.batch_size} answers do not divide into agent.samples={settings.samples} to "
                f"a prompt, or into agent.updates={settings.updates}: change one"
            )
        self.config, self.shape, self.start, self.task = config, shape, start, task
        self.driver = DRIVERS[config.method]
        self.functions = functions_of(shape, settings, task, config.num_steps)
        self.optimisers = optimisers(settings, config.num_steps)
        self.numbers = Numbers(settings.kl_coefficient, settings.discount, settings.gae_lambda)

    # The state of the core and the roles of the driver

    def init(self, key: Key, resident: PyTree) -> TrainState:
        del key
        start = resident["reference"]
        params = {"actor": jax.tree.map(jnp.copy, start)}
        if self.config.method in ("ppo", "safe_rlhf"):
            params["critic"] = init_critic(start)
        if self.config.method == "safe_rlhf":
            params |= {"cost_critic": init_critic(start), "multiplier": jnp.zeros(())}
        opt_state = {
            name: self.optimisers["actor" if name == "actor" else "critic"].init(own)
            for name, own in params.items() if name != "multiplier"
        }
        return TrainState.create(params, opt_state)

    def roles(self, state: TrainState, reference: PyTree, functions: Functions | None = None) -> Roles:
        """The models of a state; they are a part of the step that calls them until they are placed."""
        told = {"rules": TRAINING_RULES, "functions": functions or self.functions}
        kinds = {"actor": Actor, "critic": Critic, "cost_critic": Critic}
        found = {
            name: kind(Learner(state.params[name], state.opt_state[name]), **told)
            for name, kind in kinds.items() if name in state.params
        }
        if "multiplier" in state.params:
            found |= {"multiplier": Multiplier(state.params["multiplier"], **told), "cost": Cost((), **told)}
        return Roles(reference=Reference(reference, **told), reward=Reward((), **told), **found)

    def state(self, old: TrainState, roles: Roles) -> TrainState:
        """The state after a driver."""
        found = {name: getattr(roles, name).params for name in TRAINED if getattr(roles, name) is not None}
        learners = {name: own for name, own in found.items() if isinstance(own, Learner)}
        return old.replace(
            params={name: own.params if name in learners else own for name, own in found.items()},
            opt_state={name: own.opt_state for name, own in learners.items()},
        )

    def prompts(self, resident: PyTree, key: Key) -> Prompts:
        """The batch of an iteration."""
        train = resident["train"]
        number = self.config.batch_size // self.config.agent.samples
        chosen = jax.random.permutation(key, len(train))[:number].astype(jnp.int32)
        examples = jax.tree.map(lambda x: x[jnp.resize(chosen, self.config.batch_size)], resident["solved"])
        return Prompts(train[chosen], chosen, examples)

    def resident(self) -> dict[str, PyTree]:
        return {
            "reference": self.start, "train": self.task.train, "held_out": self.task.held_out,
            "solved": solved(self.task.train, self.shape.context_length),
        }

    # Training: the driver is traced into the step

    def step(self, state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        state, _, metrics = self.iteration(state, resident, key)
        return state, metrics

    def iteration(self, state: TrainState, resident: PyTree, key: Key) -> tuple[TrainState, Rows, Metrics]:
        asked, key = jax.random.split(key)
        prompts = self.prompts(resident, asked)
        roles, rows, metrics = self.driver(self.roles(state, resident["reference"]), self.numbers, prompts, key)
        return self.state(state, roles), rows, metrics | watched(rows, self.task)

    def program(self) -> Program:
        """Trains all roles of the driver; outcomes [S, E]: `reward`, `cost` of an answer that is drawn to each held-out
        prompt, `score`, `exact` of the most likely one; and `lines` of the driver's code."""
        examples = solved(self.task.held_out, self.shape.context_length)

        @jax.jit
        def answers(actor: PyTree, held_out: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
            """Drawn and most likely ones, [S, E, T]."""
            prompts = Prompts(held_out, jnp.arange(len(held_out)), examples)

            def one(actor: PyTree) -> tuple[jax.Array, jax.Array]:
                functions = self.functions
                return functions.drawn(actor, prompts, key).tokens, functions.greedy(actor, prompts, key).tokens

            return over_runs(one, default_seed_axis())(actor)

        def each(judge: Callable[..., jax.Array], answers: jax.Array, *told: int) -> np.ndarray:
            return np.stack([np.asarray(judge(of_run, self.task.digits, *told)) for of_run in answers])

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            drawn, best = answers(gather(state.params["actor"]), gather(resident["held_out"]), key)
            score = each(share_right, best)
            return Evaluation(outcomes={
                "reward": each(share_right, drawn), "cost": each(shows, drawn, self.task.costly), "score": score,
                "exact": (score == 1.0).astype(np.float32),
                "lines": np.full((len(score), 1), float(lines_of_code(self.driver))),
            })

        return Program(self.init, self.step, evaluate, self.resident())

    # Placements: the driver is plain Python

    def on_placements(self, clocks: dict[str, Clock]) -> Program:
        """Trains nothing; outcomes [S, 1] of some iterations on each placement: `loss_gap` and `same_text` beside the
        first placement, `fused_gap` of the compiled step beside it, `parameters_<placement>` in bytes,
        `seconds_<placement>_<stage>` and `temporary_<placement>` in bytes.

        Args:
          clocks: gets what was timed, by placement.
        """

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del key
            state, resident = jax.device_get((state, resident))
            runs = [
                self.compared(jax.tree.map(lambda x, run=run: x[run], state.replace(step=None)), resident, run, clocks)
                for run in range(self.config.num_seeds)
            ]
            return Evaluation(outcomes={name: np.array([[run[name]] for run in runs]) for name in runs[0]})

        return Program(self.init, self.step, evaluate, self.resident())

    def compared(
        self, state: TrainState, resident: PyTree, run: int, clocks: dict[str, Clock]
    ) -> dict[str, float]:
        keys = [
            jax.random.split(jax.random.fold_in(jax.random.key(self.config.seed + run), number))
            for number in range(ITERATIONS)
        ]
        asked = [jax.device_get(jax.jit(self.prompts)(resident, own[0])) for own in keys]

        def drive(roles: Roles, number: int) -> tuple[Roles, Rows, Metrics]:
            return self.driver(roles, self.numbers, asked[number], keys[number][1])

        fused = jax.jit(self.iteration)
        found, numbers = {}, {}
        for name, where in meshes(jax.devices()[:8]).items():
            clock = clocks.setdefault(name, Clock())
            roles = placed(self.roles(state, resident["reference"], clock.watched(self.functions)), *where)
            found[name] = follow(drive, roles, ITERATIONS)
            numbers[f"parameters_{name}"] = float(found[name].parameters)
            numbers[f"temporary_{name}"] = float(max(clock.temporary.values()))
            numbers |= {f"seconds_{name}_{stage}": value for stage, value in clock.stages().items()}

        def step(state: TrainState, number: int) -> tuple[TrainState, Rows, Metrics]:
            key = jax.random.fold_in(jax.random.key(self.config.seed + run), number)
            return fused(state, resident, key)

        found["fused"] = follow(step, state.replace(step=jnp.zeros((), jnp.int32)), ITERATIONS)
        first = found["together"]
        gaps = {name: float(np.max(np.abs(own.losses - first.losses))) for name, own in found.items()}
        same = [np.array_equal(x, y) for own in found.values() for x, y in zip(own.tokens, first.tokens, strict=True)]
        return numbers | {
            "loss_gap": max(gaps["split"], gaps["one"]), "fused_gap": gaps["fused"], "same_text": float(all(same)),
            "lines": float(lines_of_code(self.driver)),
        }


def watched(rows: Rows, task: Task) -> Metrics:
    """What is always logged of a batch."""
    number = rows.mask.shape[0]
    divergence = jnp.where(rows.mask > 0, rows.log_probs - rows.reference_log_probs, 0.0)
    gap = jnp.where(rows.mask > 0, jnp.abs(rows.log_probs - rows.behaviour_log_probs), 0.0)
    return {
        "sampler/gap_mean": jnp.sum(gap) / jnp.maximum(jnp.sum(rows.mask), 1.0), "sampler/gap_max": jnp.max(gap),
        "reward/mean": jnp.mean(share_right(rows.tokens, task.digits)),
        "cost/mean": jnp.mean(shows(rows.tokens, task.digits, task.costly)),
        "policy/kl_from_anchor": jnp.sum(divergence) / number,
        "response/length": jnp.sum(rows.mask) / number,
        "response/truncated": jnp.mean(rows.truncated.astype(jnp.float32)),
    }


def of_stages(clocks: dict[str, Clock]) -> dict[str, Any]:
    """Seconds and memory of stages by placement, and the grouping that the search finds from them."""
    if not clocks:
        return {}
    devices = {"together": 8, "split": 4, "one": 1}
    costs: dict[str, dict[str, dict[int, float]]] = {}
    for placement, clock in clocks.items():
        for stage, by_model in clock.costs().items():
            for model, seconds in by_model.items():
                costs.setdefault(stage, {}).setdefault(model, {})[devices[placement]] = seconds
    models = sorted({model for by_model in costs.values() for model in by_model})
    best = search(models, 8, costs)[0]
    return {
        "stages": {name: clock.stages() for name, clock in clocks.items()},
        "temporary_bytes": {name: clock.temporary for name, clock in clocks.items()},
        "mapping": {"groups": best.groups, "devices": best.devices, "simulated_seconds": best.seconds},
    }


def resharding(config: ConfigDict, shape: DecoderConfig, params: PyTree) -> Program:
    """Trains nothing: one way from the layout of training to that of generation, measured; outcomes as
    `layouts.measured`, [1, 1] each."""

    def init(key: Key, resident: PyTree) -> TrainState:
        del key
        return TrainState.create({"actor": jax.tree.map(jnp.copy, resident)}, {})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del resident, batch, key
        return state, {}

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident, key
        found = layouts.measured(config.method, shape, jax.device_get(first_run(state.params["actor"])))
        return Evaluation(outcomes={name: np.full((config.num_seeds, 1), value) for name, value in found.items()})

    return Program(init, step, evaluate, params)
