"""What SCOPE-RL runs and claims; `python -m experiments.reproduce --paper=scope_rl` reads it.

Presets:
  quick   the tabular study with exact values and visitations, with Q too large by 1, and with 200 trajectories in the
          place of 2,000: 3 times 600 repetitions.
  tiny    seconds: what the tests run.

What was asked of each claim before its rule and setting were fixed, by pilots on seeds from 100 on:

- Tabular: values and visitations are exact, so the data can show everything but the tails of importance weights. With
  policies that are a half uniform TIS's RMSE varies by 40% from one 300 repetitions to the next, as the error of few
  trajectories with large weights does; with 70%, the setting, by 5%. That its error grows with 1 / sqrt(n) (3.16 from
  2,000 to 200) could then be seen: 3.2 to 3.6. RMSE(DR) is a fifth of PDIS's and that a third of TIS's; the bias of DR
  with a wrong Q has a standard error of 0.004 at 300 repetitions; medians of CD-SNTIS were 2% off.
"""

import numpy as np

from rl_jax.control.tabular_evaluation import COMPARED, RMSE
from rl_jax.core.experiment import Metric
from rl_jax.evaluation.off_policy.estimators import ESTIMATORS
from rl_jax.reports.claims import better_by, reaches, within
from rl_jax.reports.declaration import Paper, Preset, grid
from rl_jax.reports.measures import derived, log10, ratio

LABELS = {"exact": "exact Q, 2,000 trajectories", "biased": "Q + 1, 2,000 trajectories", "few": "exact Q, 200"}


def label(name: str) -> str:
    return ESTIMATORS[name].label if name in ESTIMATORS else name.upper().replace("_", "-")


def rmse(name: str) -> Metric:
    return Metric(f"eval/rmse/{name}", f"RMSE of {label(name)}", "lower")


def ratio_of(one: str, other: str, kind: str = "rmse", words: str = "RMSE"):
    metric = Metric("eval/ratio", f"{words} of {label(one)} over {label(other)}'s", "lower")
    return ratio(Metric(f"eval/{kind}/{one}", ""), Metric(f"eval/{kind}/{other}", ""), metric)


def absolute(name: str, words: str) -> Metric:
    return derived(Metric(f"eval/absolute/{name}", words, "lower"), np.abs, name)


def tabular(task: str, preset: str, common: dict) -> Preset:
    runs = grid(tuple(LABELS), (task,), module="experiments.scope_rl.train", config=preset, common=common)
    tis = log10(Metric("eval/rmse/tis", "RMSE of TIS", "lower"))
    return Preset(
        runs,
        (
            reaches("exact", 1.0, measure=ratio_of("dr", "pdis"), name="dr_below_pdis",
                    text="DR has a smaller error than PDIS"),
            reaches("exact", 1.0, measure=ratio_of("pdis", "tis"), name="pdis_below_tis",
                    text="PDIS has a smaller error than TIS"),
            reaches("biased", 0.1, by="every", measure=absolute("bias/dr", "absolute bias of DR"), name="dr_unbiased",
                    text="With Q too large by 1 DR has no bias to speak of ..."),
            within("biased", 0.9, 1.1, measure=absolute("bias/dm", "absolute bias of DM"), name="dm_biased",
                   text="... and DM the whole one"),
            reaches("exact", 1.0, measure=ratio_of("snpdis", "pdis", "std", "deviation"), name="snpdis_varies_less",
                    text="SNPDIS varies less than PDIS"),
            better_by("exact", "few", float(np.log10(3.0)), by="mean", measure=tis, name="tis_grows",
                      text="TIS's error grows at least threefold from 2,000 to 200 trajectories"),
            reaches("exact", 0.05, by="every", name="median_found",
                    measure=Metric("eval/median_error/cd_sntis", "relative error of CD-SNTIS's median", "lower"),
                    text="The median of the returns is found within 5%"),
        ),
        measure=RMSE,
        beside=tuple(rmse(name) for name in COMPARED if name != "dr"),
    )


def tiny() -> Preset:
    runs = grid(("exact", "biased"), ("random MDP",), module="experiments.scope_rl.train",
                config="configs/scope_rl.py:tiny", by_method={"biased": {"q_error": 1.0}})
    return Preset(runs, (better_by("exact", "biased", measure=rmse("dm"), text="{exact} is better for DM"),))


PAPER = Paper(
    title="SCOPE-RL",
    labels=LABELS,
    baseline="biased",
    measure=RMSE,
    presets={
        "quick": lambda: tabular("random MDP", "configs/scope_rl.py:tabular/{method}", {}),
        "paper": lambda: tabular("random MDP", "configs/scope_rl.py:tabular/{method}", {"num_seeds": 10}),
        "tiny": tiny,
    },
)
