"""The paper's shares of successes in Meta-World, as far as they are known; no deviations are among them."""

import math

from rl_jax.reports.declaration import Published

METHODS = ("sft", "piql", "cpl")
# Percentages of SFT, P-IQL and CPL, on dense data, then on sparse data.
_FROM_STATES = {
    "bin-picking": (66.9, 70.6, 80.0, 67.0, 75.0, 83.2),
    "button-press": (21.6, 16.2, 24.5, 21.4, 19.5, 29.8),
    "door-open": (63.3, 69.0, 80.0, 63.6, 79.0, 77.9),
    "drawer-open": (62.6, 71.1, 83.6, 63.5, 76.2, 79.1),
    "plate-slide": (41.6, 49.6, 61.1, 41.9, 55.5, 56.4),
    "sweep-into": (51.9, 60.6, 70.4, 50.9, 73.4, 81.2),
}
_FROM_PICTURES = {
    "bin-picking": (74.7, 83.7, 80.0, 71.5, 80.0, 78.5),
    "button-press": (20.8, 22.1, 27.5, 22.3, 27.2, 31.3),
    "door-open": (62.9, 68.0, 73.6, 65.2, 74.8, 70.2),
    "drawer-open": (64.5, 76.0, 80.3, 67.5, 80.3, 79.5),
    "plate-slide": (44.5, 51.2, 57.3, 41.3, 54.8, 61.0),
    "sweep-into": (52.5, 67.7, 68.3, 55.8, 72.5, 72.0),
}


def _hejna(seen: str, updates: str, percent: dict[str, tuple[float, ...]]) -> Published:
    return Published(
        label="the paper",
        source=(
            f"Hejna et al. 2023, arXiv 2310.13639, table 1, from {seen}: best of the running average over checkpoints, "
            f"4 seeds, {updates} updates. The figures were transcribed second-hand. **The data are not ours**: there "
            "SAC stopped half-way acts, and a SAC critic labels."
        ),
        values={
            method: {
                name: (row[column + 3 * sparse] / 100, math.nan)
                for task, row in percent.items() for sparse, name in enumerate((task, f"{task}-sparse"))
            }
            for column, method in enumerate(METHODS)
        },
    )


HEJNA = _hejna("states", "500,000", _FROM_STATES)
HEJNA_PICTURES = _hejna("pictures", "120,000 (sparse data: 200,000)", _FROM_PICTURES)
