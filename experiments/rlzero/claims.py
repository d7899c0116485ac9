"""What RLZero runs and claims; `python -m experiments.reproduce --paper=rlzero` reads it.

In all of them the video model is replaced by drawn clips and SigLIP by random convolutions or a small encoder.

Presets:
  quick   FB in the four alcoves, then twelve prompts by every way to a latent, TD3+BC on a similarity reward; 3 seeds.
  paper   the same at the authors' sizes and lengths: for an accelerator.
  full    Hopper-v4: z of its reward, of a clip, of a clip of another body: for an accelerator.
  tiny    seconds: what the tests run.

What was asked of each claim before its rule was fixed; the rules are the method's card's, on seed 100, which no result
uses:

- Can the data show it? The exact identities hold to 1e-11. FB's first maze, with longer walls between the alcoves, kept
  it at 0.75 of the goals from 2,000 to 12,000 updates: starts behind a thin wall were stuck, and still were after 2,000
  to 4,000 updates of wider networks, of biases or waves, or of a slower policy. There RLZero had 0.79 of the expert's
  obedience, as z of the true states had, another body 0.72, a third 0.79, z of the true reward and of the last frame
  0.83, random z 0.13; projections were off by 0.04 to 0.14 cells. With walls of one cell, waves and a slower policy
  0.90 of all roll-outs to the middles of cells end within 0.75 of them after 2,000 updates (the claim's rule is by the
  last ten steps). Those are the runs' settings; the prompts had no pilot in this maze.
- Is it long enough? Goals had levelled after 2,000 updates in the first maze; the runs are of 6,000.
- Is it strong enough? By means over 3 seeds of 48 roll-outs each; clips of another body may miss a prompt, which
  moves a mean by 0.08. TD3+BC on similarity and the contrastive encoder had no pilot.
"""

import math
from collections.abc import Mapping

from experiments.rlzero.exact import GRADIENT, IMITATION, OPTIMALITY
from experiments.rlzero.experiment import SUCCESS
from experiments.rlzero.figure import film_of
from experiments.rlzero.rivals import ACCURACY
from rl_jax.control.tasks import SCORE
from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import better_by, elsewhere, reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Run
from rl_jax.reports.figures import curves_of
from rl_jax.reports.measures import derived, log10

LABELS = {
    "rlzero": "RLZero", "true_states": "z of the true states", "reward": "z of the true reward",
    "goal": "z of the last frame", "rlzero_discounted": "RLZero, gamma^k", "square": "RLZero, another body",
    "cross": "RLZero, a third body", "contrastive": "RLZero, contrastive", "pixels": "RLZero, pixels",
    "square_contrastive": "another body, contrastive", "square_pixels": "another body, pixels",
    "image_reward": "TD3+BC on similarity", "random": "random z", "fb": "FB", "encoder": "contrastive encoder",
    "exact": "exact F and B",
}
INFER = tuple(name for name in LABELS if name not in ("image_reward", "fb", "encoder", "exact"))
CONTRASTIVE = ("contrastive", "square_contrastive")
OF_EXPERT = derived(
    Metric("eval/of_expert", "obedience over the expert's"), lambda own, expert: own / expert, "obeyed", "expert"
)
ABOVE_RANDOM = derived(
    Metric("eval/above_random", "obedience, 0 for random z and 1 for the expert"),
    lambda own, random, expert: (own - random) / (expert - random), "obeyed", "random", "expert",
)
ERROR = Metric("eval/projection_error", "error of the projection", "lower", "cells")
MEASURES = {"goals": SUCCESS, "prompts": OF_EXPERT, "pictures": ACCURACY, "maze": OPTIMALITY}
TRAIN, PROMPTS = "experiments.rlzero.train", ("prompts",)


def run(method: str, task: str, preset: str, needs: Mapping[str, str] = {}) -> Run:
    return Run(method, task, TRAIN, f"configs/rlzero.py:{preset}", {}, needs)


def runs(fb: str = "quick", infer: str = "infer") -> tuple[Run, ...]:
    """FB, and what needs it: every way to a latent."""
    made = [run("exact", "maze", "exact"), run("fb", "goals", fb), run("encoder", "pictures", "encoder")]
    for method in INFER:
        needs = {"init_from.run": "fb-goals"}
        needs |= {"embedder.path": "encoder-pictures"} if method in CONTRASTIVE else {}
        made.append(run(method, "prompts", f"{infer}/{method}", needs))
    return (*made, run("image_reward", "prompts", "image_reward"))


