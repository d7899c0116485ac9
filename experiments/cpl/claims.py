"""What CPL runs and claims; `python -m experiments.reproduce --paper=cpl` reads it.

Presets:
  quick        the double integrator, where regret is exact: all methods, 3 seeds, 2,500 updates.
  meta-world   drawer-open from states: CPL, P-IQL, SFT, BC, 10%-BC, 3 seeds; needs the extra metaworld.
  plate-slide  the same there.
  pictures     the double integrator from pictures of 16 pixels: CPL, SFT, BC, 3 seeds.
  paper        six tasks of Meta-World, dense and sparse data, 4 seeds, the authors' settings and lengths.
  images       the same from pictures: CPL, SFT, BC; needs a GPU and EGL.
  tiny         two methods for seconds: what the tests run.

What was asked of each claim before its rule and setting were fixed, with pilots on seed 100, which no result uses:

- Can the data show it? Not where regret is that of the states: with much drift the better of two segments is the one
  nearer to the origin, whatever was done in it, and a policy that runs away explains that as well (costs of 2,000 to
  8,000 times the optimum from 5,000 segments of 32 steps). From starts within the problem's own, with actions so noisy
  that they decide half of the regret, a linear policy's minimiser of the loss is optimal within 20% for alpha from 0.1
  to 2 and biases from 0.5 to 1, and 2.1 to 2.5 times the optimum where returns are compared.
- Labels that are certain are another model than the loss's, and its policies overshoot, by more the longer they train
  (1.1, then 2.7 times the optimum). So labels are the probabilities of the regret model here, and alpha is its own.
- Long enough, strong enough? Then the policy without a bias costs 1.4 times the optimum after 600 updates and 1.1 from
  1,500 on. A bias of 0.5, whose minimiser is not the optimum, stays at 2.5 to 3.5; cloning costs 50 to 80. So what is
  claimed of CPL near the optimum is claimed without the bias, and its cost is a row of its own.
- Meta-World, drawer-open: from an expert with noise and 45% of random actions nothing can be shown, as cloning succeeds
  in 25 of 25 episodes: noise averages away. So, with 20% of random actions, the expert of the data misjudges the
  handle's place, by 8 cm +- 5 cm, anew in each segment: 24% of its episodes succeed, and by 300 segments and 600 to 900
  updates of 8 pairs BC had 0.64, SFT 0.52, CPL 0.92 and then 1.0, each one run of 25 episodes. So the runs are of 900
  updates from 1,000 segments, and the score is the mean of the last two evaluations, of 150 episodes.
- Plate-slide came later, with the same lengths. Where the script misjudges the plate by 6 cm +- 4 cm, 54% of the
  behaviour's episodes succeed, and after 900 updates on 150 segments SFT had 0.92, which leaves CPL nothing to gain (it
  had 0.64, BC 0.36 after 600). By drawer-open's 8 cm +- 5 cm SFT had 0.72 and CPL 0.88, each one run of 25 episodes. So
  that is the behaviour.
- Pictures of the double integrator, one pilot of CPL without a bias, 8 pairs an update: a cost of 97 times the optimum
  at the end of cloning, after 500 updates, 2.3 after 1,000 and 1.4 after 1,500. So the runs are of 2,000. SFT and BC
  had no pilot; that CPL costs a tenth of SFT, which fails from states by what SFT reaches, is not claimed.
- No pilot is recorded of P-IQL and 10%-BC, nor of SFT, CPL-BC and CPL-KL on the double integrator: whether P-IQL learns
  within the length of its claim was not asked, and pilots of one run cannot say whether three seeds are enough.
"""

import math

import numpy as np

from configs.cpl import DOUBLE_INTEGRATOR, METHODS, TASKS
from experiments.cpl.published import HEJNA, HEJNA_PICTURES
from rl_jax.control.preferences import COST, SUCCESS
from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import better_by, elsewhere, reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Reference, Run, grid
from rl_jax.reports.figures import draw_curves
from rl_jax.reports.measures import Evaluations, Measure, Values, as_curve, log10, mean_of_last

LABELS = {
    "cpl": "CPL", "cpl_unbiased": "CPL without bias", "cpl_bc": "CPL-BC", "cpl_kl": "CPL-KL",
    "cpl_return": "CPL without bias, by return", "piql": "P-IQL", "sft": "SFT", "bc": "BC", "bc10": "10%-BC",
}
MAIN = ("cpl", "piql", "sft", "bc", "bc10")
ABSOLUTE = mean_of_last(COST, 10)
RELATIVE = log10(ABSOLUTE)
BETTER_THAN_SFT = better_by("cpl", "sft", 0.1, by="mean", text="{cpl} succeeds more often than {sft} by 0.1")
LEVEL_WITH_PIQL = better_by("cpl", "piql", -0.05, by="mean", text="{cpl} succeeds as often as {piql}, within 0.05")


def numbers_of(metric: Metric) -> Measure:
    """How many numbers a run trains and keeps copies of; `metric` is of its evaluations."""

    def of(evaluations: Evaluations) -> Values:
        found = np.full(as_curve(metric).of(evaluations).shape[1], float(evaluations.summary["parameters"]))
        return Values(found, np.ones(found.shape, bool))

    return Measure(Metric("parameters", "parameters", "lower"), "with target copies", of)


