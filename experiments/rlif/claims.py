"""What RLIF runs and claims; `python -m experiments.reproduce --paper=rlif` reads it.

Presets:
  quick   RLIF and the ways to clone beside weak and strong experts of Pendulum and Reacher, and the weak expert who
          decides by its own Q, 3 seeds, 8,000 steps of the task each; the reference Qs are fitted first.
          About 20 minutes of CPU time.
  paper   RLIF, DAgger and cloning in Hopper at the authors' lengths, 5 seeds: for an accelerator.
  tiny    seconds: what the tests run.

What was asked of each claim before its rule was fixed, by one pilot on seed 100 of 5,000 steps (three episodes each):

- Can the data show it? The weak expert's mode is at 71, a random policy at 0 and the strong expert at 100, so there is
  room of 29 above the weak one, and a clone of it is at most there. RLIF had -18, 32, 15, 4, 109 every 1,000 steps, and
  the expert's share of its steps fell from 0.50 to 0.29; it cannot fall below 0.17, as one decision in twenty is wrong.
- Is it long enough? The pilot swings at its end, so it is not. The runs are of 8,000 steps, which no pilot has tried,
  and a score is the mean of the last three of eight evaluations.
- Is it strong enough? With 3 seeds and swings of that size only a mean over seeds is judged, of 10 episodes an
  evaluation.
- Claims about Reacher, strong experts, random interventions and the expert's own Q had no pilot: of these none of the
  three questions was answered beforehand, and their lengths, thresholds and seeds are those of Pendulum's weak expert.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.rlif.figure import RATE, draw_interventions
from rl_jax.control.interactive import ERROR
from rl_jax.control.tasks import SCORE
from rl_jax.reports.claims import better_by, changes_by, elsewhere, reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Reference, Run, grid
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
AT_WEAK = ("rlif", "hg_dagger", "dagger", "bc", "rlif_random", "dagger_85")
AT_STRONG = ("rlif", "dagger", "bc")
LATE = mean_of_last(SCORE, 3)
FIGURES = {"interventions.png": draw_interventions, "curves.png": draw_curves}
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


def claims_at_weak(task: str) -> list[Claim]:
    """With a weak expert."""
    tasks = (f"{task}-weak",)
    return [
        better_by("rlif", "hg_dagger", 15.0, by="mean", tasks=tasks),
        reaches("rlif", EXPERT, by="mean", tasks=tasks),
        changes_by("rlif", RATE, 0.5, relative=True, by="mean", tasks=tasks),
        better_by("rlif", "rlif_random", 0.0, by="mean", tasks=tasks),
    ]


def claim_at_strong(task: str) -> Claim:
    return better_by(
        "rlif", "dagger", -10.0, by="mean", tasks=(f"{task}-strong",), name=f"rlif_near_dagger_on_{task}",
        text=f"{{rlif}} at most 10 points behind {{dagger}} with a strong expert, on {task}",
    )


def quick() -> Preset:
    runs = references(TASKS) + references(TASKS[:1], "own_reference")
    runs += sum((beside(task, "weak", AT_WEAK) + beside(task, "strong", AT_STRONG) for task in TASKS), ())
    runs += beside(TASKS[0], "weak", ("rlif_own_reference",), reference="own_reference")
    claims = sum(([*claims_at_weak(task), claim_at_strong(task)] for task in TASKS), [])
    claims.append(better_by(
        "rlif_own_reference", "hg_dagger", 15.0, by="mean", tasks=WEAK[:1], name="own_reference",
        text="The same where the weak expert decides by its own Q, which may fail: {rlif_own_reference} better than "
             "{hg_dagger}",
    ))
    measures = {run.task: ERROR if run.task.endswith("-q") else LATE for run in runs}
    return Preset(runs, tuple(claims), measure=measures, figures=FIGURES)


def paper() -> Preset:
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
    presets={"quick": quick, "paper": paper, "tiny": tiny},
    notes=(
        "Scores are 0 for a random policy (Pendulum) or the untrained one of the expert's training (Reacher), and 100 "
        "for the strong expert. One step of RLIF is one of the environment; DAgger and HG-DAgger take as many steps of "
        "it, in 20 rounds.",
        "The tasks *-q are fits of a reference Q, whose score is its error in percent of its range.",
        "With few seeds a bootstrap interval is too narrow.",
    ),
)
