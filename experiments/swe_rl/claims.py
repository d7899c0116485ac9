"""What SWE-RL runs and claims; `python -m experiments.reproduce --paper=swe_rl`.

Presets:
  quick   the edit policy from the committed start, functions of at most 40 tokens, 3 seeds, 150 updates of 24 functions
          with 8 responses each; the control by as many supervised updates. Minutes of one CPU core a method.
  paper   all functions, 200 updates, 5 seeds, and the test cases of QuixBugs' programs for all methods.
  tiny    seconds: what the tests run.

What was asked of each claim before its rule was fixed, by pilots on seed 100, of which no result is. Can the data show
it: of 9 edits that the policy can say of a function one repairs it; a random one has a reward of 0.88 and is right in
22%. The start's responses are refused in 55%, its reward is -0.14. Is it long enough: after 20 and 80 updates the
reward is 0.39 and 0.57, refused are 28% and 18%: the claims on both are about early progress, and at their bars after
20. Is it strong enough: a mean over 218 functions has a standard error of 0.03. Exact repairs rise from 10% to 11% and
16%. With a KL coefficient of 0.001 in place of 0.05 (all functions, 80 updates) the reward rises as far, but exact
repairs only from 7% to 9%, and by the reward of 0 and 1 to 10%: which reward repairs more the pilots leave open. In all
of them what is not refused repairs no more often than at the start (23%, then 19%): the policy learns the contract
first, and edits that are always possible, such as a `not` before a condition. So the reward's rise is that of accepted
responses; the share of repairs among these stands beside, and nothing is claimed of it. Runs of 60 updates on seeds 0
to 2 repaired 17% by the similarity and 19% by 0 and 1, and both were still rising. Runs of 150 on seeds 10 to 12 at the
rate of 1e-3 levelled at 60 to 90 updates and then lost held-out reward, 0.53 to 0.44, with more refusals again. Pilots
of 150 updates at 3e-4 rise to their end (0.53, refused 20%, repaired 17%, by 0 and 1 20%), at 1e-4 they are slower
(0.43, 26%, 12%, 16%). So `quick` has 150 updates at 3e-4, and seeds from 20 on, which no earlier run used; the rules
are those from before all of these.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import better_by, changes_by, elsewhere, reaches, within
from rl_jax.reports.declaration import Claim, Paper, Preset, Published, grid
from rl_jax.reports.figures import curves_of
from rl_jax.reports.measures import Curve, change, derived

LABELS = {"similarity": "SWE-RL (similarity)", "exact": "0/1 reward", "sft": "SFT on own responses"}
REWARD = Metric("eval/score", "reward, held-out packages")
INVALID = Metric("eval/invalid", "refused responses (-1)", "lower")
EXACT = Metric("eval/exact", "exact repairs")


def _of_valid(metric: Metric, outcome: str) -> Curve:
    """The mean of an outcome, which is 0 where refused, over what is not refused."""
    return derived(metric, lambda x, invalid: x / np.maximum(1.0 - invalid, 1e-9), outcome, "invalid")


REPAIRS = _of_valid(Metric("eval/exact_of_valid", "exact repairs of what is not refused"), "exact")
REMOVED = _of_valid(Metric("eval/removed_of_valid", "precision of removed lines"), "removed_precision")
ADDED = _of_valid(Metric("eval/added_of_valid", "precision of added lines"), "added_precision")
QUIXBUGS = Metric("eval/quixbugs_score", "reward, QuixBugs")
PASSED = Metric("eval/quixbugs_passed", "QuixBugs' test cases passed")
SOLVED = Metric("eval/solved", "SWE-bench Verified, solved")
OTHERS = Metric("eval/other_skills", "mean of five other skills")
SCALE = "needs accelerators and a model of 7 to 70 billion parameters: preset `qwen` of configs/swe_rl.py"
MODULE = "experiments.swe_rl.train"
PAPERS = Published(
    label="the paper: repairs of SWE-bench Verified, %",
    source=(
        "Wei et al. 2025, arXiv 2502.18449, ablation of the reward, Llama-3.3-70B [from memory, unverified]: another "
        "quantity, on other data, for orientation only"
    ),
    values={"similarity": {"functions": (34.8, np.nan)}, "exact": {"functions": (29.0, np.nan)}},
)


def claims() -> tuple[Claim, ...]:
    return (
        changes_by("similarity", REWARD, 0.1, by="interval"),
        changes_by("similarity", INVALID, 0.5, relative=True, by="interval"),
        better_by("similarity", "exact", by="median", measure=EXACT,
                  text="At equal updates {similarity} repairs at least as many functions as {exact}"),
        within("sft", -2.0, 0.05, measure=change(REWARD), text="{sft} does not raise the reward"),
        better_by("similarity", "sft", 0.1, name="similarity_above_control"),
        elsewhere(reaches("similarity", 0.41, measure=SOLVED, published=0.41), SCALE),
        elsewhere(better_by("similarity", "sft", measure=OTHERS, name="similarity_keeps_other_skills",
                            text="{similarity} is better in five unrelated skills than {sft}"), SCALE),
    )


def preset(executed: Sequence[str], **common: Any) -> Preset:
    """Runs of all methods, of which some have QuixBugs' repaired programs run."""
    runs = grid(
        tuple(LABELS), ("functions",), module=MODULE, config="configs/swe_rl.py:{method}", common=common,
        by_method={method: {"judge.execute": True} for method in executed},
    )
    return Preset(runs, claims(), beside=(INVALID, EXACT, REPAIRS, REMOVED, ADDED, QUIXBUGS, PASSED))


def quick() -> Preset:
    return preset(("similarity",), **{
        "seed": 20, "agent.learning_rate": 3e-4, "data.longest": 40, "num_steps": 150, "judge.samples": 2,
        "loop.eval_every": 30, "loop.log_every": 30, "checkpoint.every": 30,
    })


def tiny() -> Preset:
    runs = grid(("similarity", "sft"), ("functions",), module=MODULE, config="configs/swe_rl.py:{method}",
                presets={"similarity": "tiny", "sft": "tiny-sft"})
    return Preset(runs, (changes_by("similarity", REWARD, 0.0),))


PAPER = Paper(
    title="SWE-RL",
    labels=LABELS,
    baseline="similarity",
    measure=REWARD,
    presets={"quick": quick, "paper": lambda: preset(tuple(LABELS), num_seeds=5), "tiny": tiny},
    published=(PAPERS,),
    figures={
        "reward.png": curves_of(REWARD), "repairs.png": curves_of(EXACT), "refused.png": curves_of(INVALID),
    },
    notes=(
        "The policy is no language model but the edit policy: a decoder of 0.1 million parameters that says a line, an "
        "operator and a place, which are rendered as the search/replace text of the full contract and scored by the "
        "true reward. A response that is no edit of the function is rendered as one that the reward refuses.",
        "Similarity is not correctness: exact repairs, the precision of removed and of added lines, and the test cases "
        "that QuixBugs' repaired programs pass, those that the policy can read, stand beside.",
    ),
)
