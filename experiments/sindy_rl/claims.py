"""What SINDy-RL runs and claims.

Presets:
  quick      models of 500, 2,000 and 8,000 random steps of the cart-pole swing-up and of 8,000 with what happens at the
             ends of the rail; SINDy-RL, Dyna with networks and PPO in it; the policy as a polynomial: 3 seeds.
  swimmer    Gymnasium's Swimmer-v5, whose reward is fitted too, 3 seeds: hours on a CPU.
  simulator  SINDy-RL and PPO in dm_control's own cart-pole (extra dm_control), 3 seeds.
  paper      swing-up and swimmer at the authors' lengths, 20 seeds: for accelerators.
  tiny       seconds: what the tests run.

QUESTIONS
"""

import numpy as np

from experiments.sindy_rl.figure import RETURN, draw_errors, draw_interactions
from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import all_of, better_by, elsewhere, faster_than, reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid
from rl_jax.reports.measures import Evaluations, Measure, Values, derived, first, log10

MODULE, CONFIG = "experiments.sindy_rl.train", "configs/sindy_rl.py:{method}/{task}"
LABELS = {
    "sindy_rl": "SINDy-RL", "network_dyna": "Dyna with networks", "ppo": "PPO", "distil": "polynomial policy",
    "sindy": "SINDy, degree 2", "linear": "SINDy, linear", "network_next": "networks, next observation",
    "network_difference": "networks, difference",
}
MODELS, LEARNERS = ("sindy", "linear", "network_next", "network_difference"), ("sindy_rl", "network_dyna", "ppo")
SIZES = {"n500": "500", "n2000": "2000", "n8000": "8000"}
ERRORS = tuple(Metric(f"eval/rmse{h}", f"error after {h} steps", "lower") for h in (10, 50, 100))
ERROR, TERMS = ERRORS[1], Metric("eval/terms", "terms", "lower")
LEVEL = 500.0  # of at most 1,000
NETWORK = Metric("eval/network_return", "return of the network")
KEPT = derived(Metric("eval/kept", "share of the network's return"), lambda own, net: own / net, RETURN, NETWORK)
SIZE = derived(Metric("eval/size", "share of the network's parameters", "lower"), lambda own, net: own / net, TERMS,
               "parameters")


def seconds(evaluations: Evaluations) -> Values:
    """Of training, a seed, compilation and all."""
    seeds = evaluations.outcomes["rmse50"].shape[1]
    return Values(np.full(seeds, evaluations.train_seconds[-1] / seeds), np.ones(seeds, bool))


FIT = Measure(Metric("seconds", "seconds of a fit", "lower"), "mean over seeds", seconds)


def no_worse_by(method: str, other: str, factor: float, task: str, text: str) -> Claim:
    """The error after 50 steps is at most `factor` times the other's, in the mean over seeds of its logarithm."""
    return better_by(
        method, other, float(-np.log10(factor)), by="mean", measure=log10(ERROR), tasks=(task,), text=text,
        name=f"{method}_{factor:g}_times_{other}_{task}",
    )


def swimmer_claim() -> Claim:
    return better_by("sindy_rl", "ppo", by="mean", name="swimmer",
                     text="in the swimmer {sindy_rl} returns more than {ppo} after as many real steps")


def learners(world: str) -> tuple[Run, ...]:
    return grid(LEARNERS, (world,), module=MODULE, config=CONFIG)


def distilled(world: str) -> tuple[Run, ...]:
    return grid(("distil",), (world,), module=MODULE, config=CONFIG, needs={"init_from.run": "sindy_rl-{task}"})


