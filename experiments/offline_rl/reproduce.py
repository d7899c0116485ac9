"""What the offline RL baselines run and claim; `python -m experiments.reproduce --paper=offline_rl` reads it.

Presets:
  quick   three sets, one of each task and of each level, 3 seeds, 30,000 updates; the heavier agents make fewer, some
          with smaller networks (LIGHTER).
  paper   the nine sets of medium, medium-replay and medium-expert, 5 seeds, the authors' settings and lengths.
  tiny    two agents for seconds: what the tests run.

The claims and their rules were written before any number of the presets was seen. The length was first 10,000 updates
for all; IQL had not caught up with cloning by then, and so four agents got 30,000. How many the others make was set by
machine time alone.
"""

import math
from collections.abc import Sequence

import numpy as np

from experiments.declaration import (
    Claim,
    Paper,
    Preset,
    Published,
    Run,
    best_above_reference,
    better_than,
    not_worse_than,
    read_returns,
)
from experiments.offline_rl.published import CORL, JAX_CORL

LABELS = {
    "bc": "BC", "bc10": "10%-BC", "td3_bc": "TD3+BC", "awac": "AWAC", "cql": "CQL", "iql": "IQL", "xql": "XQL",
    "rebrac": "ReBRAC", "sac_n": "SAC-N", "edac": "EDAC", "dt": "DT",
}
CLONING = ("bc", "bc10")  # imitate the data or a part of it; the others learn from all rewards

LEVELS = ("medium", "medium-replay", "medium-expert")
NINE_SETS = tuple(f"{task}-{level}" for task in ("hopper", "halfcheetah", "walker2d") for level in LEVELS)
QUICK_SETS = ("hopper-medium-replay", "halfcheetah-medium", "walker2d-medium-expert")

QUICK = {
    "num_seeds": 3, "num_steps": 30_000, "dataset.num_steps": 200_000, "loop.eval_every": 5000,
    "checkpoint.every": 30_000, "eval_episodes": 10, "tensorboard": False,
}


def _shorter(num_steps: int, eval_every: int) -> dict[str, int]:
    return {"num_steps": num_steps, "checkpoint.every": num_steps, "loop.eval_every": eval_every}


# What quick takes from the agents that are heavy for a CPU. SAC-N is left out: EDAC is SAC-N with one term more.
NARROW = {"agent.hidden_dims": (256, 256)}  # of three layers
LIGHTER = {
    "awac": _shorter(10_000, 2500),
    "xql": _shorter(10_000, 2500) | {"batch_size": 256},  # of 1024 on some sets
    "rebrac": _shorter(10_000, 2500) | {"batch_size": 256},  # of 1024
    "cql": _shorter(2000, 500) | NARROW | {"agent.num_samples": 4},  # of 10
    "edac": _shorter(4000, 1000) | NARROW | {"agent.num_critics": 10},  # of 50 on hopper
    # Of 100,000 updates; the learning rate rises over the first tenth of them, as in the authors' run, but higher.
    "dt": _shorter(1000, 250)
    | {"dataset.context_length": 10, "agent.learning_rate": 1e-3, "agent.warmup_steps": 100},
}
PAPER_SCALE = {"num_seeds": 5, "tensorboard": False}

# method, baseline: a run of the first scores higher than one of the second.
IMPROVEMENTS = (
    ("bc10", "bc"), ("td3_bc", "bc"), ("iql", "bc"), ("awac", "bc"), ("cql", "bc"), ("rebrac", "td3_bc"),
    ("edac", "bc"), ("dt", "bc"),
)
MARGIN = 5.0  # normalised score that XQL may lie below IQL


def _runs(methods: Sequence[str], sets: Sequence[str], common: dict, own: dict) -> tuple[Run, ...]:
    """All methods on one set after the other, so that a stopped preset has whole sets."""
    return tuple(
        Run(
            method, name, "experiments.offline_rl.train", f"configs/offline_rl.py:{method}/{name}",
            common | own.get(method, {}),
        )
        for name in sets for method in methods
    )


