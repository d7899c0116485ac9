"""RLHF-V's own numbers, of a model of 13 billion parameters that sees images."""

import math

from rl_jax.reports.declaration import Published

# Responses with a hallucination of any kind, judged by people (MHumanEval, "all"), per cent; lower is better.
_MHUMANEVAL = {"sft": 65.1, "correction_1400": 57.5, "ddpo_1400": 55.5}

PUBLISHED = Published(
    label="RLHF-V, MHumanEval",
    source=(
        "Yu et al. 2023, arXiv 2312.00849, the ablation: share of 146 responses in which people find a hallucination, "
        "of Muffin-13B after VQA tuning only, with vanilla DPO on the same 1,400 corrections, and with dense DPO; one "
        "training run each. On Object HalBench dense DPO has 12.2% of responses and 7.5% of mentions where Muffin has "
        "50.5% and 24.5%. **Images with judgements by people and scenes of eight values are not comparable.**"
    ),
    values={method: {"scenes": (value / 100, math.nan)} for method, value in _MHUMANEVAL.items()},
)