def cost_of_learning(metric: Metric) -> tuple[Claim, ...]:
    """Half of P-IQL's parameters, and faster than it by half."""
    smaller = better_by(
        "cpl", "piql", math.log10(2.0), by="every", measure=log10(numbers_of(metric)), name="cpl_half_of_piql",
        text="{cpl} has at most half of {piql}'s parameters, target copies included",
    )
    faster = smaller._replace(name="cpl_faster_than_piql", text="{cpl} makes 1.5 updates while {piql} makes one")
    return smaller, elsewhere(faster, "a matter of rates: `python -m experiments.benchmark --suite=preferences`")


def runs(methods: tuple[str, ...], tasks: tuple[str, ...], kind: str = "") -> tuple[Run, ...]:
    suffix = "-sparse" if "sparse-" in kind else ""
    return grid(
        methods, tuple(task + suffix for task in tasks), module="experiments.cpl.train",
        config=f"configs/cpl.py:{kind}{{method}}/{{task}}", presets={task + suffix: task for task in tasks},
    )


def double_integrator() -> Preset:
    return Preset(
        runs(tuple(METHODS), (DOUBLE_INTEGRATOR,)),
        (
            reaches("cpl_unbiased", 2.0, by="every", measure=ABSOLUTE, name="cpl_near_the_optimum",
                    text="{cpl_unbiased} costs at most twice the optimum"),
            better_by("cpl_unbiased", "sft", 1.0, by="mean", text="{cpl_unbiased} costs a tenth of {sft}"),
            better_by("cpl", "sft", 0.0, by="mean", text="{cpl} costs less than {sft}"),
            better_by("sft", "bc", 0.0, by="mean", text="{sft} costs no more than {bc}"),
            better_by("cpl_unbiased", "cpl_return", math.log10(2.0), by="mean",
                      text="Compared by return and not by regret, CPL costs twice as much"),
            better_by("cpl_unbiased", "cpl", 0.0, by="mean",
                      text="The bias has a price here: {cpl_unbiased} better than {cpl}"),
            *cost_of_learning(COST),
        ),
        measure=RELATIVE,
    )


def pictures() -> Preset:
    return Preset(
        runs(("cpl_unbiased", "cpl", "sft", "bc"), ("pictures",)),
        (
            reaches("cpl_unbiased", 2.0, by="every", measure=ABSOLUTE, name="cpl_near_the_optimum",
                    text="{cpl_unbiased} costs at most twice the optimum"),
            better_by("cpl_unbiased", "sft", 0.0, by="mean", text="{cpl_unbiased} costs less than {sft}"),
            better_by("sft", "bc", 0.0, by="mean", text="{sft} costs no more than {bc}"),
        ),
        measure=RELATIVE,
    )


def meta_world(tasks: tuple[str, ...], kind: str = "", last: int = 2) -> Preset:
    return Preset(
        runs(MAIN, tasks, kind),
        (BETTER_THAN_SFT, LEVEL_WITH_PIQL, *cost_of_learning(SUCCESS)),
        measure=mean_of_last(SUCCESS, last),
    )


def paper() -> Preset:
    dense, sparse = (meta_world(TASKS, kind, 10) for kind in ("paper-", "sparse-"))
    return dense._replace(runs=dense.runs + sparse.runs)


def images() -> Preset:
    methods = ("cpl", "sft", "bc")
    return Preset(
        runs(methods, TASKS, "image-") + runs(methods, TASKS, "image-sparse-"),
        (BETTER_THAN_SFT, elsewhere(LEVEL_WITH_PIQL, "P-IQL reads no pictures here")),
        measure=mean_of_last(SUCCESS, 10), published=(HEJNA_PICTURES,),
    )


def tiny() -> Preset:
    made = grid(("cpl", "sft"), (DOUBLE_INTEGRATOR,), module="experiments.cpl.train",
                config="configs/cpl.py:tiny{method}", presets={"cpl": "", "sft": "-sft"})
    return Preset(made, (better_by("cpl", "sft"),), measure=RELATIVE)


PAPER = Paper(
    title="CPL",
    labels=LABELS,
    baseline="sft",
    measure=RELATIVE,
    reference=Reference("best", "the optimum, or the scripted expert"),
    presets={
        "quick": double_integrator, "meta-world": lambda: meta_world(("drawer-open",)),
        "plate-slide": lambda: meta_world(("plate-slide",)), "pictures": pictures, "paper": paper,
        "images": images, "tiny": tiny,
    },
    published=(HEJNA,),
    figures={"curves.png": draw_curves},
    notes=(
        "On the double integrator a score is log10 of the cost of a roll-out over that of the optimal policy from the "
        "same starts: 0 is optimal. In Meta-World it is the share of episodes that succeed at the policy's mean.",
        "Scores are means of the last 10 evaluations, of 2 in the preset meta-world; the paper's are the best of a "
        "running average over checkpoints, which is higher.",
        "With few seeds a bootstrap interval is too narrow.",
    ),
)