def _claims(methods: Sequence[str], sets: Sequence[str]) -> tuple[Claim, ...]:
    """The claims that speak of these methods, in a fixed order."""
    claims = [
        Claim(
            f"{method}_above_{baseline}", f"{LABELS[method]} > {LABELS[baseline]}",
            "P(better) above 0.5", better_than(method, baseline), published_probability(CORL, method, baseline, sets),
        )
        for method, baseline in IMPROVEMENTS if method in methods and baseline in methods
    ]
    if "xql" in methods:
        claims.append(
            Claim(
                "xql_not_below_iql", "XQL >= IQL", f"difference of IQMs above -{MARGIN:g}",
                not_worse_than("xql", "iql", MARGIN), published_difference(JAX_CORL, "xql", "iql", sets),
            )
        )
    offline = [method for method in methods if method not in CLONING]
    best = Claim(
        "best_above_behaviour", "the best offline RL agent > the behaviour policy",
        f"IQM of (score - behaviour policy's score) above 0, for the best of {len(offline)}, interval at "
        f"{100 - 5 / len(offline):.4g}%",
        best_above_reference(offline),
    )
    return (*claims, best)


def published_probability(source: Published, method: str, baseline: str, sets: Sequence[str]) -> float | None:
    """P(a seed of the method scores higher than one of the baseline), each normal with the published moments.

    The mean over those of the sets that both have numbers for; None where there are none.
    """
    values = []
    for one, other in _pairs(source, method, baseline, sets):
        z = (one[0] - other[0]) / math.hypot(one[1], other[1])
        values.append(0.5 * (1.0 + math.erf(z / math.sqrt(2.0))))
    return float(np.mean(values)) if values else None


def published_difference(source: Published, method: str, baseline: str, sets: Sequence[str]) -> float | None:
    """Difference of the published means, over those of the sets that both have numbers for; None without any."""
    values = [one[0] - other[0] for one, other in _pairs(source, method, baseline, sets)]
    return float(np.mean(values)) if values else None


def _pairs(
    source: Published, method: str, baseline: str, sets: Sequence[str]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    one, other = source.values.get(method, {}), source.values.get(baseline, {})
    return [(one[name], other[name]) for name in sets if name in one and name in other]


def _preset(methods: Sequence[str], sets: Sequence[str], common: dict, own: dict) -> Preset:
    return Preset(_runs(methods, sets, common, own), _claims(methods, sets))


def _tiny() -> Preset:
    methods, sets = ("bc", "td3_bc"), ("hopper-medium",)
    runs = tuple(
        Run(method, sets[0], "experiments.offline_rl.train", f"configs/offline_rl.py:tiny-{method}",
            {"tensorboard": False})
        for method in methods
    )
    return Preset(runs, _claims(methods, sets))


PAPER = Paper(
    title="Offline RL baselines",
    labels=LABELS,
    baseline="bc",
    presets={
        "quick": lambda: _preset([method for method in LABELS if method != "sac_n"], QUICK_SETS, QUICK, LIGHTER),
        "paper": lambda: _preset(list(LABELS), NINE_SETS, PAPER_SCALE, {}),
        "tiny": _tiny,
    },
    read=read_returns,
    published=(CORL, JAX_CORL),
    notes=(
        "Scores are D4RL's normalised ones: 0 is a random policy, 100 an expert. The data are the `locomotion` sets, "
        "which carry D4RL's names and are other data: columns headed *on D4RL* are for orientation and cannot be "
        "compared. The published value of P(better) takes a seed's score as normal with the published mean and "
        "deviation; published values are over those sets that have numbers.",
        "With few seeds a bootstrap interval is too narrow: where two methods are equal, *P(better) above 0.5* passes "
        "in 5% of all cases with 3 seeds and 3 sets, in 3% with 5 seeds and 9 sets, instead of 2.5% (simulated with "
        "normal scores).",
    ),
)
