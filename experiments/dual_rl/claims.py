"""What Dual RL runs and claims; `python -m experiments.reproduce --paper=dual_rl` reads it.

Presets:
  quick             offline RL from rewards: a medium-replay set and a maze, 5 seeds, 30,000 updates.
  quick-imitation   few hidden expert episodes among random data, 1 demonstration, 3 seeds, 10,000 updates.
  stability         how the loss of V behaves: five losses, two batch sizes, two temperatures, 5 seeds.
  paper             the six medium and medium-replay sets, 5 seeds, the authors' settings and lengths.
  paper-imitation   all settings of configs/dual_rl.py, 5 seeds, 1,000,000 updates.
  tiny              two methods for seconds: what the tests run. tiny-stability: two losses likewise.

What was asked of each claim before its rule and setting were fixed, with pilots on seeds from 100 on:

- Offline: TV and chi2 swept over the paper's lambdas on walker2d-medium and hopper-medium-expert, which judge nothing,
  show no order between 0.6 and 0.95 beyond their swings from one evaluation to the next (10,000 updates, 10 and 20
  episodes), so lambda is the 0.8 of the authors' examples. Because of the swings a score is the mean of the last three
  evaluations. The narrow medium sets judge nothing: there a policy that clones is as good as one that learns. Nor do
  the tasks that end with a fall: on hopper-medium-replay no method of this project is clearly above the behaviour
  policy after 20,000 updates, and on walker2d-medium-replay total variation passes cloning after 50,000 only (seed
  100), which is too long for a CPU; `paper` has both. An edition before this one ran 20,000 updates on Hopper,
  HalfCheetah and Walker2d: all six claims failed by the first and the last. In the maze, where only stitching reaches
  the goal, total variation scored 55, 52, 39, 35 and chi2 84, 60, 148, 136 from 12,500 to 20,000 updates (mean of seeds
  100 and 101, 100,000 steps of data) where cloning is at 0. The claims against XQL and IQL are the paper's own, of
  equality. Base seed 20: HalfCheetah's seeds 0 to 4 have been seen. A first run had
  seeds 20 to 22 alone and passed all six.
- Imitation: one demonstration of a deterministic expert is enough to clone it, so nothing is claimed against BC on the
  demonstration. ReCOIL in its authors' form had 8 and 15 after 10,000 updates of batch 1024 (2 seeds, hopper), and 4 to
  13 with temperatures 0.03 to 0.3 and gumbel_beta 1 or 5 in the place of 3 and 5: neither the batch nor the cap of the
  weights is what is missing. Its claims wait for the authors' length, 1,000,000 updates. ReCOIL-V was ahead of all in
  runs of the first edition of the sets; it is claimed here on other sets and on seeds that these did not use.
- Stability: the paper's point is that the exponential loss blows up where a linear or quadratic one does not. At the
  greediest temperature and batch 16 the loss of V passes 1e12 in XQL as stated and stays at 0.12 in f-DVL (2 seeds). No
  loss makes Q diverge in 3000 updates; the share of stable runs beside it counts too whether all updates and losses
  are finite.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.dual_rl import IMITATION, OFFLINE, SETTINGS, STABILITY
from experiments.dual_rl.published import SIKCHI
from rl_jax.control.stability import STABLE
from rl_jax.control.tasks import SCORE
from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import better_by, better_than, elsewhere, not_worse_than, within_or_better
from rl_jax.reports.declaration import Paper, Preset, Reference, Run, grid
from rl_jax.reports.figures import curves_of
from rl_jax.reports.measures import derived, mean_of_last

LABELS = {
    "bc": "BC", "iql": "IQL", "xql": "XQL", "fdvl_tv": "f-DVL (TV)", "fdvl_chi2": "f-DVL (chi2)",
    "fdvl_chi2_coded": "f-DVL (chi2 as coded)", "bc_expert": "BC on the demonstration", "smodice": "SMODICE",
    "oril": "ORIL", "iq_learn": "IQ-Learn", "recoil": "ReCOIL", "recoil_objective": "ReCOIL (as stated)",
    "recoil_v": "ReCOIL-V", "xql_unclipped": "XQL without clip", "xql_raw": "XQL as stated (no clip, no scale)",
}
FDVL = ("fdvl_tv", "fdvl_chi2")
IMITATORS = ("bc", *(method for method in IMITATION if method != "bc_all"))  # "bc" clones everything
QUICK_OFFLINE = ("bc", "iql", "xql", *FDVL)
QUICK_IMITATORS = tuple(method for method in IMITATORS if method != "recoil_objective")

QUICK_SETS = ("halfcheetah-medium-replay", "pointmaze-umaze")
PAPER_SETS = tuple(
    f"{task}-{level}" for task in ("hopper", "halfcheetah", "walker2d") for level in ("medium", "medium-replay")
)
QUICK_SETTINGS = ("hopper-random-with-few-expert", "walker2d-random-with-few-expert")

COMMON = {"num_seeds": 3, "batch_size": 256, "dataset.num_steps": 200_000, "eval_episodes": 10, "tensorboard": False}
QUICK = COMMON | {
    "num_seeds": 5, "num_steps": 30_000, "loop.eval_every": 5000, "checkpoint.every": 30_000, "seed": 20,
}
# Of 1,000,000 random steps the paper's 30 episodes are 3%; so are 6 of 200,000.
QUICK_IMITATION = COMMON | {
    "num_steps": 10_000, "loop.eval_every": 2500, "checkpoint.every": 10_000, "expert.hidden": 6,
    "expert.num_steps": 20_000, "seed": 10,
}
PAPER_SCALE = {"num_seeds": 5, "tensorboard": False}

BATCH_SIZES = (16, 256)
# Temperatures of XQL and of f-DVL, the greediest first.
TEMPERATURES = {"xql": ("agent.beta", (0.1, 2.0)), "fdvl": ("agent.lam", (0.95, 0.6))}
# A run that has diverged once counts as diverged from then on.
STAYS_STABLE = derived(STABLE, lambda stable: np.minimum.accumulate(stable, axis=0), STABLE)
MEAN_Q, VALUE_LOSS = Metric("eval/log10_mean_q", "log10 of mean Q"), Metric("eval/value_loss", "loss of V", "lower")
LARGEST_LOSS = derived(
    Metric("eval/largest_loss", "log10 of V's loss", "lower"),
    lambda loss: np.log10(np.maximum(np.maximum.accumulate(np.abs(loss), axis=0), 1e-6)), VALUE_LOSS,
)
LOSSES = tuple(arm for arm in STABILITY if arm != "fdvl_chi2_coded")
GREEDIEST = tuple(f"batch-{size}-1" for size in BATCH_SIZES)


def runs(methods: Sequence[str], tasks: Sequence[str], common: Mapping[str, Any], **presets: str) -> tuple[Run, ...]:
    return grid(methods, tasks, module="experiments.dual_rl.train", config="configs/dual_rl.py:{method}/{task}",
                common=common, presets=presets)


def offline(methods: Sequence[str], sets: Sequence[str], common: Mapping[str, Any]) -> Preset:
    return Preset(
        runs(methods, sets, common),
        tuple(claim for method in FDVL
              for claim in (better_than(method, "bc"), not_worse_than(method, "xql", 5.0, published=SIKCHI),
                            within_or_better(method, "iql"))),
        measure=mean_of_last(SCORE, 3),
    )


def imitation(
    methods: Sequence[str], settings: Sequence[str], common: Mapping[str, Any], long_enough: bool = False
) -> Preset:
    """`long_enough`: for ReCOIL."""
    rivals = ("bc", "smodice", "oril")
    recoil = [better_than("recoil", rival) for rival in rivals]
    if not long_enough:
        recoil = [elsewhere(claim, "needs its authors' 1,000,000 updates: `paper-imitation`") for claim in recoil]
    claims = (*(better_than("recoil_v", rival) for rival in (*rivals, "iq_learn")), *recoil)
    return Preset(runs(methods, settings, common, bc="bc_all"), claims)


def stability() -> Preset:
    def losses(size: int, number: int) -> tuple[Run, ...]:
        fields = {arm: TEMPERATURES[arm.partition("_")[0]] for arm in LOSSES}
        return grid(
            LOSSES, (f"batch-{size}-{number + 1}",), module="experiments.dual_rl.train",
            config="configs/dual_rl.py:stability/{method}", common={"tensorboard": False, "batch_size": size},
            by_method={arm: {field: values[number]} for arm, (field, values) in fields.items()},
        )

    made = sum((losses(size, number) for size in BATCH_SIZES for number in range(2)), ())
    claims = tuple(
        better_by(method, "xql_raw", 1.0, measure=LARGEST_LOSS, tasks=GREEDIEST,
                  text=f"At the greediest temperature {{{method}}} keeps its loss of V ten times below {{xql_raw}}'s")
        for method in FDVL
    )
    figures = {"largest_loss.png": curves_of(LARGEST_LOSS), "mean_q.png": curves_of(MEAN_Q)}
    return Preset(made, claims, measure=STAYS_STABLE, beside=(MEAN_Q, VALUE_LOSS), figures=figures)


def tiny() -> Preset:
    made = grid(("bc", "fdvl_tv"), ("hopper-medium",), module="experiments.dual_rl.train",
                config="configs/dual_rl.py:tiny-{method}", common={"tensorboard": False})
    return Preset(made, (better_than("fdvl_tv", "bc"),))


def tiny_stability() -> Preset:
    made = grid(("fdvl_tv", "xql_raw"), ("batch-32-1",), module="experiments.dual_rl.train",
                config="configs/dual_rl.py:tiny-stability/{method}", common={"tensorboard": False})
    return Preset(made, (better_by("fdvl_tv", "xql_raw"),), measure=STAYS_STABLE, beside=(MEAN_Q, VALUE_LOSS))


PAPER = Paper(
    title="Dual RL",
    labels=LABELS,
    baseline="bc",
    measure=SCORE,
    reference=Reference("behaviour_score", "behaviour policy"),
    presets={
        "quick": lambda: offline(QUICK_OFFLINE, QUICK_SETS, QUICK),
        "quick-imitation": lambda: imitation(QUICK_IMITATORS, QUICK_SETTINGS, QUICK_IMITATION),
        "stability": stability,
        "paper": lambda: offline(tuple(OFFLINE), PAPER_SETS, PAPER_SCALE),
        "paper-imitation": lambda: imitation(IMITATORS, tuple(SETTINGS), PAPER_SCALE, long_enough=True),
        "tiny": tiny,
        "tiny-stability": tiny_stability,
    },
    published=(SIKCHI,),
    notes=(
        "Scores are D4RL's normalised ones: 0 is a random policy, 100 an expert. The data are the `locomotion` sets, "
        "which carry D4RL's names and are other data: no number here can be compared with one on D4RL.",
        "In the preset `stability` a task is a batch size and the first or second temperature (XQL's beta 0.1, 2; "
        "f-DVL's lambda 0.95, 0.6: the greediest first), and a score the percentage of seeds that have not diverged.",
        "With few seeds a bootstrap interval is too narrow.",
    ),
)
