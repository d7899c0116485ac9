"""What the reward model runs and claims; `python -m experiments.reproduce --paper=reward_model` reads it.

Presets:
  quick     stories260k on the pairs of HH-RLHF (harmless), 3 seeds: minutes on CPU cores.
  smollm2   SmolLM2 by adapters on the same pairs, 3 seeds: for a GPU.
  tiny      seconds: for tests.

Accuracy is the share of held-out prompts whose chosen answer gets the higher reward. What is independent are prompts,
so the claim is on the lower end of the 95% interval over prompts, of each seed.
"""

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid
from rl_jax.reports.measures import Evaluations, Measure, Values

ACCURACY = Metric("eval/accuracy", "held-out accuracy")
LENGTH = Metric("eval/length_correlation", "correlation of reward and length")
MARGIN = Metric("eval/margin", "reward of the chosen above that of the rejected")
LABELS = {"reward": "reward model"}
MODULE = "experiments.reward_model.train"
COMMON = {"num_seeds": 3, "tensorboard": False}


def lower_end(evaluations: Evaluations) -> Values:
    """Of the 95% interval of the last accuracy over prompts, [S], by the normal approximation."""
    accuracy = evaluations.outcomes["accuracy"][-1]
    error = accuracy.std(-1, ddof=1) / np.sqrt(accuracy.shape[-1])
    low = accuracy.mean(-1) - 1.96 * error
    return Values(low, np.ones(low.shape, bool))


LOWER_END = Measure(
    Metric("accuracy_low", "lower end of the 95% interval of accuracy over prompts"), "at the last evaluation",
    lower_end,
)


def better_than_chance() -> Claim:
    return reaches(
        "reward", 0.5, by="every", measure=LOWER_END, beside=(ACCURACY, LENGTH),
        text="{reward}: the chosen answer gets the higher reward more often than not on held-out prompts",
    )


def preset(model: str) -> Preset:
    runs = grid(("reward",), ("hh_harmless",), module=MODULE, config=f"configs/reward_model.py:{model}/{{task}}",
                common=COMMON)
    return Preset(runs, (better_than_chance(),), beside=(LENGTH, MARGIN))


TINY = Run("reward", "hh_harmless", MODULE, "configs/reward_model.py:tiny", {"tensorboard": False})
PAPER = Paper(
    title="Reward model",
    labels=LABELS,
    baseline="reward",
    measure=ACCURACY,
    presets={
        "quick": lambda: preset("stories260k"), "smollm2": lambda: preset("smollm2"),
        "tiny": lambda: Preset((TINY,), (better_than_chance(),), beside=(LENGTH, MARGIN)),
    },
)
