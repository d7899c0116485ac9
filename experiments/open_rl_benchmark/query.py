"""Reads any tree of runs, chooses some by filters, and writes their table, their figures and a manifest.

    python -m experiments.open_rl_benchmark.query --root=runs \
        --filters="agent.name=td3_bc&cl=TD3+BC" --filters="agent.name=bc&cl=BC" --metric=eval/normalized_score

Huang, Gallouédec, Felten, Raffin et al. 2024, "Open RL Benchmark: Comprehensive Tracked Experiments for Reinforcement
Learning", arXiv 2402.03046. A root is a folder with run folders, TensorBoard event files or W&B exports somewhere below
it, or a Parquet file of --parquet. rl_jax/reports/filters.py says how a filter is written, README.md what is written to
--out. The last line on standard output is one JSON object.
"""

import json
import sys
from collections.abc import Sequence

from absl import flags

from rl_jax.core.runtime import run_binary
from rl_jax.reports.comparison import DRAW
from rl_jax.reports.query import NORMALIZE, Query, answer


def main() -> None:
    defaults = Query((), ())
    flags.DEFINE_multi_string("root", ["runs"], "A folder or Parquet file of runs; repeat it for several.")
    flags.DEFINE_multi_string("filters", None, "FIELD=VALUE&...&cl=LABEL: one curve; repeat it for several.")
    flags.DEFINE_string("metric", defaults.metric, "What is compared; a filter's metric= stands above it.")
    flags.DEFINE_enum("better", defaults.better, ["higher", "lower"], "Which way of the metric is good.")
    flags.DEFINE_string("by", defaults.by, "The field that names a run's task; a filter's by= stands above it.")
    flags.DEFINE_multi_enum("x", list(defaults.x), list(DRAW), "The x-axis; a figure for each.")
    flags.DEFINE_integer("last", defaults.last, "A run's value is the mean of so many last values.", lower_bound=1)
    flags.DEFINE_string(
        "normalize", defaults.normalize,
        f"{', '.join(NORMALIZE)}, or a JSON file with constants, such as an earlier manifest.",
    )
    flags.DEFINE_integer("repetitions", defaults.repetitions, "Bootstrap resamples of an interval.", lower_bound=100)
    flags.DEFINE_string("out", defaults.out, "The folder to write to.")
    flags.DEFINE_string("parquet", defaults.parquet, "A Parquet file to write the long table of the chosen runs to.")
    flags.mark_flag_as_required("filters")
    for name in ("root", *Query._fields[1:]):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}: give each filter its own --filters=")
        values = flags.FLAGS
        print(json.dumps(answer(Query(values.root, *(values[name].value for name in Query._fields[1:])))), flush=True)

    run_binary(guarded)


if __name__ == "__main__":
    main()