def claims() -> tuple[Claim, ...]:
    def times(method: str, other: str, factor: float, text: str) -> Claim:
        return better_by(method, other, math.log10(factor), by="mean", measure=log10(OF_EXPERT), tasks=PROMPTS,
                         text=text)

    return (
        reaches("exact", 1e-9, by="every", measure=OPTIMALITY, tasks=("maze",),
                text="Exact F and B: z_r is optimal for ten random rewards"),
        reaches("exact", -1e-9, by="every", measure=IMITATION, tasks=("maze",), name="exact_imitation",
                text="Exact F and B: z_imit earns at least its expert's rho^E / rho"),
        reaches("exact", 1e-9, by="every", measure=GRADIENT, tasks=("maze",), name="exact_gradient",
                text="Exact F and B: the population's loss has no gradient"),
        reaches("fb", 0.8, by="mean", tasks=("goals",), text="{fb} reaches 80% of goals that it was not told of"),
        reaches("rlzero", 0.8, by="mean", measure=OF_EXPERT, tasks=PROMPTS,
                text="{rlzero} obeys prompts 0.8 times as long as the expert"),
        reaches("rlzero", 0.5, by="mean", measure=ABOVE_RANDOM, tasks=PROMPTS, name="rlzero_above_random",
                text="{rlzero} is half of the way from random z to the expert"),
        times("rlzero", "true_states", 0.9, "The projection costs {rlzero} at most a tenth of {true_states}"),
        times("square", "rlzero", 0.6, "Clips of another body: {square} has 0.6 of {rlzero}"),
        times("cross", "rlzero", 0.6, "Clips of a third body: {cross} has 0.6 of {rlzero}"),
        times("rlzero", "image_reward", 1 / 1.1,
              "{image_reward}, which trains for each prompt, is at most a tenth above {rlzero}"),
    )


def hopper() -> Claim:
    return better_by("rlzero", "fb", -20.0, by="mean", measure=SCORE, tasks=("hopper",), name="hopper",
                     text="In Hopper, from frames, {rlzero} is within 20 points of z of the reward")


def quick() -> Preset:
    return Preset(
        runs(), (*claims(), elsewhere(hopper(), "needs an accelerator: preset `full`")), measure=MEASURES,
        figures={"film.png": film_of("square", "square"), "film_own.png": film_of("rlzero", "own"),
                 "curves.png": curves_of()},
    )


WHY = "needs an accelerator: 3,000,000 updates of 1,024"


def paper() -> Preset:
    return Preset(runs("paper", "paper-infer"), tuple(elsewhere(claim, WHY) for claim in claims()), measure=MEASURES)


def full() -> Preset:
    needs = {"init_from.run": "fb-hopper"}
    made = [run("fb", "hopper", "full")]
    made += [run(method, "hopper", f"full-infer/{method}", needs) for method in ("rlzero", "true_states", "square")]
    return Preset(tuple(made), (elsewhere(hopper(), WHY),), measure=SCORE)


def tiny() -> Preset:
    needs = {"init_from.run": "fb-goals"}
    made = run("fb", "goals", "tiny"), *(
        run(method, "prompts", f"tiny-{method}", needs) for method in ("rlzero", "true_states")
    )
    return Preset(made, (better_by("rlzero", "true_states", tasks=PROMPTS),), measure=MEASURES,
                  figures={"film.png": film_of("rlzero", "own")})


PAPER = Paper(
    title="RLZero",
    labels=LABELS,
    baseline="random",
    measure=OF_EXPERT,
    presets={"quick": quick, "paper": paper, "full": full, "tiny": tiny},
    notes=(
        "The video model is replaced: an oracle that knows what a prompt means draws its clip. SigLIP is replaced: by "
        "random convolutions and PCA, by a small contrastive encoder or by pixels, as the row says.",
        "A score on `prompts` is the share of 50 steps in the prompt's cells, over that of shortest ways from the same "
        "starts (1); twelve prompts, 4 starts each.",
        "Cloning the projected states cannot be run: a clip has no actions.",
        "No number of the paper stands beside these: it judges DeepMind Control by a multimodal model's preferences.",
        "With few seeds a bootstrap interval is too narrow.",
    ),
)