def quick() -> Preset:
    models = grid(MODELS, tuple(SIZES), module=MODULE, config=CONFIG, presets=SIZES)
    rail = grid(("sindy", "network_difference"), ("n8000_rail",), module=MODULE, config=CONFIG,
                presets={"n8000_rail": "8000"}, common={"model.skip_contact": False})
    in_swingup = {"tasks": ("swingup",)}
    claims = (
        no_worse_by("sindy", "network_next", 1.0, "n8000", "of 8,000 steps {sindy} is as good as {network_next}"),
        no_worse_by("sindy", "network_difference", 1.1, "n8000",
                    "of 8,000 steps {sindy} is within 1.1 of the error of {network_difference}"),
        no_worse_by("sindy", "network_next", 0.5, "n2000",
                    "of 2,000 steps {sindy} has half the error of {network_next}"),
        reaches("sindy", 3.0, by="mean", measure=FIT, tasks=("n8000",), text="an ensemble of 8,000 steps takes 3 s"),
        reaches("sindy_rl", 20_000, by="every", measure=first(RETURN, LEVEL, x="samples"), **in_swingup,
                text="{sindy_rl} returns 500 within 20,000 real steps"),
        faster_than("sindy_rl", "ppo", RETURN, level=LEVEL, factor=0.2, x="samples", **in_swingup),
        faster_than("sindy_rl", "network_dyna", RETURN, level=LEVEL, x="samples", by="mean", **in_swingup),
        all_of([reaches("distil", 0.9, by="mean", measure=KEPT, **in_swingup),
                reaches("distil", 0.05, by="every", measure=SIZE, **in_swingup)],
               text="{distil} returns 0.9 of what its network does, with a twentieth of its parameters"),
        elsewhere(swimmer_claim(), "hours on a CPU: preset `swimmer`"),
    )
    measure = {task: ERROR for task in (*SIZES, "n8000_rail")} | {"swingup": RETURN}
    return Preset(models + rail + learners("swingup") + distilled("swingup"), claims, measure=measure,
                  beside=(ERRORS[0], ERRORS[2], TERMS, NETWORK))


def swimmer() -> Preset:
    return Preset(learners("swimmer") + distilled("swimmer"), (swimmer_claim(),))


def simulator() -> Preset:
    runs = grid(("sindy_rl", "ppo"), ("dm_control",), module=MODULE, config=CONFIG)
    return Preset(runs, (faster_than("sindy_rl", "ppo", RETURN, level=LEVEL, factor=0.2, x="samples"),))


def paper() -> Preset:
    runs = grid(LEARNERS, ("swingup", "swimmer"), module=MODULE, config="configs/sindy_rl.py:paper/{method}/{task}")
    return Preset(runs, (
        faster_than("sindy_rl", "ppo", RETURN, level=LEVEL, factor=0.01, x="samples", tasks=("swingup",),
                    name="a_hundredth", text="{sindy_rl} needs a hundredth of the real steps of {ppo}"),
        better_by("sindy_rl", "ppo", by="mean", tasks=("swimmer",), name="swimmer"),
    ))


def tiny() -> Preset:
    models = grid(("sindy", "network_next"), ("n100",), module=MODULE, config="configs/sindy_rl.py:tiny-{method}")
    runs = grid(("sindy_rl", "ppo"), ("swingup",), module=MODULE, config="configs/sindy_rl.py:tiny-{method}",
                presets={"sindy_rl": "dyna"})
    last = grid(("distil",), ("swingup",), module=MODULE, config="configs/sindy_rl.py:tiny-{method}",
                needs={"init_from.run": "sindy_rl-{task}"})
    claims = (
        better_by("sindy_rl", "ppo", by="mean", tasks=("swingup",)),
        better_by("sindy", "network_next", by="mean", measure=ERROR, tasks=("n100",)),
    )
    return Preset(models + runs + last, claims, measure={"n100": ERROR, "swingup": RETURN})


PAPER = Paper(
    title="SINDy-RL",
    labels=LABELS,
    baseline="ppo",
    measure=RETURN,
    presets={
        "quick": quick, "swimmer": swimmer, "simulator": simulator, "paper": paper, "tiny": tiny,
    },
    notes=(
        "The swing-up is dm_control's as pure functions, equal to it step by step; simulators are presets of their "
        "own. Errors are root mean squares over windows that were not fitted, in standard deviations of each number; "
        "steps at the ends of the rail are left out of fits and judgements but for n8000_rail.",
        "The authors' figures are curves: no numbers of theirs are quoted. Flows (HydroGym) need Firedrake, and are "
        "not here.",
    ),
    figures={"interactions.png": draw_interactions, "errors.png": draw_errors},
)
