"""What RLCM runs and claims; `python -m experiments.reproduce --paper=rlcm` reads it.

Presets, of 3 seeds: RLCM for compressibility, incompressibility and alignment, DDPO with 50 steps for compressibility,
and RLCM for compressibility with the divergence in its loss, at three coefficients. Times of the first and of DDPO are
compared: run these two alone, or both beside as much.
  emoji         32x32 emoji of animals with captions, 60 updates of 32 images (align: 100 of 130): hours on CPU cores.
  emoji-large   the same, 300 updates of 520 images (align: 200) at the learning rates of digits: takes a GPU.
  digits        8x8 digits, 300 updates of 160 images (align: 200).
  tiny          seconds: what the tests run.

Claims and rules are those of the method's card, fixed before the runs. A score is what the images are rewarded for, as
the evaluation measures it: JPEG bytes, or the independent judge's accuracy at two steps.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.declaration import Claim, Evaluations, Finding, Paper, Preset, Run, Scores
from experiments.score_file import load_runs
from rl_jax.evaluation.statistics import bootstrap_interval

# The columns of a run's raw outcomes; its score is one of them.
COLUMNS = (
    "bytes", "bytes_1_step", "bytes_2_steps", "judge_accuracy", "judge_accuracy_1_step", "judge_accuracy_2_steps",
    "std_within_prompt", "flat_bytes", "train_seconds",
)
KL = {"rlcm_kl_0.1": 0.1, "rlcm_kl_0.2": 0.2, "rlcm_kl_0.3": 0.3}  # coefficients
LABELS = {"rlcm": "RLCM", **{name: f"RLCM, {x:g} KL" for name, x in KL.items()}, "ddpo": "DDPO, 50 steps"}
TASKS = {"compress": "bytes", "incompress": "bytes", "align": "judge_accuracy_2_steps"}
REACHED = 600  # bytes of digits, to which the time is taken
JUDGE_FLOOR = 0.8  # the accuracy below which a reward counts as hacked


def read(workdir: Path, summary: Mapping[str, Any]) -> Evaluations:
    """A finished run: its evaluations in metrics.jsonl, with the start as the first one, at step 0."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    seconds = {line["step"]: line["time/train_seconds"] for line in lines if "time/train_seconds" in line}
    seeds = len(summary["bytes"])
    start = {f"eval/{name}": value[0] for name, value in summary["start"].items()}
    steps, outcomes = [], []
    for line in [{"step": 0} | start, *(line for line in lines if "eval/bytes" in line)]:
        own = line | {"eval/train_seconds": seconds.get(line["step"], 0.0)}
        steps.append(line["step"])
        outcomes.append([np.broadcast_to(own.get(f"eval/{name}", np.nan), seeds) for name in COLUMNS])
    outcomes = np.moveaxis(np.array(outcomes, np.float64), 1, 2)  # [T, S, columns]
    column = COLUMNS.index(TASKS[task_of(summary["preset"])])
    scores = np.broadcast_to(outcomes[:, :, column, None], outcomes.shape)
    return Evaluations(np.array(steps), scores, outcomes)


def task_of(preset: str) -> str:
    """The reward that a preset of configs/rlcm.py is about."""
    return next((task for task in TASKS if task in preset.split("-")), "compress")


