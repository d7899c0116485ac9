"""What the paper on offline RL with observation histories runs and claims.

Presets:
  quick    CQL with and without the loss on three sets of 50 episodes of the stitching gridworld and on one of 200 and
           of 1000; on the sets of 50 also CQL that sees the state and filtered cloning: 3 seeds. The sets of 50 are
           tasks, n50a to n50c, so that an interval over them is one over data, which seeds share.
  iql      IQL with and without the loss on the sets of 50.
  wordle   ILQL with and without the loss and filtered cloning in Wordle with 50 words, 2 seeds.
  paper    the gridworld on 50 episodes with the authors' numbers of updates.
  vizdoom  VizDoom from pictures with and without the loss, and cloning: for one GPU, with the extra vizdoom.
  tiny     seconds: what the tests run.

What was asked of each claim, by pilots on seed 100 and on episodes of seed 100, which no result uses, one seed each. No
pilot stands behind IQL, 1000 episodes, or Wordle's 2,000 updates: there the longest pilot had 1,000, and 600 with the
words that the results have.

Can the data show it. CQL that sees the state succeeds in 0.97 after 750 updates on 50 episodes, so the crossing is
enough to stitch at. The right goal has to be shown alike at both starts: as a sign of A's own, which it was in the
first version, no episode says what it means, and 0.5 is the most that any learner can expect. It is still hard to
remember: on 50 and on 200 episodes policies get to the right goal in 0.6 and to the wrong one in 0.35 from start B too,
where nothing has to be stitched. So `any_goal` and `from_b` stand beside the success.
Long enough. Success after 500, 1000 and 1500 updates is, on 50 episodes, 0.11, 0.53 and 0.23 for CQL and 0.29, 0.52 and
0.32 with the loss (alpha 0.05, eta 0.1, tau 0.02). On 200 episodes it is after 1000 and 2000 updates 0.06 and 0.00 for
CQL, and 0.49 and 0.07 with the loss: in the end Q becomes the data's policy, which knows start A from start B. With
alpha 0.3 it is so from the beginning (0.07 on 50 episodes). So 1500 updates, and the mean of the last two evaluations.
Strong enough. One seed moves by 0.2 from one evaluation to the next, and on 50 episodes the pilots show no gain of 0.1;
on 200 they show one. Three sets of 50 episodes with three seeds each are what two CPU cores can afford, and an interval
over three sets is wide. IQL is a preset of its own for lack of time: it was taken out of `quick` when the other runs
were done, before any of its own.

Wordle, by the same questions. A policy has to spell first, and with 200 words it does not learn to: cloning of the best
games is at 1.31 nats a letter after 1,000 updates, with three times the rate at 1.52 after 500, where the first guess
alone is worth 1.06, and 1 in 200 of its games is solved. With 50 words, whose first guess is worth 0.78, and that rate
cloning is at 0.85 after 300 updates, and ILQL at 0.79 after 600, with 10% of its games solved. So there are 50 words,
and 2,000 updates, which two cores can afford, with a target as fast as the gridworld's. Players return -3.4 on the mean
and -1.5 in the games that cloning keeps: there is room both ways. Two seeds do not say how far apart two agents are, so
that "about equal" may fail for want of seeds.
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
ANY_GOAL = Metric("eval/any_goal", "gets to either goal")
FROM_B = Metric("eval/from_b", "success from start B")
MODULE, CONFIG = "experiments.obs_history.train", "configs/obs_history.py:{method}/{task}"
MEMORY = ("cql", "cql_bisim", "iql", "iql_bisim")  # what learns values of histories
SMALL = ("n50a", "n50b", "n50c")
LARGER = ("n200", "n1000")
DATA = {name: {"data.seed": seed} for seed, name in enumerate(SMALL)}
LAST = mean_of_last(SUCCESS, 2)
BOTH, BESIDE = ("cql_bisim", "cql"), (ANY_GOAL, FROM_B, LOSS, VARIANCE)

FIGURES = {
    "curves.png": curves_of(SUCCESS), "success.png": across_tasks(x_label="data"),
    "loss.png": over_evaluations(LOSS, SUCCESS, MEMORY, log_x=True),
}


def on(methods: Sequence[str], tasks: Sequence[str]) -> tuple[Run, ...]:
    presets = {name: "n50" for name in SMALL}
    return grid(methods, tasks, module=MODULE, config=CONFIG, by_task=DATA, presets=presets)


def level_in_vizdoom() -> Claim:
    return close_to("cql_bisim", "cql", 0.1, name="vizdoom", text="in VizDoom {cql_bisim} and {cql} are about equal")


def on_few_episodes(tasks: Sequence[str]) -> tuple[Claim, ...]:
    """The claims that sets of 50 episodes decide, with intervals over sets."""
    about = {"by": "mean", "over": "tasks", "tasks": tasks}
    return (
        better_by("cql_bisim", "cql", 0.1, text="on 50 episodes {cql_bisim} succeeds more often than {cql} by 0.1",
                  **about),
        all_of([better_by("oracle", method, **about) for method in BOTH], text="on 50 episodes {oracle} is above both"),
        better_by("cql_bisim", "bc", 0.2, text="on 50 episodes {cql_bisim} succeeds more often than {bc} by 0.2",
                  **about),
        correlates_over_evaluations(BOTH, LOSS, SUCCESS, 0.4),
    )


def quick() -> Preset:
    claims = (
        *on_few_episodes(SMALL),
        advantage_shrinks("cql_bisim", "cql", SMALL, ("n1000",)),
        elsewhere(level_in_vizdoom(), "needs an accelerator: preset `vizdoom`"),
    )
    return Preset(on((*BOTH, "oracle", "bc"), SMALL) + on(BOTH, LARGER), claims, measure=LAST, beside=BESIDE)


def iql() -> Preset:
    claims = (better_by("iql_bisim", "iql", by="mean", over="tasks"),)
    return Preset(on(("iql_bisim", "iql"), SMALL), claims, measure=LAST, beside=BESIDE)


def wordle() -> Preset:
    runs = grid(("ilql_bisim", "ilql", "bc"), ("wordle",), module=MODULE, config=CONFIG)
    return Preset(
        runs,
        (
            better_by("ilql", "bc", by="mean", text="{ilql} returns more than {bc}"),
            close_to("ilql_bisim", "ilql", 0.5, text="{ilql_bisim} and {ilql} are about equal"),
        ),
        measure=mean_of_last(RETURN, 2),
        beside=(LOSS, VARIANCE, SUCCESS),
        figures={"curves.png": curves_of()},
    )


def paper() -> Preset:
    runs = grid(("cql_bisim", "cql", "oracle", "bc"), ("n50",), module=MODULE,
                config="configs/obs_history.py:paper/{method}")
    return Preset(
        runs, (better_by("cql_bisim", "cql", 0.1, by="mean"),), measure=LAST, beside=BESIDE
    )


def vizdoom() -> Preset:
    runs = grid(("cql_bisim", "cql", "bc"), ("my_way_home",), module=MODULE,
                config="configs/obs_history.py:paper/vizdoom-{method}")
    figures = {"curves.png": curves_of(SUCCESS)}
    return Preset(runs, (level_in_vizdoom(),), measure=LAST, beside=(LOSS, VARIANCE), figures=figures)


def tiny() -> Preset:
    runs = grid(("cql_bisim", "cql"), ("n10",), module=MODULE, config="configs/obs_history.py:tiny-{method}")
    return Preset(runs, (better_by("cql_bisim", "cql", by="mean"),), measure=SUCCESS, beside=(LOSS,))


PAPER = Paper(
    title="Offline RL with observation histories",
    labels=LABELS,
    baseline="cql",
    measure=LAST,
    presets={"quick": quick, "iql": iql, "wordle": wordle, "paper": paper, "vizdoom": vizdoom, "tiny": tiny},
    notes=("The authors' numbers and code are not public in a form that can stand beside these: none are quoted.",),
    figures=FIGURES,
)
