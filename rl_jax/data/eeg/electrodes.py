"""Where the electrodes of the 10-10 system lie on a flat head, by their names.

Jurcak, Tsuzuki and Dan 2007, "10/20, 10/10, and 10/5 systems revisited", NeuroImage 34. Seen from above, nose up; 1 is
the circle through nasion, inion and the ears. Azimuthal equidistant: the midline and the ring are in equal steps.
"""

import math
import re

# By row: the height of its midline electrode, and where on the ring (radius 0.8, degrees from the front) it ends.
ROWS = {
    "FP": (0.8, 18.0), "AF": (0.6, 36.0), "F": (0.4, 54.0), "FC": (0.2, 72.0), "FT": (0.2, 72.0), "C": (0.0, 90.0),
    "T": (0.0, 90.0), "CP": (-0.2, 108.0), "TP": (-0.2, 108.0), "P": (-0.4, 126.0), "PO": (-0.6, 144.0),
    "O": (-0.8, 162.0), "I": (-1.0, 180.0),
}
RING = 0.8
ENDS = ("FP", "O")  # rows whose electrodes 1 and 2 lie on the ring


def position(name: str) -> tuple[float, float]:
    """(x, y) of an electrode: x to the right, y to the front. Odd numbers are left, T9 and T10 outside of the ring.

    Raises:
      ValueError: it has no name of the 10-10 system.
    """
    found = re.fullmatch(r"([A-Z]+)(Z|\d+)", name.upper())
    if not found or found[1] not in ROWS:
        raise ValueError(f"electrode {name!r} is none of the 10-10 system: such as C3, FCz or PO8")
    middle, degrees = ROWS[found[1]]
    if found[2] == "Z":
        return 0.0, middle
    number = int(found[2])
    side, steps = (-1.0 if number % 2 else 1.0), (number + 1) // 2  # 1 and 2 are one step off the midline
    share = 1.0 if found[1] in ENDS else steps / 4.0
    if share > 1.0:
        return side * RING * share, middle
    x, y = RING * math.sin(math.radians(degrees)), RING * math.cos(math.radians(degrees))
    return side * x * share, middle + (y - middle) * share**2
