"""The paper's scores on D4RL, as far as they are known; no deviations are among them."""

import math

from rl_jax.reports.declaration import Published

_MEANS = """
task                              iql   xql  fdvl_tv  fdvl_chi2  recoil  smodice  oril
halfcheetah-medium               47.4  47.4     47.5       47.7       -        -     -
hopper-medium                    66.3  68.5     64.1       63.0       -        -     -
walker2d-medium                  78.3  81.4     81.5       80.0       -        -     -
halfcheetah-medium-replay        44.2  44.1     44.7       42.9       -        -     -
hopper-medium-replay             94.7  95.1     98.0       90.7       -        -     -
walker2d-medium-replay           73.9  58.0     68.7       52.1       -        -     -
hopper-random-with-expert           -     -        -          -   108.2    101.6  73.9
halfcheetah-random-with-expert      -     -        -          -    80.2        -     -
walker2d-random-with-expert         -     -        -          -   102.2        -     -
hopper-random-with-few-expert       -     -        -          -    97.9        -     -
halfcheetah-random-with-few-expert  -     -        -          -    76.9        -     -
walker2d-random-with-few-expert     -     -        -          -    83.2        -     -
hopper-medium-with-expert           -     -        -          -    88.5        -     -
halfcheetah-medium-with-expert      -     -        -          -    81.1        -     -
walker2d-medium-with-expert         -     -        -          -   108.0        -     -
"""

_header, *_rows = (line.split() for line in _MEANS.strip().splitlines())
SIKCHI = Published(
    label="the paper on D4RL",
    source=(
        "Sikchi et al. 2023, arXiv 2302.08560: D4RL's v2 sets, 1,000,000 updates. The figures were transcribed "
        "second-hand; of these columns only IQL's was checked against another source. **D4RL's sets are not ours.**"
    ),
    values={
        method: {row[0]: (float(row[column]), math.nan) for row in _rows if row[column] != "-"}
        for column, method in enumerate(_header[1:], start=1)
    },
)
