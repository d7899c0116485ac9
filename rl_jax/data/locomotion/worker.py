"""A roll-out worker process: `python -m rl_jax.data.locomotion.worker`, started by `collect`.

It reads one job a line (JSON) from standard input and answers each on standard output with eight bytes of length and an
npz of `roll_out_block`'s arrays. A process of its own, and not multiprocessing's spawn, because spawn would import the
caller's main module, and with it JAX, in every worker. It ends when its input does, so it cannot outlive its parent.
"""

import io
import json
import os
import struct
import sys

import numpy as np

from rl_jax.data.locomotion.policies import load_policy
from rl_jax.data.locomotion.rollout import roll_out_block


def main() -> None:
    """Answers jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    policies = {}
    for line in sys.stdin:
        job = json.loads(line)
        if job["policy"] not in policies:
            policies[job["policy"]] = load_policy(job["policy"])
        arrays = roll_out_block(
            job["env_id"], policies[job["policy"]], tuple(job["seed_sequence"]), job["block"], job["max_steps"],
            job.get("stochastic", True),
        )
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        answers.write(struct.pack("<Q", buffer.tell()))
        answers.write(buffer.getbuffer())
        answers.flush()


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(1)  # the parent is gone or going: no traceback
