"""What RLHF Workflow runs and claims; `python -m experiments.reproduce --paper=rlhf_workflow` runs its stages in order.

Presets:
  quick   digits to sort, whose true (gold) reward is known; 5 seeds, each a pipeline of its own from supervised
          learning to the last round: minutes a stage on 2 CPU cores.
  paper   people's preferences (HH-RLHF, harmless): a linear head on SmolLM2's frozen features, adapters of it by
          experiments.reward_model, the pairwise model, and rounds of SmolLM2 ranked by the first: for a GPU.
  people  people's preferences by a linear head on SmolLM2's frozen features, pairs of at most 128 tokens: six CPU
          minutes.
  arms    what `quick` leaves out of the sorting: the authors' second script, two temperatures, best over second best,
          the true reward as the ranking.
  tiny    seconds: what the tests run.

What was asked of the claims, of three pilots of one pipeline each, on seeds 100, 100 and 101. The first had no dots,
512 questions a round, 20 updates of 64 pairs at a rate of 1e-4 and a reward model of 600 updates. The second had dots,
256 questions, 16 updates of 32 pairs at 2e-4 and a reward model of 300 updates. `quick` has the first one's settings,
with dots and the second one's 500 updates of supervised learning; the third pilot had just these.

- Rounds raise the gold reward. First pilot: 0.555 after supervised learning, then 0.612, 0.661 and 0.686, at 0.56 nats
  from pi_0. Second: 0.557, then 0.598, 0.583 and 0.583 at 2.26 nats, while the learned reward went from 0.25 to 1.16:
  the reward was over-optimised, by its own weakness or by the higher rate, which the pilots do not tell apart; so the
  settings are the first one's. Strong enough: 200 questions of 4 answers have a standard error of 0.008 a seed (0.22 an
  answer), and of 0.004 over 5 seeds.
- Iterative against offline: the card asks for 0.01. In the second pilot offline was ahead, 0.650 at 1.74 nats against
  0.583 at 2.26. In the third one, of the settings of `quick`, gold went from 0.549 to 0.611, 0.658 and 0.703 at 0.51
  nats by rounds, and to 0.618, 0.657 and 0.668 at 1.51 nats offline after as many updates: this setting can show it,
  in the last third of its updates. The KL stands beside it, for the two drift differently.
- Pairs of best and worst against best and random: in the first pilot best and worst differ by 0.36 of gold, where a
  random one would be nearer. The card asks for "at least the gain": the rule is the mean.
- The reward model had 0.73 on held-out pairs of which a tenth were labelled wrong, so about 0.79 on right labels, after
  600 updates, 0.727 on right labels after 300, and 0.747 in the third pilot. Held-out pairs are labelled right here;
  the card asks for 0.75.
- The pairwise model had an accuracy of 0.78 and an agreement of 0.83 with the consistency term, which the paper's has
  not. The card's 0.85 is above it, and its rule stays the card's.
- Long enough? Nobody asked it of the rounds before; the result says no. Rounds with pi_0 as the anchor gain 0.065,
  0.036 and 0.017 of gold (standard errors of 0.004), the last one in all five seeds, by 0.008 to 0.028, and the
  divergence doubles in it. Offline gains 0.066, 0.025 and 0.016 in as many updates. So the claims compare early
  progress, over the paper's three rounds, and rounds are ahead of offline by 0.011, less than the last round brought.
  Reward models are judged once: whether they had levelled is not stored.
- Length: the annotator gives 0.15 a character, so by arithmetic the reward model learns about 8 times that (the
  annotator's sharpness), 1.2 a character, and lambda is 1. Answers have 0.43 dots at the start: there is length to win
  and to lose. No pilot had this arm.
- `people`: the pilot is 5-fold cross-validation of the 445 training pairs by their openings, seeds 100 to 104; it read
  no held-out pair. Can the data show it? After 50, 100, 200 and 400 updates at a rate of 1e-3 the head is right on
  0.638, 0.656, 0.629 and 0.609 of pairs that it has not seen (standard error 0.023), and on 0.72, 0.76, 0.81 and 0.85
  of those that it has; rates of 1e-4 to 3e-2 and a tenfold decay of weights end between 0.61 and 0.65, and the shorter
  answer is the better one in 0.52. Long enough: from 100 updates on it only remembers, so `people` has 100. Strong
  enough? 273 held-out pairs have a standard error of 0.03, and 0.13 is to be seen. What is independent are prompts: the
  rule is on the lower end of the interval over them, each one's accuracy being the mean over seeds.
- The anchor: no claim of the card says which is better. The divergence from pi_0 stands beside both (0.56 and 0.57 nats
  in the first pilot, of gold 0.686 and 0.687).
"""

