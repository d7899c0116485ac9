"""What PPO of language models runs and claims; `python -m experiments.reproduce --paper=ppo_rlhf`.

Presets:
  quick   PPO with a fixed and an adaptive KL coefficient, and REINFORCE++ without a critic, from one supervised
          start, sums and differences of numbers below 100, 3 seeds, 200 updates: minutes a method on 2 CPU cores.
  paper   SmolLM2 on the prompts of HH-RLHF (harmless) by a reward that SmolLM2 learns first, 3 seeds: for an
          accelerator.
  tiny    seconds: what the tests run.

What was asked of the claims before their rule was fixed, by pilots on seed 100: the start answers 53% of the held-out
questions by its most likely answers, and of 256 questions a share has a standard error of 3 points. After 200 updates
PPO is at 71%, with the adaptive coefficient too, so 5 points are less than a third of what each has gained; the
divergence from the start is then about half a nat an answer with the fixed one, and 0.3 nats are the other's target.
REINFORCE++ had no pilot here; in experiments/grpo it gained 14 points in 400 updates by eight answers to a question.
RLHF by a learned reward is a preset (`rlhf/<model>`) and no claim: story models have no preferences worth learning.
"""

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import changes_by, elsewhere
from rl_jax.reports.declaration import Paper, Preset, Run, grid
from rl_jax.reports.figures import curves_of

LABELS = {"ppo": "PPO", "adaptive": "PPO, adaptive KL", "reinforce_pp": "REINFORCE++", "reward": "reward model"}
REWARD = Metric("eval/score", "learned reward of held-out prompts")
ACCURACY = Metric("eval/score", "exact match, held out")
METHODS = ("ppo", "adaptive", "reinforce_pp")
LENGTH = Metric("eval/length", "tokens of an answer", "lower")
TRUNCATED = Metric("eval/truncated", "answers that were cut off", "lower")
MODULE = "experiments.ppo_rlhf.train"


def quick() -> Preset:
    runs = grid(METHODS, ("arithmetic",), module=MODULE, config="configs/ppo_rlhf.py:{method}")
    claims = tuple(changes_by(method, ACCURACY, 0.05, by="interval") for method in METHODS)
    return Preset(runs, claims, beside=(LENGTH, TRUNCATED))


def paper() -> Preset:
    train, config = "experiments.reward_model.train", "configs/reward_model.py:smollm2/hh_harmless"
    judge = Run("reward", "preferences", train, config)
    needs = {"reward.model": "reward-preferences"}
    learner = Run("ppo", "hh_harmless", MODULE, "configs/ppo_rlhf.py:paper", needs=needs)
    claim = changes_by("ppo", REWARD, 0.0, by="interval", tasks=("hh_harmless",), beside=(LENGTH,))
    measures = {"preferences": Metric("eval/accuracy", "held-out accuracy"), "hh_harmless": REWARD}
    return Preset((judge, learner), (elsewhere(claim, "SmolLM2 needs an accelerator"),), measure=measures)


def tiny() -> Preset:
    runs = grid(("ppo",), ("arithmetic",), module=MODULE, config="configs/ppo_rlhf.py:tiny")
    return Preset(runs, (changes_by("ppo", ACCURACY, 0.0),))


PAPER = Paper(
    title="PPO from rewards of whole answers",
    labels=LABELS,
    baseline="ppo",
    measure=ACCURACY,
    presets={"quick": quick, "paper": paper, "tiny": tiny},
    figures={"accuracy.png": curves_of(ACCURACY)},
    notes=("The papers' numbers are of models of 0.1 to 70 billion parameters: none stands beside these.",),
)
