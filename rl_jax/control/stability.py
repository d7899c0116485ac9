"""Offline RL that is judged by whether it diverges: by its losses and values alone, without a simulator."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.control.agents import make_agent
from rl_jax.control.offline import agent_data, offline_program
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.load import Dataset

STABLE = Metric("eval/stable", "percentage of stable runs")


def stability_experiment(config: ConfigDict, dataset: Dataset) -> Experiment:
    """Offline RL that is judged by its own numbers on `config.judged_rows` rows of the data, the same at every time.

    The outcomes, [S, 1], are `log10_mean_q`, of the absolute value; `value_loss`; and `stable`, 100, or 0 where a run
    has diverged: where an update was not finite (`loop.on_nan` drops it, so that a bad run does not end the others),
    one of these numbers is not, or |mean Q| is above twice r_max / (1 - discount), r_max the largest |reward| of the
    set. No policy is worth half of that.
    """
    data = agent_data(config, dataset.episodes)
    bound = 2.0 * float(np.abs(data.resident.rewards).max()) / (1.0 - config.agent.discount)

    def program(config: ConfigDict) -> Program:
        agent, offline = make_agent(config, *data.action), offline_program(config, data)

        def init(key: Key, resident: PyTree) -> TrainState:
            state = offline.init(key, resident)
            return state.replace(extra=state.extra | {"updates": jnp.zeros((), jnp.int32)})

        def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
            state, metrics = offline.step(state, resident, batch, key)
            return state.replace(extra=state.extra | {"updates": state.extra["updates"] + 1}), metrics

        @jax.jit
        def judged(state: TrainState, resident: PyTree) -> tuple[jax.Array, ...]:
            """(loss of V, mean Q, updates that were made), [S] each."""
            key = jax.random.key(0)
            batch = data.draw(resident, key, config.judged_rows)
            of_runs = over_runs(lambda own: agent.update(own, batch, key)[1], default_seed_axis())
            metrics = of_runs(state.replace(step=None))
            return metrics["value/loss"], metrics["critic/mean"], state.extra["updates"]

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del key
            numbers = jax.device_get(gather(judged(state, resident)))
            loss, q, updates = (np.asarray(x, np.float64)[:, None] for x in numbers)
            stable = np.isfinite(loss) & (np.abs(q) <= bound) & (updates == int(state.step))
            return Evaluation(
                outcomes={"stable": 100.0 * stable, "log10_mean_q": magnitude(q), "value_loss": finite(loss)}
            )

        return Program(init, step, evaluate, data.resident)

    return Experiment(program, dataset.inputs, STABLE)


def finite(values: np.ndarray) -> np.ndarray:
    """The values, with 1e12 in the place of what is larger or not finite."""
    return np.clip(np.nan_to_num(values, nan=1e12), -1e12, 1e12)


def magnitude(values: np.ndarray) -> np.ndarray:
    """log10 |x|, between -6 and 12; 12 for what is not finite."""
    return np.log10(np.maximum(finite(np.abs(values)), 1e-6))
