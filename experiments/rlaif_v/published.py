"""RLAIF-V's own numbers, of models of 7 and 12 billion parameters that see images."""

import math

from rl_jax.reports.declaration import Published

PUBLISHED = Published(
    label="RLAIF-V 7B: Object HalBench, responses with a hallucination",
    source=(
        "Yu et al. 2025, arXiv 2405.17220, notes on its tables: LLaVA-1.5-7B 54.5%, RLAIF-V 7B 10.5%, 6.8% with the "
        "best of several answers; without deconfounded pairs 25.7% against 10.1%; labels agree with people in 96.7%, "
        "without division in 66.7%. **Images and scenes of eight values are not comparable.**"
    ),
    values={
        "sft": {"scenes": (0.545, math.nan)}, "divide": {"scenes": (0.105, math.nan)},
        "confounded": {"scenes": (0.257, math.nan)},
    },
)
