"""A run of a sweep is the run alone, bitwise on a CPU, whatever is swept beside it."""

import pytest

from tests.promises.cases import WHOLE, by_name
from tests.promises.runner import execute

NUMBERS = {
    "agent.expectile": (0.9, 0.7), "agent.temperature": (3.0, 0.7), "agent.learning_rate": (3e-4, 1e-2),
}
SWEEP = "; ".join(f"{name}={values[0]},{values[1]}" for name, values in NUMBERS.items())


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    sweep = WHOLE | {"sweep": SWEEP, "num_seeds": 2}
    return execute(by_name("offline_rl_iql"), tmp_path_factory.mktemp("sweep"), sweep)


# The row of a combination: its last field varies fastest, and each has two seeds.
@pytest.mark.parametrize("chosen, seed, row", [((0, 0, 0), 1, 1), ((0, 1, 1), 0, 6), ((1, 0, 1), 1, 11)])
def test_a_run_of_a_sweep_is_the_run_alone(chosen, seed, row, together, tmp_path):
    setting = {name: values[index] for (name, values), index in zip(NUMBERS.items(), chosen, strict=True)}
    alone = execute(by_name("offline_rl_iql"), tmp_path, WHOLE | setting | {"seed": seed})
    for name, leaf in alone.leaves.items():
        own = together.leaves[name] if name == "step" else together.leaves[name][row : row + 1]
        assert own.tobytes() == leaf.tobytes(), name
    for line, other in zip(together.lines, alone.lines, strict=True):
        mine = {name: value[row] for name, value in line.items() if isinstance(value, list)}
        assert mine and mine == {name: other[name] for name in mine}
