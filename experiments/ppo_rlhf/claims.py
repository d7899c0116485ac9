"""What PPO of language models runs and claims; `python -m experiments.reproduce --paper=ppo_rlhf`.

Presets:
  quick   PPO with a fixed and an adaptive KL coefficient, and REINFORCE++ in the place of the critic, from one supervised
          start, sums and differences of numbers below 100, 3 seeds, 400 updates: minutes a method on 2 CPU cores.
  tiny    seconds: what the tests run.
"""

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import changes_by, elsewhere
from rl_jax.reports.declaration import Paper, Preset, grid
from rl_jax.reports.figures import curves_of

LABELS = {"ppo": "PPO", "adaptive": "PPO, adaptive KL", "reinforce_pp": "REINFORCE++"}
ACCURACY = Metric("eval/score", "exact match, held out")
LENGTH = Metric("eval/length", "tokens of an answer", "lower")
TRUNCATED = Metric("eval/truncated", "answers that were cut off", "lower")
MODULE = "experiments.ppo_rlhf.train"


def quick() -> Preset:
    runs = grid(tuple(LABELS), ("arithmetic",), module=MODULE, config="configs/ppo_rlhf.py:{method}")
    claims = tuple(changes_by(method, ACCURACY, 0.05, by="interval") for method in LABELS)
    return Preset(runs, claims, beside=(LENGTH, TRUNCATED))


def tiny() -> Preset:
    runs = grid(("ppo",), ("arithmetic",), module=MODULE, config="configs/ppo_rlhf.py:tiny")
    return Preset(runs, (changes_by("ppo", ACCURACY, 0.0),))


PAPER = Paper(
    title="PPO from rewards of whole answers",
    labels=LABELS,
    baseline="ppo",
    measure=ACCURACY,
    presets={"quick": quick, "tiny": tiny},
    figures={"accuracy.png": curves_of(ACCURACY)},
    notes=("The papers' numbers are of models of 0.1 to 70 billion parameters: none stands beside these.",),
)