import math
from collections.abc import Sequence

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import better_by, changes_by, elsewhere, reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Published, Run
from rl_jax.reports.figures import curves_of
from rl_jax.reports.measures import final, lower_end

LABELS = {
    "sft": "SFT", "rm": "Bradley-Terry", "rm_biased": "Bradley-Terry, length-biased", "pm": "pairwise model",
    "adapters": "Bradley-Terry, adapters", "features": "Bradley-Terry, features",
    "iterative": "iterative, anchor pi_0", "iterative_previous": "iterative, previous anchor", "offline": "offline",
    "max_random": "best over random", "max_max": "best over second", "tournament": "iterative, tournament",
    "biased": "biased reward", "penalised": "biased reward, length penalty", "two_temperatures": "two temperatures",
    "second_script": "second script", "gold": "true reward",
}
GOLD = Metric("eval/gold", "gold reward")
PROXY = Metric("eval/reward", "learned reward")
KL = Metric("eval/kl", "KL from pi_0", "lower", "nats an answer")
LENGTH = Metric("eval/answer_length", "length", "lower", "tokens")
ACCURACY = Metric("eval/accuracy", "held-out accuracy")
AGREEMENT = Metric("eval/agreement", "agreement of both orders")
OF_LENGTH = Metric("eval/length_correlation", "correlation of reward and length", "lower")
LONGER = Metric("eval/longer_accuracy", "accuracy of the longer answer")
MODULE = "experiments.rlhf_workflow.train"
PAIRS, SORTING, TEXT = "preferences", "sorting", "hh_harmless"
MODELS = ("rm", "rm_biased", "pm", "features", "adapters")  # of rewards
# The reward model that ranks the answers of each arm with rounds; Bradley and Terry's if it is not named.
REWARD = {"tournament": "pm", "biased": "rm_biased", "penalised": "rm_biased"}
ROUNDS = ("iterative", "iterative_previous", "offline", "max_random", "tournament", "biased", "penalised")
GPU = "needs an accelerator: preset `paper`"
NOTES = (
    "Gold is the share of places with the right digit, of 4 answers at temperature 1 to each of 200 questions.",
    "Of a reward model the accuracy is on pairs of the supervised policy's answers, labelled right.",
)

PUBLISHED = Published(
    label="RLHF Workflow, LC AlpacaEval 2",
    source=(
        "Dong et al. 2024, arXiv 2405.07863v3: length-controlled win rate of LLaMA-3-8B models, one training run each "
        "(LLaMA-3-8B-it has 22.9). MT-Bench / Arena-Hard: SFT 7.69 / 5.6, offline DPO 8.17 / 22.4, iterative "
        "8.46 / 29.1; the concise variant has 22.1 on Arena-Hard and a mean length of 382, not 656. RewardBench chat / "
        "chat-hard / safety / reasoning: Bradley-Terry 99.4 / 65.1 / 87.8 / 86.4, pairwise 98.3 / 65.8 / 89.7 / 94.7. "
        "**Win rates of chats and digits to sort are not comparable.**"
    ),
    values={
        method: {SORTING: (value, math.nan)}
        for method, value in {"sft": 10.2, "offline": 22.5, "iterative": 31.3, "penalised": 38.1}.items()
    },
)


