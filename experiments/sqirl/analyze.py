"""The effective horizon of tabular MDPs: is greedy on the random policy's Q optimal, and how many samples does it take?

    python -m experiments.sqirl.analyze --mdp=freeway_10_fs30 --sticky=0.25
    python -m experiments.sqirl.analyze --mdp=all
    python -m experiments.sqirl.analyze --mdp=my_mdp.npz --horizon=50
    python -m experiments.sqirl.analyze --mdp=random:1000000 --max_k=4

--mdp is a BRIDGE MDP shipped with the package, a file of `transitions` and `rewards`, `all` (every BRIDGE MDP, once as
it is and once with the sticky actions of --sticky, 0.25 if not given), or `random:STATES`, a synthetic one to measure.

A table goes to stderr; the last line on standard output is one JSON object: a list `mdps` of all figures of each, with
seconds (compilation included), and the peak memory of the process. What is infinite is null there.
"""

import json
import math
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags, logging

from rl_jax.core.runtime import run_binary
from rl_jax.tabular.effective_horizon import analyze
from rl_jax.tabular.files import (
    BRIDGE,
    BRIDGE_EXPLORATION,
    bridge_exploration_policy,
    bridge_mdp,
    bridge_path,
    load_mdp,
)
from rl_jax.tabular.gorp_bound import gorp_bound
from rl_jax.tabular.mdp import TERMINAL, TabularMDP

MDP = flags.DEFINE_string("mdp", None, f"One of {', '.join(BRIDGE)}; a file; all; or random:STATES.")
HORIZON = flags.DEFINE_integer("horizon", None, "Steps of an episode, for files without it.", lower_bound=1)
STICKY = flags.DEFINE_float(
    "sticky", None, "Probability that the previous action is executed again; 0 if not given.", lower_bound=0.0
)
MAX_K = flags.DEFINE_integer(
    "max_k", None, "Most steps of look-ahead; as many as it takes if not given.", lower_bound=1
)
GORP_MAX_K = flags.DEFINE_integer(
    "gorp_max_k", 0, "Most steps of look-ahead of the bound on GORP's samples; 0 leaves it out.", lower_bound=0
)
EXPLORATION_POLICY = flags.DEFINE_bool(
    "exploration_policy", False, f"The authors' policy instead of the random one: {', '.join(BRIDGE_EXPLORATION)}."
)

ALL_STICKY = 0.25  # of arXiv 2312.08369
RANDOM_ACTIONS, RANDOM_HORIZON = 4, 100
COLUMNS = {
    "states x actions": lambda row: f"{row['states']} x {row['actions']}",
    "sticky": lambda row: f"{row['sticky']:g}",
    "random": lambda row: f"{row['random_return']:.6g}",
    "best": lambda row: f"{row['best_return']:.6g}",
    "greedy on Q1": lambda row: f"{row['greedy_returns'][0]:.6g}",
    "min k": lambda row: str(row["min_k"] or "-"),
    "EPW": lambda row: str(row["effective_planning_window"] or "-"),
    "H, simple": lambda row: _figure((row["simple_bound"] or {}).get("effective_horizon")),
    "H, stochastic": lambda row: _figure(row["stochastic_effective_horizon"]),
    "H, GORP": lambda row: _figure((row["gorp_bound"] or {}).get("effective_horizon")),
    "seconds": lambda row: f"{row['seconds']:.1f}",
}


def random_mdp(num_states: int) -> TabularMDP:
    """A synthetic MDP for measuring: random successors, 0.1 % of them terminal, 1 % of the actions earn 1."""
    if num_states < 1:
        raise ValueError(f"--mdp=random:{num_states}: give at least 1 state")
    rng = np.random.default_rng(0)
    shape = (num_states, RANDOM_ACTIONS)
    transitions = rng.integers(0, num_states, shape, np.int32)
    transitions[rng.random(shape) < 1e-3] = TERMINAL
    return TabularMDP(transitions, (rng.random(shape) < 1e-2).astype(np.float32), RANDOM_HORIZON)


def chosen() -> Iterator[tuple[str, TabularMDP, float]]:
    """Name, MDP and stickiness of each analysis that the flags ask for."""
    if MDP.value == "all":
        for name in BRIDGE:
            for sticky in (0.0, ALL_STICKY if STICKY.value is None else STICKY.value):
                yield name, bridge_mdp(name), sticky
        return
    if match := re.fullmatch(r"random:(\d+)", MDP.value):
        mdp = random_mdp(int(match[1]))
        if HORIZON.value is not None:
            mdp = mdp.replace(horizon=HORIZON.value)
    elif MDP.value in BRIDGE or MDP.value.endswith(".npz"):
        mdp = load_mdp(bridge_path(MDP.value) if MDP.value in BRIDGE else MDP.value, HORIZON.value)
    else:
        raise ValueError(
            f"--mdp={MDP.value}: give one of {', '.join(BRIDGE)}, a file that ends in .npz, all, or random:STATES"
        )
    yield MDP.value, mdp, STICKY.value or 0.0


def figures(name: str, mdp: TabularMDP, sticky: float) -> dict[str, Any]:
    """All that is known of one MDP, as what JSON can hold."""
    policy = bridge_exploration_policy(name) if EXPLORATION_POLICY.value else None
    start = time.perf_counter()
    analysis = analyze(mdp, sticky=sticky, exploration_policy=policy, max_k=MAX_K.value)
    seconds, bound = time.perf_counter() - start, None
    if GORP_MAX_K.value and not sticky:
        bound = gorp_bound(mdp, max_k=GORP_MAX_K.value, exploration_policy=policy)._asdict()
    simple = analysis.simple_bound and analysis.simple_bound._asdict()
    return {
        "mdp": name, "states": mdp.num_states, "actions": mdp.num_actions, "horizon": mdp.horizon, "sticky": sticky,
        "exploration_policy": policy is not None, "greedy_on_random_q_is_optimal": analysis.min_k == 1,
        **analysis._asdict(), "simple_bound": simple, "gorp_bound": bound, "seconds": seconds,
    }


def finite(value: Any) -> Any:
    """The same with None for what is infinite, which JSON does not know."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: all is set by flags, see --help")
    rows = []
    for name, mdp, sticky in chosen():
        rows.append(finite(figures(name, mdp, sticky)))
        logging.info("%s, sticky %g: %.1f s", name, sticky, rows[-1]["seconds"])
    lines = [f"| {' | '.join(['MDP', *COLUMNS])} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {' | '.join([row['mdp'], *(cell(row) for cell in COLUMNS.values())])} |" for row in rows]
    print("\n".join(lines), file=sys.stderr, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"mdps": rows, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("mdp")
    run_binary(main)
