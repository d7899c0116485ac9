"""Light-R1's own numbers, of models of 14 and 32 billion parameters on AIME 2024."""

import math

from rl_jax.reports.declaration import Published

# Stages of the 32B model from Qwen2.5-32B-Instruct (16.6 before); GRPO is of the 14B model (69.7 before).
_AIME24 = {"sft1": 69.0, "sft2": 73.0, "dpo_nca": 75.8, "average": 76.6, "grpo": 74.0}

PUBLISHED = Published(
    label="Light-R1, AIME24",
    source=(
        "Wen et al. 2025, README of github.com/Qihoo360/Light-R1: mean of 64 samples a problem at temperature 0.6, one "
        "training run each; the first four are stages of Light-R1-32B, whose base Qwen2.5-32B-Instruct has 0.166, and "
        "GRPO is Light-R1-14B-DS, which starts at 0.697. The README reports a drop on GPQA from 0.643 after the first "
        "stage to 0.606 after the second. **Competition problems and chains of sums are not comparable.**"
    ),
    values={method: {"chains": (value / 100, math.nan)} for method, value in _AIME24.items()},
)