def sorting_runs(methods: Sequence[str], config: str = "configs/rlhf_workflow.py:{stage}") -> tuple[Run, ...]:
    """The runs in the order of their stages; `config` is a template with {stage}."""
    def run(method: str) -> Run:
        # The biased reward ranks the answers of the usual rounds.
        stage = {"biased": "iterative"}.get(method, method).replace("_", "-")
        needs: dict[str, str] = {} if method == "sft" else {"start": f"sft-{SORTING}"}
        if method not in ("sft", "gold", *MODELS):
            needs["reward.run"] = f"{REWARD.get(method, 'rm')}-{PAIRS}"
        task = PAIRS if method in MODELS else SORTING
        return Run(method, task, MODULE, config.format(stage=stage), needs=needs)

    return tuple(run(method) for method in methods)


def paper_runs() -> tuple[Run, ...]:
    needs, common = {"reward.run": f"features-{TEXT}"}, {"tensorboard": False}

    def rounds(method: str) -> Run:
        config = f"configs/rlhf_workflow.py:smollm2/{method.replace('_', '-')}"
        return Run(method, "smollm2", MODULE, config, common, needs)

    return (
        Run("features", TEXT, MODULE, "configs/rlhf_workflow.py:smollm2/features", common),
        Run("pm", TEXT, MODULE, "configs/rlhf_workflow.py:smollm2/pm", common),
        Run("adapters", TEXT, "experiments.reward_model.train", "configs/reward_model.py:smollm2/hh_harmless", common),
        *map(rounds, ("iterative", "iterative_previous", "offline", "max_random", "penalised")),
    )


def of_people(method: str, task: str, named: str) -> Claim:
    return reaches(
        method, 0.5, by="every", measure=lower_end(ACCURACY, "prompts"), tasks=(task,), name="people",
        beside=(ACCURACY, OF_LENGTH), text=f"On people's preferences {named} is right more often than not",
    )


def claims() -> tuple[Claim, ...]:
    gold, length = final(GOLD), final(LENGTH)
    return (
        better_by("iterative", "sft", 0.01, measure=gold, beside=(KL,), tasks=(SORTING,),
                  text="{iterative} beats {sft} by 0.01 of gold"),
        better_by("offline", "sft", 0.01, measure=gold, tasks=(SORTING,), text="{offline} beats {sft} by 0.01 of gold"),
        better_by("iterative", "offline", 0.01, by="mean", measure=gold, beside=(KL,), tasks=(SORTING,),
                  text="{iterative} beats {offline}, of as many pairs and updates, by 0.01 of gold"),
        better_by("iterative_previous", "offline", 0.01, by="mean", measure=gold, beside=(KL,), tasks=(SORTING,),
                  text="{iterative_previous} beats {offline} by 0.01 of gold"),
        better_by("iterative", "max_random", by="mean", measure=gold, tasks=(SORTING,),
                  text="Pairs of best and worst gain at least as much as {max_random}"),
        better_by("tournament", "sft", 0.01, measure=gold, tasks=(SORTING,),
                  text="{tournament}: rounds ranked by the pairwise model beat {sft} by 0.01 of gold"),
        reaches("rm", 0.75, by="mean", measure=final(ACCURACY), tasks=(PAIRS,), beside=(OF_LENGTH,)),
        reaches("pm", 0.85, by="mean", measure=final(AGREEMENT), tasks=(PAIRS,)),
        better_by("pm", "rm", -0.02, by="mean", measure=final(ACCURACY), tasks=(PAIRS,), name="pm_as_accurate",
                  text="{pm} is as accurate as {rm} within 0.02"),
        better_by("rm", "rm_biased", measure=final(OF_LENGTH), tasks=(PAIRS,), name="bias_is_learnt",
                  text="The reward of {rm_biased} goes with length more than that of {rm}"),
        better_by("iterative", "biased", measure=length, tasks=(SORTING,), beside=(GOLD,), name="bias_makes_long",
                  text="Under {biased} answers are longer than under {iterative}"),
        better_by("penalised", "biased", measure=length, tasks=(SORTING,), beside=(PROXY,), name="penalty_shortens",
                  text="{penalised}: shorter answers than under {biased}"),
        better_by("penalised", "biased", -0.01, by="mean", measure=gold, tasks=(SORTING,), name="penalty_keeps_gold",
                  text="{penalised}: no more than 0.01 of gold below {biased}"),
        elsewhere(of_people("rm", PAIRS, "a head on SmolLM2's features"), "judged in preset `people`"),
        elsewhere(better_by("iterative", "offline", measure=final(PROXY), tasks=(SORTING,), name="smollm2_rounds",
                            text="SmolLM2: {iterative} earns more of the learned reward than {offline}"), GPU),
    )


