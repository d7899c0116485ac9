"""What L2M runs and claims.

Presets:
  quick  a model of four tasks tuned on three others in sequence, by all methods: 3 seeds, minutes on a CPU.
  full   the authors' model, tasks and lengths: for an accelerator.
  tiny   seconds, in Gymnasium's tasks: what the tests run.

What was asked of each claim. Rules and levels were fixed before there was a line of code, and have not been moved; the
lengths, rates and the rank are of pilots of seed 100 and data of seed 100, which no result uses, of one seed each.

Can the data show it. Scripts without noise succeed in 0.95 of their episodes of 120 steps, most of them after 70 to 92;
so episodes are of 160. Pressing a handle from the side succeeded in four of four episodes without being trained on: it
is no new task here, and sliding a plate took its place. Pre-training over 4,000 updates succeeds in 0.71 of the old
tasks' episodes (nearly all of Meta-World's, none of the pendulum's) and in none of the new ones'.
Long enough. After 400 updates a task L2M had learned nothing new (0.00), after 1,500 a fifth: 0.22 at 1e-3, 0.17 at
3e-3; with rank 16 for 4 it was 0.44, but a window trained a fifth of the model. So it is 1,500 updates, and the
authors' rank 8, which trains just under a tenth. Fine-tuning kept nothing of the old tasks by then, and of the new ones
only the last.
Strong enough. With 3 seeds of 6 episodes on each of 3 new tasks a mean near a half has a standard error of 0.07, so
that a level of 0.1 is decided by luck unless methods differ by 0.3. In the pilot L2M had 0.79 of the old tasks after
the sequence, fine-tuning 0.00; on the new ones one LoRA of rank 4 had 0.22, as L2M of rank 4 had.
"""

from experiments.l2m.figure import KEPT, NEW, OLD, PURITY, TRAINED, draw_trade_off
from rl_jax.reports.claims import better_by, elsewhere, reaches
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid

LABELS = {
    "pretrained": "pre-trained, untuned", "l2m": "L2M", "l2m_ia3": "L2M with IA3",
    "l2m_no_old_keys": "L2M without old keys", "lora": "LoRA, one", "ia3": "IA3, one", "adapters": "adapters, one",
    "prefix": "prefix, one", "prompt": "prompt, one", "l2p": "L2P", "ft": "fine-tuning", "ewc": "EWC", "l2": "L2",
    "head": "head", "last_layer": "last layer", "last_layer_head": "last layer and head",
}
METHODS = ("l2m", "l2m_ia3", "lora", "l2p", "ft", "ewc", "head")
SEQUENCE = "sequence"


def runs(methods: tuple[str, ...], kind: str = "") -> tuple[Run, ...]:
    """Pre-training and what starts from it."""
    module, config = "experiments.l2m.train", "configs/l2m.py:"
    first = Run("pretrained", SEQUENCE, module, config + (kind.rstrip("-") or "quick"))
    return first, *grid(methods, (SEQUENCE,), module=module, config=config + kind + "{method}",
                        needs={"init_from.run": first.name})


def claims() -> tuple[Claim, ...]:
    """Of the abstract, and of the card's pilot."""
    return (
        better_by("l2m", "pretrained", -0.05, by="mean", measure=OLD, name="l2m_forgets_nothing",
                  text="after the sequence {l2m} succeeds on the pre-training tasks as before, within 0.05"),
        better_by("pretrained", "ft", 0.3, by="mean", measure=OLD, name="ft_forgets",
                  text="{ft} loses 0.3 of its success on the pre-training tasks"),
        better_by("l2m", "lora", 0.1, by="mean", measure=NEW, name="l2m_above_lora",
                  text="on the new tasks {l2m} succeeds more often than {lora} for all, by 0.1"),
        better_by("l2m", "head", 0.2, by="mean", measure=NEW, name="l2m_above_head",
                  text="on the new tasks {l2m} succeeds more often than tuning of the {head}, by 0.2"),
        reaches("l2m", 10.0, by="every", measure=TRAINED, name="l2m_trains_little",
                text="a window trains at most a tenth as many numbers as the model has"),
        reaches("l2m", 0.8, by="every", measure=PURITY, name="l2m_tells_tasks_apart",
                text="what {l2m} selects gives 0.8 of the information which new task it is"),
    )


def quick() -> Preset:
    beyond = better_by("l2m", "l2p", by="interval", measure=NEW, name="continual_world",
                       text="on Continual World {l2m} is better than {l2p}")
    return Preset(
        runs(METHODS), (*claims(), elsewhere(beyond, "days of an accelerator: preset `full`")),
        beside=(OLD, TRAINED),
    )


def full() -> Preset:
    return Preset(runs(tuple(name for name in LABELS if name != "pretrained"), "paper-"), claims())


def tiny() -> Preset:
    return Preset(runs(("l2m", "ft"), "tiny-"), (
        better_by("l2m", "ft", by="mean", measure=OLD), reaches("l2m", 0.5, by="mean", measure=KEPT),
    ))


PAPER = Paper(
    title="L2M",
    labels=LABELS,
    baseline="ft",
    measure=NEW,
    presets={"quick": quick, "full": full, "tiny": tiny},
    notes=(
        "Success is Meta-World's own; the pendulum's is to stand upright over the last 20 steps. Gymnasium's pendulum "
        "and mountain car stand in for DMControl, scripts and a stored policy with noise for the authors' SAC.",
        "All methods start from one pre-trained model; seeds are of the tuning. Episodes are judged after the last "
        "task, and nobody says which task it is.",
        "The authors' figures are curves: no numbers of theirs are quoted.",
    ),
    figures={"trade_off.png": draw_trade_off},
)
