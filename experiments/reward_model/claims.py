"""What the reward model runs and claims; `python -m experiments.reproduce --paper=reward_model` reads it.

Presets:
  quick     stories260k on the pairs of HH-RLHF (harmless), 3 seeds, 100 updates: minutes on CPU cores.
  smollm2   SmolLM2 by adapters on the same pairs, 3 seeds: for a GPU.
  tiny      seconds: for tests.

Accuracy is the share of held-out prompts whose chosen answer gets the higher reward. What is independent are prompts,
so the claim is on the lower end of the 95% interval over prompts, a prompt's accuracy being the mean over seeds.

What was asked of it before `quick` had its setting. Can the data show it? Logistic regression on words and pairs of
words has 0.645 on held-out pairs of this set. Is it long and strong enough? By pilots on seeds 100 and 101: at a rate
of 1e-3, batches of 16 and a decay over 300 updates, accuracy on the 255 held-out prompts was 0.61 after 75 and 0.54
after 150 updates, for there are 1,022 pairs to remember; with the decay over 100 updates it ends at 0.56 and 0.62. So
`quick` has 100, and the seeds' mean is judged: half the width of its interval is 0.05 to 0.06.
"""

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid
from rl_jax.reports.figures import curves_of
from rl_jax.reports.measures import lower_end

ACCURACY = Metric("eval/accuracy", "held-out accuracy")
LENGTH = Metric("eval/length_correlation", "correlation of reward and length")
MARGIN = Metric("eval/margin", "reward of the chosen above that of the rejected")
LABELS = {"reward": "reward model"}
MODULE = "experiments.reward_model.train"
COMMON = {"num_seeds": 3, "tensorboard": False}


def better_than_chance() -> Claim:
    return reaches(
        "reward", 0.5, by="every", measure=lower_end(ACCURACY, "prompts"), beside=(ACCURACY, LENGTH),
        text="{reward}: the chosen answer gets the higher reward more often than not on held-out prompts",
    )


def preset(model: str, **fields: int) -> Preset:
    runs = grid(("reward",), ("hh_harmless",), module=MODULE, config=f"configs/reward_model.py:{model}/{{task}}",
                common=COMMON | fields)
    return Preset(runs, (better_than_chance(),), beside=(LENGTH, MARGIN))


TINY = Run("reward", "hh_harmless", MODULE, "configs/reward_model.py:tiny", {"tensorboard": False})
PAPER = Paper(
    title="Reward model",
    labels=LABELS,
    baseline="reward",
    measure=ACCURACY,
    figures={"accuracy.png": curves_of(ACCURACY)},
    presets={
        "quick": lambda: preset("stories260k", num_steps=100), "smollm2": lambda: preset("smollm2"),
        "tiny": lambda: Preset((TINY,), (better_than_chance(),), beside=(LENGTH, MARGIN)),
    },
)