def quick() -> Preset:
    runs = sorting_runs(("sft", "rm", "rm_biased", "pm", *ROUNDS))
    return Preset(runs, claims(), {PAIRS: final(ACCURACY), SORTING: final(GOLD)}, (KL, LENGTH, PROXY, OF_LENGTH), NOTES)


def arms() -> Preset:
    methods = ("iterative_previous", "iterative", "max_max", "two_temperatures", "second_script", "gold")
    return Preset(sorting_runs(("sft", "rm", *methods)), (
        better_by("gold", "iterative", measure=final(GOLD), tasks=(SORTING,),
                  text="Ranked by {gold}, rounds gain more than by {rm}'s"),
        better_by("iterative", "max_max", by="mean", measure=final(GOLD), tasks=(SORTING,),
                  text="Pairs of best and worst gain at least as much as {max_max}"),
    ), {PAIRS: final(ACCURACY), SORTING: final(GOLD)}, (KL, LENGTH), NOTES)


def paper() -> Preset:
    return Preset(paper_runs(), (
        reaches("features", 0.5, measure=final(ACCURACY), tasks=(TEXT,), beside=(OF_LENGTH,), by="mean"),
        reaches("adapters", 0.5, measure=final(ACCURACY), tasks=(TEXT,), beside=(OF_LENGTH,), by="mean"),
        reaches("pm", 0.5, measure=final(ACCURACY), tasks=(TEXT,), beside=(AGREEMENT,), by="mean"),
        changes_by("iterative", PROXY, 0.0, tasks=("smollm2",), beside=(KL, LENGTH)),
        better_by("iterative", "offline", by="mean", measure=final(PROXY), tasks=("smollm2",), beside=(KL,)),
        better_by("penalised", "iterative", by="mean", measure=final(LENGTH), tasks=("smollm2",)),
    ), {TEXT: final(ACCURACY), "smollm2": final(PROXY)}, (KL, LENGTH))


def people() -> Preset:
    run = Run("features", TEXT, MODULE, "configs/rlhf_workflow.py:people")
    return Preset(
        (run,), (of_people("features", TEXT, "{features}"),), final(ACCURACY), (LONGER, OF_LENGTH),
        ("Pairs are those of HH-RLHF's harmless-base/test that are short enough, and the split is ours: accuracies are "
         "means over held-out prompts and no others' numbers. Seeds differ in the batches alone.",),
        {"accuracy.png": curves_of(ACCURACY)}, (),
    )


def tiny() -> Preset:
    methods = ("sft", "rm", "pm", "iterative", "tournament")
    runs = sorting_runs(methods, "configs/rlhf_workflow.py:tiny-{stage}")
    return Preset(runs, (
        better_by("iterative", "sft", measure=final(GOLD), tasks=(SORTING,)),
        reaches("pm", 0.85, by="mean", measure=final(AGREEMENT), tasks=(PAIRS,)),
    ), {PAIRS: final(ACCURACY), SORTING: final(GOLD)}, (KL,))


PAPER = Paper(
    title="RLHF Workflow",
    labels=LABELS,
    baseline="sft",
    measure=GOLD,
    presets={"quick": quick, "arms": arms, "people": people, "paper": paper, "tiny": tiny},
    published=(PUBLISHED,),
    figures={"gold.png": curves_of(GOLD), "kl.png": curves_of(KL), "length.png": curves_of(LENGTH)},
)
