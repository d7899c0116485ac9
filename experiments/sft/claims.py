"""What supervised fine-tuning runs and claims; `python -m experiments.reproduce --paper=sft` reads it.

Presets:
  quick     stories260k on Tiny Shakespeare and on GSM8K, packed and not, 3 seeds: minutes on CPU cores.
  smollm2   SmolLM2 by adapters on GSM8K: for a GPU.
  tiny      seconds: for tests.

The loss of a document is the mean over its tokens; held-out documents are of prompts that are in no training row.

What was asked of the claims before `quick` had its length: on Tiny Shakespeare the held-out loss is 4.9 at the start,
2.6 after 100 and 2.4 after 200 updates, so that 200 show a fall of one nat.
"""

from rl_jax.core.experiment import Metric
from rl_jax.reports.claims import changes_by, close_to
from rl_jax.reports.declaration import Claim, Paper, Preset, Run, grid
from rl_jax.reports.figures import curves_of

LOSS = Metric("eval/loss", "held-out loss", "lower", "nats a token")
LABELS = {"sft": "SFT, packed rows", "unpacked": "SFT, a document a row"}
MODULE = "experiments.sft.train"
COMMON = {"num_seeds": 3, "tensorboard": False}
QUICK = COMMON | {"num_steps": 200, "checkpoint.every": 100}


def falls(task: str, least: float) -> Claim:
    return changes_by("sft", LOSS, least, tasks=(task,), text=f"{{sft}}: held-out loss falls on {task}")


def quick() -> Preset:
    model = "configs/sft.py:stories260k/{task}"
    runs = grid(("sft",), ("tiny_shakespeare", "gsm8k"), module=MODULE, config=model, common=QUICK)
    # Two rows of half the length in the place of one, so that an update sees about as many tokens.
    unpacked = QUICK | {"packing": 0, "batch_size": 16}
    runs += grid(("unpacked",), ("gsm8k",), module=MODULE, config=model, common=unpacked)
    return Preset(runs, (
        falls("tiny_shakespeare", 1.0), falls("gsm8k", 1.0),
        close_to("sft", "unpacked", 0.1, tasks=("gsm8k",)),
    ))


def smollm2() -> Preset:
    runs = grid(("sft",), ("gsm8k",), module=MODULE, config="configs/sft.py:smollm2/{task}", common=COMMON)
    return Preset(runs, (falls("gsm8k", 0.1),))


TINY = Run("sft", "tiny_shakespeare", MODULE, "configs/sft.py:tiny", {"tensorboard": False})
PAPER = Paper(
    title="Supervised fine-tuning",
    labels=LABELS,
    baseline="sft",
    measure=LOSS,
    figures={"loss.png": curves_of(LOSS)},
    presets={
        "quick": quick, "smollm2": smollm2, "tiny": lambda: Preset((TINY,), (falls("tiny_shakespeare", 0.0),)),
    },
)
