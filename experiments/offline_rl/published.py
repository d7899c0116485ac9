"""Scores on D4RL that others publish: mean and standard deviation over their seeds, after the last update.

D4RL's data are not the `locomotion` sets of the same names: these numbers stand beside ours for orientation only.
"""

from rl_jax.reports.declaration import Published


def _table(means: str, deviations: str) -> dict[str, dict[str, tuple[float, float]]]:
    """method -> task -> (mean, standard deviation), from two tables with a row a task and a column a method."""
    (header, *rows), (same, *others) = ([line.split() for line in x.strip().splitlines()] for x in (means, deviations))
    assert header == same and [row[0] for row in rows] == [row[0] for row in others]
    return {
        method: {row[0]: (float(row[column]), float(other[column])) for row, other in zip(rows, others)}
        for column, method in enumerate(header[1:], start=1)
    }


CORL = Published(
    label="CORL on D4RL",
    source=(
        "github.com/tinkoff-ai/CORL, README at 6afec90, table *Last Scores, Gym-MuJoCo*: D4RL's v2 sets, 1,000,000 "
        "updates (DT 100,000; SAC-N and EDAC 3,000,000), mean ± standard deviation over 4 seeds. **D4RL's sets are not "
        "ours.**"
    ),
    values=_table(
        """
        task                          bc    bc10  td3_bc   awac     cql     iql  rebrac   sac_n    edac      dt
        halfcheetah-medium         42.40   42.46   48.10  49.46   47.04   48.31   64.04   68.20   67.70   42.20
        halfcheetah-medium-replay  35.66   23.59   44.84  44.70   45.04   44.46   51.18   60.70   62.06   38.91
        halfcheetah-medium-expert  55.95   90.10   90.78  93.62   95.63   94.74  103.80   98.96  104.76   91.55
        hopper-medium              53.51   55.48   60.37  74.45   59.08   67.53  102.29   40.82  101.70   65.10
        hopper-medium-replay       29.81   70.42   64.42  96.39   95.11   97.43   94.98  100.33   99.66   81.77
        hopper-medium-expert       52.30  111.16  101.17  52.73   99.26  107.42  109.45  101.31  105.19  110.44
        walker2d-medium            63.23   67.34   82.71  66.53   80.75   80.91   85.82   87.47   93.36   67.63
        walker2d-medium-replay     21.80   54.35   85.62  82.20   73.09   82.15   84.25   78.99   87.10   59.86
        walker2d-medium-expert     98.96  108.70  110.03  49.41  109.56  111.72  111.86  114.93  114.75  107.11
        """,
        """
        task                          bc  bc10  td3_bc   awac    cql   iql  rebrac  sac_n   edac    dt
        halfcheetah-medium          0.19  0.70    0.18   0.62   0.22  0.22    0.68   1.28   1.04  0.26
        halfcheetah-medium-replay   2.33  6.95    0.59   0.69   0.27  0.22    0.31   1.01   1.10  0.50
        halfcheetah-medium-expert   7.35  2.45    6.04   0.41   0.42  0.52    2.95   9.31   0.64  0.95
        hopper-medium               1.76  7.30    3.49   9.14   3.77  3.78    0.17   9.91   0.28  1.61
        hopper-medium-replay        2.07  8.66   21.52   5.28   5.27  6.39    6.53   0.78   0.81  6.87
        hopper-medium-expert        4.01  1.03    9.07  37.47  10.91  7.80    2.34  11.63  10.08  0.33
        walker2d-medium            16.24  5.17    4.78  26.04   3.28  3.17    0.77   0.66   1.38  2.54
        walker2d-medium-replay     10.15  6.34    4.01   1.05  13.22  3.03    2.25   0.50   2.78  2.73
        walker2d-medium-expert     15.98  0.25    0.36  38.16   0.39  0.86    0.43   0.41   0.74  0.96
        """,
    ),
)

JAX_CORL = Published(
    label="JAX-CORL on D4RL",
    source=(
        "github.com/nissymori/JAX-CORL, README at d747dd8, table *Normalized Score*: D4RL's v2 sets without "
        "medium-replay, mean ± standard deviation over 5 seeds of 5 episodes. **D4RL's sets are not ours.**"
    ),
    values=_table(
        """
        task                        awac     iql  td3_bc     cql     xql      dt
        halfcheetah-medium         41.56   46.23   48.12   48.65   47.16   42.63
        halfcheetah-medium-expert  76.61   92.95   92.99   53.76   86.33   70.63
        hopper-medium              51.45   56.78   46.51   77.56   62.35   60.85
        hopper-medium-expert       51.89   90.72  105.47   90.37  104.12  109.07
        walker2d-medium            68.12   77.16   72.73   80.16   83.45   71.04
        walker2d-medium-expert     91.36  109.08  109.17  110.03  110.06   99.81
        """,
        """
        task                        awac    iql  td3_bc    cql   xql     dt
        halfcheetah-medium          0.79   0.23    0.42   0.49  0.16   0.53
        halfcheetah-medium-expert   9.60   0.79    0.11  14.53  4.89  14.70
        hopper-medium               5.40   3.50    4.57   7.12  5.42   6.78
        hopper-medium-expert        2.11  14.80    5.03  31.29  5.39   4.56
        walker2d-medium            12.08   5.74    4.66   4.19  0.42   5.64
        walker2d-medium-expert     23.13   0.77    0.71   0.72  0.22  17.73
        """,
    ),
)

CORL_DOOR = Published(
    label="CORL on D4RL's door-human-v1",
    source=(
        "github.com/tinkoff-ai/CORL, README at 6afec90, table *Last Scores, Adroit*: 1,000,000 updates, mean ± "
        "standard deviation over seeds. **The same demonstrations, replayed in another version of the simulator.**"
    ),
    values={
        method: {"adroit-door-human": value}
        for method, value in {
            "bc": (2.34, 4.00), "bc10": (-0.13, 0.07), "td3_bc": (-0.33, 0.01), "awac": (4.60, 1.90),
            "cql": (5.53, 1.31), "iql": (3.26, 1.83),
        }.items()
    },
)
