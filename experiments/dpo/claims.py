"""What DPO and its kin run and claim; `python -m experiments.reproduce --paper=dpo` reads it.

Presets:
  quick     DPO and NCA from stories260k on the pairs of HH-RLHF (harmless), 3 seeds, 200 updates: minutes on CPU cores.
  losses    all losses, 500 updates: the same on a GPU, or hours.
  smollm2   DPO, KTO and NCA of SmolLM2 by adapters on dpo_en, 3 seeds: for a GPU.
  tiny      seconds: for tests.

The implicit margin is beta times how much more the log ratio to the reference has grown for the chosen answer than for
the rejected one; it and accuracy, how often it is positive (1/2 before training), are of held-out prompts. A margin can
rise while both answers become less likely: the log-prob of the chosen stands beside.

What was asked of the claims before `quick` had its length, by a pilot of DPO on seed 100: accuracy on the 255 held-out
prompts is 0.48 after 50 and 0.545 after 100 updates, when the margin is 0.47 from 0: 200 can show that both rise. The
log-prob of the chosen has fallen by 8.6 nats by then, and by 1.8 in a run of NCA.
"""

from collections.abc import Sequence

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import better_by, changes_by
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid
from rl_jax.reports.figures import curves_of

ACCURACY = Metric("eval/accuracy", "held-out accuracy of the implicit reward")
MARGIN = Metric("eval/margin", "implicit margin")
CHOSEN = Metric("eval/chosen_log_prob", "log-prob of the chosen", unit="nats an answer")
REJECTED = Metric("eval/rejected_log_prob", "log-prob of the rejected", "lower", "nats an answer")
LABELS = {"dpo": "DPO", "cdpo": "cDPO", "ipo": "IPO", "nca": "NCA", "kto": "KTO", "orpo": "ORPO", "simpo": "SimPO"}
MODULE = "experiments.dpo.train"
COMMON = {"num_seeds": 3, "tensorboard": False}
BESIDE = (MARGIN, CHOSEN, REJECTED)


def learns(method: str) -> tuple[Claim, Claim]:
    return (
        changes_by(method, MARGIN, 0.0, by="interval", beside=(CHOSEN,)),
        changes_by(method, ACCURACY, 0.0, by="interval", beside=(CHOSEN,)),
    )


def keeps_the_chosen() -> Claim:
    return better_by("nca", "dpo", measure=CHOSEN, beside=(MARGIN, ACCURACY), name="nca_keeps_the_chosen",
                     text="The chosen answers stay more likely under {nca} than under {dpo}")


def stories260k(methods: Sequence[str], num_steps: int) -> Preset:
    runs = grid(
        methods, ("hh_harmless",), module=MODULE, config="configs/dpo.py:{method}/stories260k/{task}",
        common=COMMON | {"num_steps": num_steps}, presets={"cdpo": "dpo"},
        by_method={"cdpo": {"agent.label_smoothing": 0.1}},
    )
    return Preset(runs, (*learns("dpo"), keeps_the_chosen()), beside=BESIDE)


def smollm2() -> Preset:
    runs = grid(("dpo", "kto", "nca"), ("dpo_en",), module=MODULE, config="configs/dpo.py:{method}/smollm2/{task}",
                common=COMMON)
    return Preset(runs, learns("dpo"), beside=BESIDE)


TINY = Run("dpo", "hh_harmless", MODULE, "configs/dpo.py:tiny", {"tensorboard": False})
PAPER = Paper(
    title="Direct preference optimisation",
    labels=LABELS,
    baseline="dpo",
    measure=ACCURACY,
    figures={"margin.png": curves_of(MARGIN), "chosen.png": curves_of(CHOSEN)},
    presets={
        "quick": lambda: stories260k(("dpo", "nca"), 200), "losses": lambda: stories260k(tuple(LABELS), 500),
        "smollm2": smollm2, "tiny": lambda: Preset((TINY,), learns("dpo"), beside=BESIDE),
    },
)
