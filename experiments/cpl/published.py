"""The paper's shares of successes in Meta-World, as far as they are known; no deviations are among them."""

import math

from rl_jax.reports.declaration import Published

METHODS = ("sft", "piql", "cpl")
# Percentages from states: SFT, P-IQL and CPL on dense data, then on sparse data.
_PERCENT = {
    "bin-picking": (66.9, 70.6, 80.0, 67.0, 75.0, 83.2),
    "button-press": (21.6, 16.2, 24.5, 21.4, 19.5, 29.8),
    "door-open": (63.3, 69.0, 80.0, 63.6, 79.0, 77.9),
    "drawer-open": (62.6, 71.1, 83.6, 63.5, 76.2, 79.1),
    "plate-slide": (41.6, 49.6, 61.1, 41.9, 55.5, 56.4),
    "sweep-into": (51.9, 60.6, 70.4, 50.9, 73.4, 81.2),
}
HEJNA = Published(
    label="the paper",
    source=(
        "Hejna et al. 2023, arXiv 2310.13639, table 1, from states: best of the running average over checkpoints, 4 "
        "seeds, 500,000 updates. The figures were transcribed second-hand. **The data are not ours**: there SAC "
        "stopped half-way acts, and a SAC critic labels."
    ),
    values={
        method: {
            name: (row[column + 3 * sparse] / 100, math.nan)
            for task, row in _PERCENT.items() for sparse, name in enumerate((task, f"{task}-sparse"))
        }
        for column, method in enumerate(METHODS)
    },
)
