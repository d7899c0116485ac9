"""Logs episodes of a policy as experiments.scope_rl.evaluate reads them: an example, and data to try your runs on.

    python -m experiments.scope_rl.log --task=cartpole-random --out=logged.npz
    python -m experiments.scope_rl.log --task=hopper --episodes=500 --out=hopper.npz

The file has the log-probs of what was done, of a task of configs/scope_rl.py:control/<task>; the last line on standard
output is one JSON object.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from configs import scope_rl as configs
from rl_jax.control.off_policy_problems import logged_episodes, problem_of
from rl_jax.core.config import unknown
from rl_jax.core.files import atomically
from rl_jax.core.runtime import run_binary
from rl_jax.data.episodes import STEP_FIELDS

TASK = flags.DEFINE_string("task", "cartpole-random", "Whose policy logs: a task of control/<task>.")
OUT = flags.DEFINE_string("out", None, "The npz file to write.")
EPISODES = flags.DEFINE_integer("episodes", 500, "How many.", lower_bound=2)
SEED = flags.DEFINE_integer("seed", 0, "Of the episodes.", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: all is set by flags, see --help")
    if TASK.value not in configs.CONTROL:
        raise ValueError(f"--task: {unknown('task', TASK.value, configs.CONTROL)}")
    config = configs.get_config(f"control/{TASK.value}")
    config.candidates, config.learned = (), {}
    made = logged_episodes(problem_of(config), EPISODES.value, SEED.value)
    fields = {field: getattr(made, field) for field in STEP_FIELDS} | made.extras
    with atomically(Path(OUT.value).expanduser()) as file:
        np.savez_compressed(file, **fields)
    print(json.dumps({
        "data": OUT.value, "episodes": made.num_episodes, "steps": len(made),
        "mean_return": float(made.returns.mean()),
    }), flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("out")
    run_binary(main)
