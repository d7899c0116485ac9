"""What the paper on offline RL with observation histories runs and claims.

Presets:
  quick    four agents on 50, 200 and 1000 episodes of the stitching gridworld, IQL with and without the loss on 50:
           5 seeds.
  few      of it the four agents on 50 episodes.
  wordle   ILQL with and without the loss and filtered cloning in Wordle with 200 words, 3 seeds.
  paper    the gridworld on 50 episodes with the authors' numbers of updates.
  tiny     seconds: what the tests run.

What was asked of each claim, by pilots on seed 100 and on episodes of seed 100, which no result uses, one seed each:

Can the data show it. CQL that sees the state succeeds always after 500 updates, so the crossing is enough to stitch at.
Long enough. With alpha 0.05 CQL on 50 episodes succeeds in 0.10, 0.40 and 0.48 after 500, 1000 and 1500 updates, and
with the loss (eta 0.1) in 0.16, 0.44 and 0.30, while L_bis is 4.2 and 0.008. With alpha 0.3 both fall, from 0.26 to
0.09 and, with eta 1, from 0.41 to 0.10: Q becomes the data's policy, which knows start A from start B. With alpha 1 CQL
on 200 episodes stays below 0.02, and with eta 1 it is at 0.43 after 500 updates and at 0.07 after 1500. So alpha is
0.05. Distances under all actions alike do no better (0.44 and 0.22 at alpha 0.3). Strong enough is not known: one seed
moves by 0.2 from one evaluation to the next, hence the mean of the last three, but a gain of 0.1 may need more than
five seeds. Success on 200 and 1000 episodes, IQL and Wordle were not piloted.
"""

from collections.abc import Sequence

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import (
    advantage_shrinks,
    all_of,
    better_by,
    close_to,
    correlates_over_evaluations,
    elsewhere,
)
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid
from rl_jax.reports.figures import across_tasks, curves_of, over_evaluations
from rl_jax.reports.measures import mean_of_last

LABELS = {
    "oracle": "CQL that sees the state", "cql_bisim": "CQL + bisimulation", "cql": "CQL",
    "iql_bisim": "IQL + bisimulation", "iql": "IQL", "bc": "filtered cloning",
    "ilql_bisim": "ILQL + bisimulation", "ilql": "ILQL",
}
SUCCESS = Metric("eval/success", "success")
RETURN = Metric("eval/return", "return")
LOSS = Metric("eval/bisimulation_loss", "bisimulation loss", "lower")
VARIANCE = Metric("eval/latent_variance", "variance of z")
MODULE, CONFIG = "experiments.obs_history.train", "configs/obs_history.py:{method}/{task}"
MEMORY = ("cql", "cql_bisim", "iql", "iql_bisim")  # what learns values of histories
SIZES = ("n50", "n200", "n1000")
LAST = mean_of_last(SUCCESS, 3)


FIGURES = {
    "success.png": across_tasks(x_label="episodes of data"),
    "loss.png": over_evaluations(LOSS, SUCCESS, MEMORY, log_x=True), "curves.png": curves_of(SUCCESS),
}


def gridworld(sizes: Sequence[str]) -> tuple[tuple[Run, ...], tuple[Claim, ...]]:
    """Runs on these numbers of episodes, and the claims that any of them can decide."""
    both = ("cql_bisim", "cql")
    return grid((*both, "oracle", "bc"), sizes, module=MODULE, config=CONFIG), (
        better_by("cql_bisim", "cql", 0.1, by="mean", tasks=("n50",),
                  text="{cql_bisim} succeeds more often than {cql} by 0.1"),
        all_of([better_by("oracle", method, by="mean") for method in both],
               text="{oracle} is above both"),
        better_by("cql_bisim", "bc", 0.2, by="mean", text="{cql_bisim} succeeds more often than {bc} by 0.2"),
        correlates_over_evaluations(both, LOSS, SUCCESS, 0.4),
    )


def quick() -> Preset:
    runs, claims = gridworld(SIZES)
    runs += grid(("iql_bisim", "iql"), SIZES[:1], module=MODULE, config=CONFIG)
    claims += (
        advantage_shrinks("cql_bisim", "cql", "n50", "n1000"),
        better_by("iql_bisim", "iql", by="mean", tasks=("n50",)),
    )
    return Preset(runs, claims, measure=LAST, beside=(LOSS, VARIANCE))


def few() -> Preset:
    figures = {"curves.png": curves_of(SUCCESS), "loss.png": FIGURES["loss.png"]}
    return Preset(*gridworld(SIZES[:1]), measure=LAST, beside=(LOSS, VARIANCE), figures=figures)


def wordle() -> Preset:
    runs = grid(("ilql_bisim", "ilql", "bc"), ("wordle",), module=MODULE, config=CONFIG)
    return Preset(
        runs,
        (
            better_by("ilql", "bc", by="mean", text="{ilql} returns more than {bc}"),
            close_to("ilql_bisim", "ilql", 0.5, text="{ilql_bisim} and {ilql} are about equal"),
        ),
        measure=mean_of_last(RETURN, 3),
        beside=(LOSS, VARIANCE, SUCCESS),
        figures={"curves.png": curves_of()},
    )


def paper() -> Preset:
    runs = grid(("cql_bisim", "cql", "oracle", "bc"), ("n50",), module=MODULE,
                config="configs/obs_history.py:paper/{method}")
    return Preset(
        runs, (better_by("cql_bisim", "cql", 0.1, by="mean"), elsewhere(
            better_by("cql_bisim", "cql", by="mean", name="vizdoom", text="In VizDoom {cql_bisim} and {cql} are level"),
            "VizDoom is not built in",
        )), measure=LAST, beside=(LOSS, VARIANCE),
    )


def tiny() -> Preset:
    runs = grid(("cql_bisim", "cql"), ("n10",), module=MODULE, config="configs/obs_history.py:tiny-{method}")
    return Preset(runs, (better_by("cql_bisim", "cql", by="mean"),), measure=SUCCESS, beside=(LOSS,))


PAPER = Paper(
    title="Offline RL with observation histories",
    labels=LABELS,
    baseline="cql",
    measure=LAST,
    presets={"quick": quick, "few": few, "wordle": wordle, "paper": paper, "tiny": tiny},
    notes=("The authors' numbers and code are not public in a form that can stand beside these: none are quoted.",),
    figures=FIGURES,
)