def rewards(workdir: Path, summary: Mapping[str, Any], results: Path) -> dict[str, tuple[np.ndarray, ...]]:
    """What a finished run's images were worth, and what those of DDPO's saved runs on the same task were, if there are
    any: label -> (images rewarded [T], seconds of training [T], worth [T, S]). Images and seconds are those of one of a
    program's S runs: its seconds over S."""
    task, per_update = task_of(summary["preset"]), summary["images"] // summary["step"]
    found = {summary["preset"]: (read(workdir, summary), per_update)}
    for run in load_runs(results).values():
        if (run.record["method"], run.record["task"]) == ("ddpo", task):
            saved = run.record["summary"]
            found[f"{LABELS['ddpo']}, saved results"] = (run.evaluations, saved["images"] // saved["step"])
    seconds = COLUMNS.index("train_seconds")
    return {
        label: (worth.steps * images, worth.returns[:, 0, seconds] / worth.scores.shape[1], worth.scores[..., 0])
        for label, (worth, images) in found.items()
    }


def column(scores: Scores, method: str, task: str, name: str) -> np.ndarray:
    """One outcome by evaluation and seed, [T, S]."""
    return scores.evaluations(method, task).returns[..., COLUMNS.index(name)]


def bytes_gone(scores: Scores, method: str) -> np.ndarray:
    """The share of a run's first bytes above the flat image that is gone, by evaluation and seed, [T, S]."""
    size, flat = (column(scores, method, "compress", name) for name in ("bytes", "flat_bytes"))
    return 1.0 - (size - flat) / (size[0] - flat[0])


def _judged(values: np.ndarray, passes: Callable[[np.ndarray], np.ndarray], detail: str = "") -> Finding:
    """One value a seed; passes where every seed does."""
    low, high = bootstrap_interval(values)
    return Finding(float(values.mean()), (float(low), float(high)), bool(passes(values).all()), detail)


def _beside(scores: Scores, method: str, task: str) -> str:
    """What an independent judge and the diversity say, before and after."""
    accuracy, spread = (column(scores, method, task, name).mean(1) for name in ("judge_accuracy", "std_within_prompt"))
    return (
        f"judge {accuracy[0]:.2f} -> {accuracy[-1]:.2f}, std within a prompt {spread[0]:.3f} -> {spread[-1]:.3f}"
    )


def _bytes_fall(scores: Scores) -> Finding:
    return _judged(bytes_gone(scores, "rlcm")[-1], lambda x: x >= 0.5, _beside(scores, "rlcm", "compress"))


def _bytes_rise(scores: Scores) -> Finding:
    size = column(scores, "rlcm", "incompress", "bytes")
    return _judged(size[-1] / size[0] - 1.0, lambda x: x >= 0.2, _beside(scores, "rlcm", "incompress"))


def _not_below_ddpo(scores: Scores) -> Finding:
    """At every evaluation that both have after a third of the updates; the value is the least lead, in bytes, of the
    means over seeds."""
    steps = [scores.evaluations(name, "compress").steps for name in ("rlcm", "ddpo")]
    common = [step for step in np.intersect1d(*steps) if 3 * step >= steps[0][-1]]
    ours, theirs = (
        column(scores, name, "compress", "bytes")[np.isin(own, common)]
        for name, own in zip(("rlcm", "ddpo"), steps, strict=True)
    )
    lead = theirs.mean(1) - ours.mean(1)
    low, high = float(lead.min()), float(lead.max())
    return Finding(low, (low, high), low >= 0.0, _beside(scores, "ddpo", "compress"))


def seconds_to(scores: Scores, method: str, level: float) -> np.ndarray:
    """Seconds of training of all seeds together until the mean bytes of a seed are `level`, [S]; infinite if never."""
    size, seconds = (column(scores, method, "compress", name) for name in ("bytes", "train_seconds"))
    there = size <= level
    return np.where(there.any(0), seconds[there.argmax(0), np.arange(size.shape[1])], np.inf)


def _faster_than_ddpo(scores: Scores) -> Finding:
    ours, theirs = (seconds_to(scores, method, REACHED) for method in ("rlcm", "ddpo"))
    if not np.isfinite(ours).all() or not np.isfinite(theirs).any():
        return Finding(np.inf, (0.0, np.inf), bool(np.isfinite(ours).all()), f"RLCM {ours}, DDPO {theirs} seconds")
    ratios = ours / np.where(np.isfinite(theirs), theirs, np.nanmax(theirs[np.isfinite(theirs)]))
    return _judged(ratios, lambda x: x <= 1 / 3, f"{ours.mean():.0f} against {theirs.mean():.0f} seconds")


def _at_ddpos_end_sooner(scores: Scores) -> Finding:
    """The time of RLCM's seeds to DDPO's last bytes, over all of DDPO's time; infinite if never."""
    goal = column(scores, "ddpo", "compress", "bytes")[-1].mean()
    ours, whole = seconds_to(scores, "rlcm", goal), column(scores, "ddpo", "compress", "train_seconds")[-1].mean()
    detail = f"{goal:.0f} bytes: {np.round(ours).tolist()} against {whole:.0f} seconds of all seeds"
    if not np.isfinite(ours).all():
        return Finding(np.inf, (float(ours.min() / whole), np.inf), False, detail)
    return _judged(ours / whole, lambda x: x <= 1 / 3, detail)


def _stopped_by_the_judge(scores: Scores) -> Finding:
    """How much of the bytes above the flat image is gone, at the best evaluation at which the judge sees JUDGE_FLOOR of
    what was asked for."""
    accuracy = column(scores, "rlcm", "compress", "judge_accuracy")
    fall = np.where(accuracy >= JUDGE_FLOOR, bytes_gone(scores, "rlcm"), 0.0)
    best = fall.argmax(0)
    steps = scores.evaluations("rlcm", "compress").steps[best]
    seen = accuracy[best, np.arange(len(best))]
    return _judged(fall.max(0), lambda x: x >= 0.1, f"at updates {steps.tolist()}, judge {np.round(seen, 2).tolist()}")


def _aligned(scores: Scores) -> Finding:
    accuracy = column(scores, "rlcm", "align", "judge_accuracy_2_steps")
    return _judged(accuracy[-1] - accuracy[0], lambda x: x >= 0.02, _beside(scores, "rlcm", "align"))


def _two_steps_lie_between(scores: Scores) -> Finding:
    """How far from 1 step to 8 the 2 steps are: 0 to 1 is between."""
    one, two, all_ = (column(scores, "rlcm", "compress", f"bytes{name}")[-1] for name in ("_1_step", "_2_steps", ""))
    return _judged((two - one) / (all_ - one), lambda x: (x >= 0.0) & (x <= 1.0))


def _kl_keeps_what_was_asked(scores: Scores) -> Finding:
    """At one of the coefficients images are what was asked for in the end and bytes are down; the value is its judge's
    accuracy, or that of the last coefficient where there is none."""
    for method in KL:
        fall = bytes_gone(scores, method)[-1]
        accuracy = column(scores, method, "compress", "judge_accuracy")[-1]
        detail = f"coefficient {KL[method]:g}: bytes above the flat image fall by {fall.mean():.2f}"
        found = _judged(accuracy, lambda x: x >= JUDGE_FLOOR, detail)
        if found.passed and (fall >= 0.1).all():
            return found
    return found._replace(passed=False)


AT_600 = Claim(
    "faster_than_ddpo", f"RLCM is at {REACHED} bytes in a third of DDPO's time", "ratio, every seed 1/3 or less",
    _faster_than_ddpo, 28 / 125,
)
AT_DDPOS_END = Claim(
    "at_ddpos_end_sooner", "RLCM has DDPO's last bytes in a third of DDPO's time", "ratio, every seed 1/3 or less",
    _at_ddpos_end_sooner, 28 / 125,
)


def claims(speed: Claim) -> tuple[Claim, ...]:
    """All of a domain's, with its own of speed."""
    return (
        Claim("bytes_fall", "RLCM compresses: bytes above the flat image fall by half",
              "share, every seed 0.5 or more", _bytes_fall),
        Claim("bytes_rise", "RLCM raises bytes by a fifth", "share, every seed 0.2 or more", _bytes_rise),
        Claim("not_below_ddpo", "At equal reward queries, after a third of them, RLCM has no more bytes than DDPO",
              "least lead in bytes of the means over seeds, 0 or more", _not_below_ddpo),
        speed,
        Claim("aligned", "Alignment, judged independently, rises at two steps", "accuracy, every seed 0.02 or more",
              _aligned),
        Claim("two_steps_between", "Two steps after training lie between one and eight",
              "bytes: share of the way, 0 to 1", _two_steps_lie_between),
        Claim("kl_keeps_what_was_asked", "With the divergence in the loss bytes fall, images stay what was asked for",
              f"judge's accuracy, every seed {JUDGE_FLOOR} or more, and bytes above the flat image down by a tenth, at "
              "one of the coefficients", _kl_keeps_what_was_asked),
        Claim("stopped_by_the_judge", "Stopped while the judge still sees what was asked for, bytes have fallen",
              f"share of the bytes above the flat image at accuracy {JUDGE_FLOOR} or more, every seed 0.1 or more",
              _stopped_by_the_judge),
    )


def _run(method: str, task: str, preset: str, **overrides: Any) -> Run:
    return Run(method, task, "experiments.rlcm.train", f"configs/rlcm.py:{preset}", overrides)


def runs(scale: str) -> tuple[Run, ...]:
    """All of a domain's, at its scale in configs/rlcm.py."""
    return (
        _run("rlcm", "compress", f"{scale}-compress"),
        _run("ddpo", "compress", f"{scale}-ddpo-compress"),
        _run("rlcm", "incompress", f"{scale}-incompress"),
        _run("rlcm", "align", f"{scale}-align"),
        *(_run(name, "compress", f"{scale}-compress-kl", **{"tuning.kl_coefficient": x}) for name, x in KL.items()),
    )


PAPER = Paper(
    title="RLCM",
    labels=LABELS,
    baseline="ddpo",
    presets={
        "emoji": lambda: Preset(runs("emoji"), claims(AT_DDPOS_END)),
        "emoji-large": lambda: Preset(runs("emoji-large"), claims(AT_DDPOS_END)),
        "digits": lambda: Preset(runs("digits"), claims(AT_600)),
        "tiny": lambda: Preset((_run("rlcm", "compress", "tiny"),), claims(AT_600)[:1]),
    },
    read=read,
    score="JPEG bytes, or the judge's accuracy",
    notes=(
        "A score is the mean JPEG size in bytes of an evaluation's images (compress: small is good; incompress: large "
        "is good) or the independent judge's accuracy at two steps (align).",
    ),
)
