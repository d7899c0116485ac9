"""Makes a behaviour policy of the `locomotion-2` sets of a snapshot of SAC.

    python -m rl_jax.data.locomotion.embed RUN STEP OUT, such as runs/sac-hopper 50000 sac_hopper_050k.npz

The run is one of `experiments.offline_rl.finetune --config=configs/offline_to_online.py:sac/<task>`, with a
--config.checkpoint.keep that keeps the step. `policies/SOURCE.md` describes the layout of the file.
"""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from rl_jax.core.checkpoint import load_leaves
from rl_jax.core.files import atomically, read_object
from rl_jax.core.runtime import run_binary
from rl_jax.data.locomotion.policies import policy_from_arrays
from rl_jax.data.locomotion.rollout import BLOCK_EPISODES, returns_of, roll_out_block
from rl_jax.data.locomotion.sets import TIME_LIMIT

LAYER = "params/actor/params/MLP_0/Dense_{}/{}"


def policy_arrays(run: str | Path, step: int) -> dict[str, np.ndarray]:
    """The arrays of a policy's file: the actor of a run's first seed as float16, and the returns of its mode.

    Raises:
      FileNotFoundError: there is no such run or checkpoint.
      ValueError: the run is not one of SAC.
    """
    config = read_object(Path(run) / "config.json")
    if config.get("agent", {}).get("name") != "sac":
        raise ValueError(f"{run}: no run of SAC: name one of configs/offline_to_online.py:sac/<task>")
    last = len(config["agent"]["hidden_dims"])
    names = [LAYER.format(i, part) for i in range(last + 1) for part in ("kernel", "bias")]
    device = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    _, leaves = load_leaves(run, {name: lambda shape: device for name in names}, step)
    arrays = {
        f"{letter}{i}": np.asarray(leaves[LAYER.format(i, part)][0], np.float16)
        for i in range(last + 1) for letter, part in (("W", "kernel"), ("b", "bias"))
    }
    # The last layer has two heads: the mean, and the logarithm of the deviation.
    for letter, name in (("W", "logstd_W"), ("b", "logstd_b")):
        arrays[f"{letter}{last}"], arrays[name] = np.split(arrays[f"{letter}{last}"], 2, axis=-1)
    arrays |= {"n_layers": np.int32(last + 1), "activation": np.array("relu"), "head": np.array("tanh")}
    modes = roll_out_block(
        config["env_id"], policy_from_arrays(arrays), (0,), 0, BLOCK_EPISODES * TIME_LIMIT, stochastic=False
    )
    return arrays | {"eval_env": np.array(config["env_id"]), "eval_returns": returns_of(modes)}


def main(argv: list[str]) -> None:
    if len(argv) != 4 or not argv[2].isdigit():
        raise ValueError("give the folder of a run of SAC, a step and the file to write: RUN STEP OUT")
    run, step, out = argv[1:]
    arrays = policy_arrays(run, int(step))
    with atomically(out) as file:
        np.savez_compressed(file, **arrays)
    returns = arrays["eval_returns"]
    print(f"{out}: {arrays['eval_env']}, return of the mode {returns.mean():.0f} +- {returns.std():.0f}")


if __name__ == "__main__":
    run_binary(main)
