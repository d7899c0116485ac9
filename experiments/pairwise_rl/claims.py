"""What Pairwise-RL runs and claims; `python -m experiments.reproduce --paper=pairwise_rl` runs its stages in order.

Presets:
  quick  five digits to sort, 3 seeds, each a pipeline of its own from the policy's start to the arms: a minute or two a
         stage on 2 CPU cores, much of it compilation.
  card   the same with all arms in the sizes of the first pilot, three times as much.
  paper  SmolLM2 on GSM8K: for an accelerator.
  tiny   seconds: what the tests run.

What was asked of the claims before rules and setting were fixed, by pilots of one pipeline on seed 100:

- Can the task show it: the start has a gold reward of 0.54, so that there is room for 0.15. Its answers all have six
  tokens: nothing can be said of a judge's liking for long ones.
- Are the scorers strong enough, and is it long enough: the first pilots had the ground truth in 3 of 10 pairs. Of
  2,000 pairs and in 400 updates the judge is right on 0.80 of held-out pairs and Bradley-Terry on 0.82, and (d) at a
  rate of 5e-4 rose to 0.65 and fell to 0.60 at 3.3 nats. Of 4,800 pairs and in 800 updates the judge is right on 0.84
  and Bradley-Terry on 0.87; at 3e-4 (d) is at 0.65 at 1 nat and 0.72 at 2.05 nats (120 updates), level from 75 on.
- What these pilots said against the card: with the ground truth among its pairs the raw reward was not hacked, (a) rose
  to 0.80 at 2.7 nats and stayed above (d) throughout. The card's pairs have none. They are the setting of (a) to (d)
  here as there, and the other one stands beside with a claim of its own, which that pilot says will fail.
- Whether raw Bradley-Terry of the card's pairs is hacked here has not been seen: the claim is the card's measurement.
- All arms must pass the divergence at which they are compared: (a) and (d) of the pilots had passed 1 nat in 30
  updates. 512 pairs have a standard error of 1.6 points of accuracy a seed; the mean over seeds decides.
- The shift is exact but for rounding: 1.2e-7, 4.8e-7 and 4.8e-7 were measured, the raw reward changes by 0.99.
- Not in a pilot: the judge of the card's pairs, judge-plain, bt-scaled, bt-anchored, judge-gold, ppo and p3o; the rules
  of their claims are the card's or milder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import all_of, better_by, changes_by, elsewhere, reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Run
from rl_jax.reports.measures import Evaluations, Measure, MissingScores, Values, as_curve, final
from rl_jax.reports.scores import BestOf, Scores

LABELS = {
    "sft": "start", "bt": "Bradley-Terry", "judge": "judge", "judge_plain": "judge without consistency",
    "bt_anchors": "Bradley-Terry, anchors in pairs", "judge_anchors": "judge, anchors in pairs",
    "bt_raw": "(a) BT raw", "bt_scaled": "(b) BT rescaled", "bt_anchored": "(c) BT win probability",
    "judge_sft": "(d) judge, own anchor", "judge_gold": "(e) judge, gold anchor", "ppo": "(d) by PPO",
    "p3o": "P3O on BT raw", "bt_raw_anchors": "(a), anchors in pairs", "judge_sft_anchors": "(d), anchors in pairs",
}
SCORERS = ("bt", "judge", "judge_plain", "bt_anchors", "judge_anchors")
ARMS = ("bt_raw", "bt_scaled", "bt_anchored", "judge_sft", "judge_gold", "ppo", "p3o", "bt_raw_anchors",
        "judge_sft_anchors")
BT_ARMS = BestOf(("bt_raw", "bt_scaled", "bt_anchored"), "the best of (a) to (c)")
NEEDS = {"bt_scaled": {"scorer.run": "bt", "scorer.scale_by": "judge"}} | {
    arm: {"scorer.run": "bt"} for arm in ("bt_raw", "bt_anchored", "p3o")
} | {arm: {"scorer.run": "judge"} for arm in ("judge_sft", "ppo")} | {
    arm: {"scorer.run": "judge_anchors"} for arm in ("judge_gold", "judge_sft_anchors")
} | {"bt_raw_anchors": {"scorer.run": "bt_anchors"}}
GOLD = Metric("eval/gold", "gold reward of samples")
GOLD_LOST = GOLD._replace(better="lower")
KL = Metric("eval/kl", "divergence from the start", "lower", "nats an answer")
REWARD = Metric("eval/score", "reward of the most likely answer")
LENGTH = Metric("eval/answer_length", "tokens of an answer", "lower")
ACCURACY = Metric("eval/accuracy", "accuracy on held-out pairs")
AGREEMENT = Metric("eval/agreement", "share of pairs of which both orders say the same")
GAP = Metric("eval/position_gap", "|q_wl + q_lw - 1|", "lower")
LEVEL = 1.0  # nats an answer, at which arms are compared


def at_divergence(level: float) -> Measure:
    """The gold reward where a seed's divergence from the start first reaches the level, linear between evaluations.

    A seed that never gets there has its last value, which does not count as known.
    """
    gold, divergence = as_curve(GOLD), as_curve(KL)

    def of(evaluations: Evaluations) -> Values:
        return crossing(divergence.of(evaluations), gold.of(evaluations), level)

    label = GOLD._replace(label=f"{GOLD.label} at {level:g} nats from the start")
    return Measure(label, f"where the divergence first reaches {level:g} nats an answer", of)


def crossing(x: np.ndarray, y: np.ndarray, level: float) -> Values:
    """y [T, S] where x [T, S] first reaches the level, linear in between; known where it does."""
    values, known = y[-1].copy(), (x >= level).any(0)
    for seed in np.flatnonzero(known):
        after = int(np.argmax(x[:, seed] >= level))
        if after == 0:
            values[seed] = y[0, seed]
            continue
        share = (level - x[after - 1, seed]) / (x[after, seed] - x[after - 1, seed])
        values[seed] = y[after - 1, seed] + share * (y[after, seed] - y[after - 1, seed])
    return Values(values, known)


def stages(methods: Sequence[str], config: str) -> tuple[Run, ...]:
    """The runs in order, policies and scorers as two tasks; `config` is a template with {stage}."""
    def name(method: str) -> str:
        return f"{method}-{'pairs' if method in SCORERS else 'answers'}"

    def needs(method: str) -> dict[str, str]:
        if method == "sft":
            return {}
        return {field: name(run) for field, run in ({"start": "sft"} | NEEDS.get(method, {})).items()}

    return tuple(
        Run(method, name(method).rpartition("-")[2], "experiments.pairwise_rl.train",
            config.format(stage=method.replace("_", "-")), {}, needs(method))
        for method in methods
    )


def claims() -> tuple[Claim, ...]:
    policies: dict[str, Any] = {"tasks": ("answers",)}
    scorers: dict[str, Any] = {"tasks": ("pairs",)}
    matched, beside = policies | {"measure": at_divergence(LEVEL)}, (KL, LENGTH)

    def shift(kind: str, text: str) -> Claim:
        metric = Metric(f"eval/shift_{kind}", f"change of {text}", "lower")
        return reaches("bt", 1e-6, by="every", measure=final(metric), name=f"shift_{kind}", **scorers)

    return (
        better_by("judge", "bt", by="mean", name="judge_as_accurate_as_bt", **scorers,
                  text="The {judge}, both orders averaged, is as accurate as {bt} on held-out pairs"),
        all_of([better_by("judge", "judge_plain", by="mean", measure=final(metric), **scorers)
                for metric in (AGREEMENT, GAP)],
               name="consistency_helps", text="With the consistency term both orders agree more and differ less"),
        changes_by("judge_sft", GOLD, 0.15, by="interval", beside=beside, name="judge_gains", **policies,
                   text="{judge_sft}: the gold reward rises by 0.15"),
        better_by("judge_sft", BT_ARMS, 0.05, name="joint_reading_at_equal_divergence", **matched,
                  text="{judge_sft} beats the best of (a) to (c) by 0.05 at equal divergence"),
        better_by("judge_sft_anchors", "bt_raw_anchors", name="joint_reading_with_anchors_in_pairs", **matched,
                  text="{judge_sft_anchors} beats {bt_raw_anchors} at equal divergence"),
        better_by("bt_anchored", "bt_raw", name="anchoring_at_equal_divergence", **matched,
                  text="{bt_anchored} beats {bt_raw} at equal divergence: bounded and anchored helps by itself"),
        better_by("judge_sft", "bt_anchored", by="mean", measure=final(KL), name="no_further_from_the_start",
                  **policies, text="{judge_sft} ends no further from the start than {bt_anchored}"),
        all_of([changes_by("bt_raw", metric, 0.0, by="interval", **policies) for metric in (GOLD_LOST, REWARD)],
               name="raw_reward_is_hacked",
               text="{bt_raw}: the gold reward ends below the start while the learned reward rises"),
        changes_by("ppo", GOLD, 0.05, by="interval", beside=beside, name="ppo_gains", **policies,
                   text="{ppo} with a critic in [0, 1]: the gold reward rises by 0.05"),
        changes_by("judge_gold", GOLD, 0.05, by="interval", beside=beside, name="gold_anchor_gains", **policies,
                   text="{judge_gold}, of a judge that has seen such anchors: the gold reward rises by 0.05"),
        all_of([
            shift("anchored", "sigmoid(r(y) - r(anchor))"), shift("p3o", "half the difference of two answers"),
            shift("group", "a reward less its group's mean"),
            reaches("bt", 0.5, by="every", name="shift_raw", **scorers,
                    measure=final(Metric("eval/shift_raw", "change of the raw reward"))),
        ], name="shift_invariance",
            text="A number added to all rewards of a prompt changes the raw reward and nothing that is compared"),
        elsewhere(
            better_by("judge_sft", BT_ARMS, name="benchmarks", **policies,
                      text="{judge_sft} beats the pipeline of {bt} and PPO on the authors' sets and public benchmarks"),
            "the authors' data are their own; preset `paper`, on an accelerator, asks the same of GSM8K",
        ),
    )


def draw_frontier(scores: Scores, path: Path) -> None:
    """Gold reward against the divergence from the start for all arms; gold and learned reward of (a) by updates.

    Raises:
      MissingScores: a run of the figure is not there.
    """
    from matplotlib.figure import Figure

    from rl_jax.reports.curves import COLOURS, save_figure, thin_frame

    task, shown = "answers", [arm for arm in ARMS if arm in scores.methods]
    if "bt_raw" not in shown:
        raise MissingScores("the arm whose reward the figure shows")
    figure = Figure(figsize=(8.4, 3.6), dpi=200, layout="constrained")
    frontier, hacked = figure.subplots(1, 2, width_ratios=(1.4, 1.0))
    gold, divergence = as_curve(GOLD), as_curve(KL)
    for number, arm in enumerate(shown):
        again, place = divmod(number, len(COLOURS))  # a colour's second arm is dashed
        run, style = scores.evaluations(arm, task), {"color": COLOURS[place], "linestyle": ("-", "--")[again]}
        x, y = divergence.of(run), gold.of(run)
        frontier.plot(x, y, linewidth=0.6, alpha=0.35, **style)
        frontier.plot(x.mean(1), y.mean(1), marker="o", markersize=2.5, label=scores.label(arm), **style)
    frontier.axvline(LEVEL, color="black", linestyle=(0, (2, 1.5)), linewidth=1.0, zorder=1)
    frontier.set_xlabel("divergence from the start, nats an answer", fontsize=8)
    frontier.set_ylabel("gold reward of samples", fontsize=8)
    frontier.legend(fontsize=7, frameon=False, handlelength=3.5)
    run = scores.evaluations("bt_raw", task)
    lines = ((GOLD, COLOURS[0], hacked), (REWARD, COLOURS[1], hacked.twinx()))
    for metric, colour, axes in lines:
        values = as_curve(metric).of(run)
        axes.plot(run.steps, values, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(run.steps, values.mean(1), color=colour)
        axes.set_ylabel(f"{scores.label('bt_raw')}: {metric.label}", fontsize=8, color=colour)
        axes.tick_params(labelsize=8)
    hacked.set_xlabel("updates", fontsize=8)
    frontier.tick_params(labelsize=8)
    thin_frame(frontier)
    save_figure(figure, path)


QUICK = tuple(method for method in LABELS if method != "p3o")
MEASURE = {"answers": GOLD, "pairs": ACCURACY}


def preset(methods: Sequence[str], config: str) -> Preset:
    return Preset(stages(methods, config), claims(), measure=MEASURE, beside=(KL, LENGTH))


def paper() -> Preset:
    made = preset(QUICK, "configs/pairwise_rl.py:paper/{stage}")
    why = "needs an accelerator, and has not been run"
    return made._replace(claims=tuple(elsewhere(claim, claim.elsewhere or why) for claim in made.claims))


def tiny() -> Preset:
    runs = stages(("sft", "bt", "judge", "bt_scaled", "judge_sft"), "configs/pairwise_rl.py:tiny-{stage}")
    return Preset(runs, (
        changes_by("judge_sft", GOLD, -1.0, tasks=("answers",)),
        better_by("judge_sft", "bt_scaled", -1.0, by="mean", measure=at_divergence(0.0), tasks=("answers",)),
    ), measure=MEASURE, beside=(KL,))


PAPER = Paper(
    title="Pairwise-RL",
    labels=LABELS,
    baseline="sft",
    measure=GOLD,
    presets={
        "quick": lambda: preset(QUICK, "configs/pairwise_rl.py:{stage}"),
        "card": lambda: preset(tuple(LABELS), "configs/pairwise_rl.py:card/{stage}"), "paper": paper, "tiny": tiny,
    },
    figures={"frontier.png": draw_frontier},
    notes=(
        "The gold reward is the share of digits in their right place, which only the annotator sees; 4 samples at "
        "temperature 1 to each of 128 held-out problems.",
        "The authors' tables could not be read, so none of their numbers stands here; their claim is a direction.",
    ),
)
