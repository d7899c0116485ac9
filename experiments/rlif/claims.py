"""What RLIF runs and claims; `python -m experiments.reproduce --paper=rlif` reads it.

Presets:
  quick   RLIF and the ways to clone beside a weak and a strong expert of Pendulum and Reacher, 3 seeds, 10,000 steps of
          the task each; the reference Q of a value-based expert is fitted first.
  hopper  RLIF and DAgger in Hopper at the authors' lengths, 5 seeds: for an accelerator.
  tiny    seconds: what the tests run.

PLACEHOLDER
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.rlif.figure import RATE, draw_interventions
from rl_jax.control.interactive import ERROR
from rl_jax.control.tasks import SCORE
from rl_jax.reports.claims import better_by, changes_by, elsewhere, reaches
from rl_jax.reports.declaration import Paper, Preset, Reference, Run, grid
from rl_jax.reports.figures import draw_curves
from rl_jax.reports.measures import mean_of_last

LABELS = {
    "rlif": "RLIF", "hg_dagger": "HG-DAgger", "dagger": "DAgger", "bc": "BC", "rlif_random": "RLIF, random",
    "rlif_own_reference": "RLIF, the expert's own Q", "dagger_85": "DAgger, 85%", "reference": "reference Q",
    "own_reference": "Q of the weak expert",
}
EXPERT = Reference("expert_level", "the expert")
TASKS = ("pendulum", "reacher")
WEAK, STRONG = (tuple(f"{task}-{level}" for task in TASKS) for level in ("weak", "strong"))
AT_WEAK = ("rlif", "rlif_random", "hg_dagger", "dagger", "dagger_85", "bc")
AT_STRONG = ("rlif", "dagger", "bc")
TRAIN, CONFIG = "experiments.rlif.train", "configs/rlif.py:{method}/{task}"


def references(tasks: Sequence[str], method: str = "reference", common: Mapping[str, Any] = {}) -> tuple[Run, ...]:
    """The runs that fit a reference Q, as the tasks <task>-q."""
    names = {f"{task}-q": f"{task}-weak" for task in tasks}
    return grid((method,), tuple(names), module=TRAIN, config=CONFIG, presets=names, common=common)


def beside(
    task: str, level: str, methods: Sequence[str], common: Mapping[str, Any] = {}, reference: str = "reference"
) -> tuple[Run, ...]:
    """Methods beside one expert; those with a value-based expert need the run that fitted its reference Q."""
    runs = grid(methods, (f"{task}-{level}",), module=TRAIN, config=CONFIG, common=common)
    needs = {"intervention.reference": f"{reference}-{task}-q"}
    judges = ("rlif", "hg_dagger", "rlif_own_reference")
    return tuple(run._replace(needs=needs) if run.method in judges else run for run in runs)


def quick() -> Preset:
    runs = references(TASKS) + references(TASKS[:1], "own_reference")
    runs += sum((beside(task, "weak", AT_WEAK) + beside(task, "strong", AT_STRONG) for task in TASKS), ())
    runs += beside(TASKS[0], "weak", ("rlif_own_reference",), reference="own_reference")
    score = mean_of_last(SCORE, 3)
    measures = {run.task: ERROR if run.task.endswith("-q") else score for run in runs}
    claims = []
    for task in TASKS:
        weak, strong = (f"{task}-weak",), (f"{task}-strong",)
        claims += [
            better_by("rlif", "hg_dagger", 15.0, by="mean", tasks=weak),
            reaches("rlif", EXPERT, by="mean", tasks=weak, name="rlif_reaches_the_weak_expert"),
            better_by("rlif", "dagger", -10.0, by="mean", tasks=strong, name="rlif_near_dagger",
                      text="{rlif} at most 10 points behind {dagger} with a strong expert"),
            changes_by("rlif", RATE, 0.5, relative=True, by="mean", tasks=weak),
            better_by("rlif", "rlif_random", 0.0, by="mean", tasks=weak),
        ]
    claims.append(better_by(
        "rlif_own_reference", "hg_dagger", 15.0, by="mean", tasks=WEAK[:1], name="own_reference",
        text="The same where the weak expert decides by its own Q, which may fail: {rlif_own_reference} better than "
             "{hg_dagger}",
    ))
    return Preset(runs, tuple(claims), measure=measures,
                  figures={"interventions.png": draw_interventions, "curves.png": draw_curves})


def hopper() -> Preset:
    runs = references(("hopper",)) + beside("hopper", "weak", ("rlif", "dagger", "hg_dagger", "bc"), {"num_seeds": 5})
    measures = {run.task: ERROR if run.task.endswith("-q") else SCORE for run in runs}
    claim = better_by("rlif", "hg_dagger", 15.0, tasks=("hopper-weak",))
    return Preset(runs, (elsewhere(claim, "needs an accelerator: 1,000,000 steps with 15 updates each"),),
                  measure=measures, figures={"interventions.png": draw_interventions})


def tiny() -> Preset:
    runs = grid(("reference",), ("pendulum-q",), module=TRAIN, config="configs/rlif.py:tiny-reference")
    runs += grid(("rlif", "dagger"), ("pendulum-weak",), module=TRAIN, config="configs/rlif.py:tiny-{method}")
    return Preset(runs, (better_by("rlif", "dagger", tasks=WEAK[:1]),),
                  measure={"pendulum-q": ERROR, "pendulum-weak": SCORE},
                  figures={"interventions.png": draw_interventions})


PAPER = Paper(
    title="RLIF",
    labels=LABELS,
    baseline="hg_dagger",
    measure=SCORE,
    reference=EXPERT,
    presets={"quick": quick, "hopper": hopper, "tiny": tiny},
    notes=(
        "Scores are 0 for a random policy (Pendulum) or the untrained one of the expert's training (Reacher), and 100 "
        "for the strong expert. One step of RLIF is one of the environment; DAgger and HG-DAgger take as many steps of "
        "it, in 20 rounds.",
        "The tasks *-q are fits of a reference Q, whose score is its error.",
        "With few seeds a bootstrap interval is too narrow.",
    ),
)
