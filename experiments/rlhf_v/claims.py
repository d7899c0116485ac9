"""What RLHF-V runs and claims; `python -m experiments.reproduce --paper=rlhf_v` reads it.

Presets:
  quick     scenes without pixels, 5 seeds, each with a model of its own: minutes on CPU cores.
  wide      three of its arms with a wider model, larger batches, a lower rate and a beta of 8.
  nll       rankings, and what the likelihood of the chosen beside the loss does to them and to dense DPO; 5 seeds.
  gsm8k     corrections of one number in worked solutions, by stories260k, which learns the solutions first, 3 seeds:
            minutes on CPU cores.
  paper     the same by adapters of SmolLM2: for a GPU.
  tiny      seconds: for tests.

What was asked of the claims before rules and setting were fixed, by pilots of one seed, 100, with 200 pairs:

- The start: 600 updates of 64 descriptions, or 1,000 of 32, leave 0.38 and 0.37 of the mentions wrong where the
  demonstrator has 0.3, and dense DPO makes such a model no better than 0.28 before its answers fall apart. 2,000
  updates of 32 leave 0.305: this is the start.
- Rates of wrong mentions after 0, 100, 200, 300 and 400 updates of 16 pairs at 1e-4 and beta 0.5: ranking 0.31, 0.25,
  0.24, 0.30, 0.33; correction 0.31, 0.17, 0.26, 0.34, 0.43; dense 0.31, 0.18, 0.28, 0.37, 0.43; dense with beta 2
  0.31, 0.17, 0.19, 0.28, 0.32. At 3e-5 dense is at 0.24, 0.21, 0.18, 0.17 and correction at 0.24, 0.20, 0.18, 0.17:
  the same way three times as slowly, so that 1e-4 is long enough to show the collapse after the best point, at a
  quarter. Batches of 64 pairs, dense, at 3e-5 are at 0.22 after 100 updates and at 0.19 after 200.
- So what can be shown here is that corrections beat rankings early, by 0.07; that the chosen answer gains 1.0 nats
  with either weight on corrections and loses 2.4 under rankings after 100 updates; that a beta of 2 and a lower rate
  delay the collapse; and that style stays, with 0.000 nats under corrections and 0.019 under rankings.
- That gamma 5 is better than gamma 1, and that two thirds of the wrong mentions go, is not in these pilots, and was in
  other ones of a wider model (0.044 against 0.064 from 0.329, at 3e-5 and batches of 64): their rules are as they were
  written for those, 0.85 and 0.33, and may fail here. A guess was that Adam divides a gradient by its size, and that
  both directions are nearly one at first. The scores of `quick` bear it out as far as a policy tells: after 50 updates
  the chosen answer is the same to 0.04 nats in every seed for gamma 5 and 1, and to 0.10 for a beta of 2, which is four
  times the gradient, of a gain of 0.80. Gradients are not stored: their directions were not measured.
- n = 1,400 has the same rules: dense is at 0.17 and 0.22 after 100 and 200 updates, so that more pairs do not lower the
  best point. What the result has of it: after 50 updates, of 800 draws, corrections of either number are right on 0.99
  of held-out pairs. Rankings are right on 0.84 and 0.88, and their best point falls from 0.232 to 0.210. That more
  pairs keep the best point longer is not in the result: 0.34 at half with either number. NLL, the released script's
  setting and a beta of 2 without dense weights were not piloted.
- Strong enough? No pilot had more than one seed, so this was asked of the results, of 5 paired seeds. In `quick` the
  interval of dense against plain at half reaches 0.014 from its mean, and 0.071 is asked (log10); those of the rates at
  a quarter and at the end reach 0.01 to 0.02, against rankings at half 0.05, where the difference is -0.05; and beta,
  rate and likelihood make 0.04 to 0.26. In `wide` dense against plain at half has -0.001 to 0.071: as wide as the
  effect that is asked, which 5 seeds do not decide.
- After the result one more pilot, on seed 101, of the setting of those other pilots: a width of 64, a start of 4,000
  updates at 2e-3 (0.297), batches of 64 pairs, a rate of 3e-5. After 0, 50, 100, 150, 200 and 400 updates dense is at
  0.30, 0.24, 0.19, 0.21, 0.24 and 0.33, correction at 0.30, 0.24, 0.18, 0.20, 0.24 and 0.31: it collapses too, both
  weights go the same way, and neither comes near 0.05. With a beta of 8 it is another picture: dense is at 0.19, 0.16,
  0.16 and 0.16 after 100, 150, 200 and 400 updates, correction at 0.18, 0.18, 0.18 and 0.25, and the chosen answer
  gains 1.2 nats by 100. There gamma keeps what was learnt, and after all updates dense has 0.66 of the wrong mentions
  of correction, after half 0.91. This is the setting of `wide`, whose claims are those of `quick` with the same rules,
  and 0.85 also at the end, where the pilot shows it; rankings had no pilot there.
- `nll`: a pilot on seed 100, whose start has 0.36 of its mentions wrong. After 50, 100, 200 and 400 updates rankings
  are at 0.28, 0.27, 0.33 and 0.43, with NLL of the chosen at 0.28, 0.23, 0.23 and 0.22; the chosen answer is at -5.9
  nats from its start after 200 without it and at -2.1 with it. So this data shows both claims, the first by 0.2 where
  intervals of `quick` reach 0.05, and is long enough: without NLL the collapse is there at half. Dense DPO with NLL is
  at 0.25, 0.23 and 0.22 after 50, 100 and 200, as far as rankings with it, which is no claim.
- `gsm8k`: a pilot from stories260k as it is, which has never read a number, was at 0.57 of the right numbers and after
  30 updates at 0.51, and lost 50 nats of the chosen: nothing was learnt. Therefore the model learns the solutions
  first, as the authors' model answers visual questions first, and the rate is 3e-5. A pilot of that way, with half of
  the start's updates, was at 0.664 of the right numbers and after 30 and 60 updates at 0.664 and 0.671, one pair more,
  and held-out answers lost 30 nats: the start knows the 212 solutions by heart (-66 nats each, held-out ones -205), and
  they are what is corrected. So this setting cannot show the claim, and there is no result of it; change the start, and
  pilot that, before there is one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.rlhf_v.published import PUBLISHED
from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import all_of, better_by, changes_by, elsewhere, reaches, within
from rl_jax.reports.declaration import Claim, Paper, Preset, Run
from rl_jax.reports.figures import curves_of
from rl_jax.reports.measures import (
    Curve,
    Evaluations,
    Measure,
    Values,
    as_curve,
    derived,
    final,
    log10,
)
from rl_jax.reports.plots import plot_curves
from rl_jax.reports.scores import Scores

MODULE = "experiments.rlhf_v.train"
MANY = 1400  # pairs of the paper; 200 is its other number
BETA, SLOW = {"agent.beta": 2.0}, {"agent.learning_rate": 3e-5}
# Method -> (preset, overrides, what a table calls it).
ARMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "ranking": ("ranking", {}, "ranking DPO"),
    "correction": ("correction", {}, "correction DPO"),
    "ddpo": ("ddpo", {}, "dense DPO"),
    "correction_beta2": ("correction", BETA, "correction DPO, beta 2"),
    "ddpo_beta2": ("ddpo", BETA, "dense DPO, beta 2"),
    "ddpo_slow": ("ddpo", SLOW, "dense DPO, rate 3e-5"),
    "ddpo_nll": ("ddpo-nll", {}, "dense DPO + 0.1 NLL"),
    "ranking_nll": ("ranking-nll", {}, "ranking DPO + 0.1 NLL"),
    "ddpo_released": ("ddpo-released", {}, "released script's setting"),
    "ranking_1400": ("ranking", {"pairs.kept": MANY}, "ranking DPO, n = 1,400"),
    "correction_1400": ("correction", {"pairs.kept": MANY}, "correction DPO, n = 1,400"),
    "ddpo_1400": ("ddpo", {"pairs.kept": MANY}, "dense DPO, n = 1,400"),
}
LABELS = {"sft": "SFT"} | {name: label for name, (_, _, label) in ARMS.items()}
RATE = derived(
    Metric("eval/rate", "share of mentions that are wrong", "lower"), lambda errors, mentions: errors / mentions,
    "errors", "mentions",
)
MENTIONS = Metric("eval/mentions", "mentions of a description")
CHOSEN = Metric("eval/chosen_log_prob", "log-prob of the chosen", unit="nats an answer")
UNCHANGED = Metric("eval/unchanged_log_prob", "log-prob of what no correction touches", unit="nats an answer")
STYLE = Metric("eval/style_kl", "KL of the style from the reference", "lower", "nats a filler")
BESIDE = (RATE, MENTIONS, CHOSEN, UNCHANGED, STYLE)
CURVES = {"rates.png": curves_of(RATE)}
SEGMENT = Metric("eval/segment", "right number above the wrong one, held out")
QUARTER, HALF = 0.25, 0.5  # of 400 updates: 100 and 200


def part_way(metric: Metric | Curve, share: float, since_start: str = "") -> Measure:
    """The value at the last evaluation within a share of the updates.

    Args:
      since_start: "change", less the value at the first evaluation; or "ratio", over it.
    """
    curve = as_curve(metric)

    def of(evaluations: Evaluations) -> Values:
        values = curve.of(evaluations)
        last = max(int(np.searchsorted(evaluations.steps, share * evaluations.steps[-1], side="right")) - 1, 0)
        found = values[last]
        if since_start:
            found = found - values[0] if since_start == "change" else found / values[0]
        return Values(found, np.ones(found.shape, bool))

    named = curve.metric
    if since_start:
        named = named._replace(label=f"{since_start} of the {named.label}")
    return Measure(named, f"after {share:.0%} of the updates", of, None if since_start else curve)


def mechanism(n: str = "") -> tuple[Claim, ...]:
    """What the paper says of dense DPO beside DPO on corrections and on rankings, for n pairs."""
    ddpo, correction, ranking = f"ddpo{n}", f"correction{n}", f"ranking{n}"
    quarter, half, chosen = part_way(RATE, QUARTER), part_way(RATE, HALF), part_way(CHOSEN, QUARTER, "change")
    own, plain, ranked = (f"{{{name}}}" for name in (ddpo, correction, ranking))
    return (
        better_by(ddpo, correction, float(np.log10(1 / 0.85)), by="mean", measure=log10(half),
                  name=f"dense_beats_plain{n}",
                  text=f"After half of the updates {own} has at most 0.85 of the wrong mentions of {plain}"),
        better_by(ddpo, correction, measure=RATE, name=f"dense_collapses_later{n}",
                  text=f"After all updates {own} has fewer wrong mentions than {plain}: it collapses later"),
        all_of([better_by(ddpo, ranking, by="mean", measure=measure, name=f"{ddpo}_{place}")
                for place, measure in (("quarter", quarter), ("half", half))], name=f"dense_beats_rankings{n}",
               text=f"After a quarter and after half of the updates {own} has no more wrong mentions than {ranked}"),
        reaches(ddpo, 0.33, by="every", measure=part_way(RATE, QUARTER, "ratio"), name=f"dense_against_its_start{n}",
                text=f"After a quarter of the updates {own} has at most 0.33 of its first share of wrong mentions"),
        all_of([reaches(name, 0.0, measure=chosen, by="every", name=f"{name}_chosen") for name in (ddpo, correction)],
               name=f"corrections_raise_the_chosen{n}",
               text=f"After a quarter of the updates the chosen answer is more likely under {own} and {plain}"),
        within(ranking, -1000.0, 0.0, measure=chosen, by="every", name=f"rankings_lower_the_chosen{n}",
               text=f"After a quarter of the updates the chosen answer is less likely under {ranked}"),
    )


def quick_claims() -> tuple[Claim, ...]:
    return (
        *mechanism(), *mechanism("_1400"),
        reaches("ddpo", 0.05, by="every", measure=part_way(STYLE, QUARTER), name="style_is_kept",
                text="After a quarter of the updates the style of {ddpo} is the reference's: KL below 0.05"),
        better_by("correction", "ranking", measure=part_way(STYLE, QUARTER), name="rankings_move_the_style",
                  text="After a quarter of the updates {ranking} has moved the style more than {correction}"),
        better_by("ddpo", "ranking_1400", measure=part_way(RATE, QUARTER), by="mean", name="data_efficiency",
                  text="After a quarter of the updates 200 corrections are as good as 1,400 rankings"),
        better_by("correction_beta2", "ddpo", measure=RATE, name="beta_matters_more_than_gamma",
                  text="A beta of 2 without dense weights ({correction_beta2}) delays the collapse more than gamma 5 "
                       "does ({ddpo})"),
        better_by("ddpo_beta2", "ddpo", measure=RATE, name="beta_delays_the_collapse"),
        better_by("ddpo_slow", "ddpo", measure=RATE, name="the_rate_decides",
                  text="A rate of 3e-5 keeps {ddpo_slow} from the collapse that 1e-4 leads {ddpo} into"),
        better_by("ddpo_nll", "ddpo", measure=RATE, name="likelihood_delays_the_collapse"),
        elsewhere(better_by("ddpo_1400", "sft", name="hallucination_of_images", measure=RATE,
                            text="1,400 corrections cut the hallucinations of a model that sees images by 34.8%"),
                  "needs images, Muffin-13B and judgements by people, which are not here"),
    )


def runs(methods: Sequence[str], config: str, task: str, sft: str = "", common: dict[str, Any] = {}) -> tuple[Run, ...]:
    """The arms; `config` is a template with {preset}. Where `sft` is a preset, they start from a run of it."""
    first = (Run("sft", task, MODULE, sft, common),) if sft else ()
    needs = {"start": f"sft-{task}"} if sft else {}
    return first + tuple(
        Run(name, task, MODULE, config.format(preset=preset), common | overrides, needs)
        for name, (preset, overrides, _) in ((name, ARMS[name]) for name in methods)
    )


def draw_rates(scores: Scores, path: Path) -> None:
    """The share of wrong mentions by updates: 200 pairs, 1,400 pairs, and what beta, rate and likelihood change.

    Raises:
      MissingScores: a run of the figure is not there.
    """
    task, panels = scores.tasks[0], {}
    few = ("ranking", "correction", "ddpo")
    for title, methods in (
        ("n = 200", few), ("n = 1,400", tuple(f"{name}_1400" for name in few)),
        ("n = 200, other settings", ("ddpo", "correction_beta2", "ddpo_beta2", "ddpo_slow", "ddpo_nll",
                                     "ddpo_released")),
    ):
        drawn = {name: scores.evaluations(name, task) for name in methods}
        panels[title] = {
            scores.label(name.removesuffix("_1400")): (run.steps, RATE.of(run)) for name, run in drawn.items()
        }
    plot_curves(panels, path, labels=list(LABELS.values()), score="share of mentions that are wrong", x_label="updates")


def quick() -> Preset:
    methods = tuple(name for name in ARMS if name != "ranking_nll")
    made = runs(methods, "configs/rlhf_v.py:{preset}", "scenes", "configs/rlhf_v.py:sft")
    return Preset(made, quick_claims(), beside=BESIDE, figures={"rates.png": draw_rates})


def wide() -> Preset:
    made = runs(("ranking", "correction", "ddpo"), "configs/rlhf_v.py:wide/{preset}", "scenes",
                "configs/rlhf_v.py:wide/sft")
    return Preset(made, (
        *mechanism(),
        better_by("ddpo", "correction", float(np.log10(1 / 0.85)), by="mean", measure=log10(final(RATE)),
                  name="dense_beats_plain_at_the_end",
                  text="After all updates {ddpo} has at most 0.85 of the wrong mentions of {correction}"),
    ), beside=BESIDE, figures=CURVES)


def nll() -> Preset:
    made = runs(("ranking", "ranking_nll", "ddpo_nll"), "configs/rlhf_v.py:{preset}", "scenes", "configs/rlhf_v.py:sft")
    return Preset(made, (
        better_by("ranking_nll", "ranking", measure=RATE, name="likelihood_keeps_rankings_from_the_collapse",
                  text="After all updates {ranking_nll} has fewer wrong mentions than {ranking}"),
        within("ranking_nll", -1000.0, 0.0, measure=part_way(CHOSEN, HALF, "change"), by="every",
               name="rankings_lower_the_chosen_nll",
               text="After half of the updates the chosen answer is less likely under {ranking_nll}"),
    ), beside=BESIDE, figures=CURVES)


def texts(preset: str, model: str, judged: bool = True) -> Preset:
    """Corrections of GSM8K by a model that learns its solutions first; claims of one for a GPU are not judged."""
    claims = (
        changes_by("ddpo", SEGMENT, 0.0, by="interval",
                   text="{ddpo} learns from corrected numbers which number is right on questions that it has not seen"),
        better_by("ddpo", "correction", by="mean", measure=SEGMENT, name="dense_is_not_worse_on_numbers",
                  text="{ddpo} tells right numbers from wrong ones as well as {correction} does"),
    )
    if not judged:
        claims = tuple(elsewhere(claim, "needs an accelerator: preset `paper`") for claim in claims)
    start = Run("sft", "gsm8k", "experiments.sft.train", f"configs/sft.py:{model}/gsm8k",
                {"num_seeds": 1, "tensorboard": False})  # it leaves the folder that all arms start from
    arms = runs(("correction", "ddpo"), f"configs/rlhf_v.py:{preset}/{{preset}}", "gsm8k")
    made = (start, *(run._replace(needs={"model.name": start.name}) for run in arms))
    drawn = {"numbers.png": curves_of(SEGMENT)}
    return Preset(made, claims, measure=SEGMENT, beside=(CHOSEN, UNCHANGED), figures=drawn)


def tiny() -> Preset:
    made = runs(("ranking", "correction", "ddpo"), "configs/rlhf_v.py:tiny-{preset}", "scenes",
                "configs/rlhf_v.py:tiny-sft")
    return Preset(made, mechanism(), beside=(RATE, STYLE), figures=CURVES)


PAPER = Paper(
    title="RLHF-V",
    labels=LABELS,
    baseline="correction",
    measure=part_way(RATE, HALF),
    presets={
        "quick": quick, "wide": wide, "nll": nll, "gsm8k": lambda: texts("gsm8k", "stories260k"),
        "paper": lambda: texts("smollm2", "smollm2", judged=False),
        "tiny": tiny,
    },
    published=(PUBLISHED,),
    notes=(
        "Scenes are eight values that a prompt says, **not images**: nothing here sees a pixel. A description mentions "
        "each of them; rates are of descriptions of 1,000 fresh scenes, sampled at temperature 1.",
    ),
)
