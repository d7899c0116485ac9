"""A binary of the toy regression: what `experiments/<paper>/train.py` is, for the tests of main and of processes."""

import numpy as np

from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.main import main
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Program
from tests.core import toys


def experiment(config):
    """The regression whose parameters follow the optimiser's at `agent.rate`; judged by the spread of its weights."""
    if config.agent.name != "toy":
        raise ValueError(f"config.agent.name={config.agent.name!r}: there is toy alone")
    data = toys.make_data()

    def program(config):
        def step(state, resident, batch, key):
            new, metrics = toys.step(state, resident, batch, key)
            kernel = new.params["net"]["kernel"] * config.agent.rate
            return new.replace(params={"net": new.params["net"] | {"kernel": kernel}}), metrics

        def evaluate(state, resident, key):
            del resident, key
            weights = np.asarray(gather(state.params["net"]["kernel"]))
            return Evaluation({}, {"weight": np.abs(weights).reshape(len(weights), -1)})

        return Program(toys.init, step, evaluate, data)

    def finish(result, workdir):
        (workdir / "figure.txt").write_text(f"{result.step}")
        return {"rows": int(result.resident["x"].shape[0])}

    return Experiment(program, {"rows": 64}, Metric("eval/weight", "weight", "lower"), finish)


def run():
    main(experiment, "tests/core/binary_config.py:quick")


if __name__ == "__main__":
    run()
