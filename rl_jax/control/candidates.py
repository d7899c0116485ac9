"""Candidate policies of off-policy evaluation: as distributions at the states of the data, and out of runs' folders."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from rl_jax.control.agents import AGENTS, make_agent
from rl_jax.control.tasks import ActionBox, Task, action_box
from rl_jax.core.checkpoint import load_leaves, saved_names
from rl_jax.core.files import read_object
from rl_jax.core.provenance import read_starts
from rl_jax.data.preprocess import normalize_observations
from rl_jax.evaluation.off_policy.kernels import kernel_log_ratios
from rl_jax.networks.distributions import Categorical, Deterministic, Draws, UnitGaussian

Policy = Callable[[np.ndarray], Any]  # observations [B, O] -> a distribution, every leaf [B, ...]
ROWS = 50_000  # states that are computed at once
NEVER = -1e9  # a logit: exp of it is 0, and its products with 0 are numbers


class Kernel(NamedTuple):
    """How a policy without a density gets one: rl_jax/evaluation/off_policy/kernels.py; in units of [-1, 1]."""

    name: str = "gaussian"
    bandwidth: float = 0.5


class Candidate(NamedTuple):
    """A policy that may be deployed.

    Attributes:
      policy: its distribution is over one-hot actions, or over actions in [-1, 1].
      box: of the task's actions.
      actor: what acts in a simulator, where that is not the policy.
    """

    policy: Policy
    box: ActionBox = ActionBox()
    actor: Any = None

    def at(self, observations: np.ndarray) -> Any:
        """The distribution at observations [..., O], host leaves [..., ...]."""
        rows = observations.reshape(-1, observations.shape[-1])
        parts = [jax.device_get(self.policy(rows[i : i + ROWS])) for i in range(0, len(rows), ROWS)]
        shape = observations.shape[:-1]
        return jax.tree.map(lambda *x: np.concatenate(x).reshape(*shape, *x[0].shape[1:]), *parts)

    def log_prob(self, observations: np.ndarray, actions: np.ndarray, kernel: Kernel) -> np.ndarray:
        """log pi(a|s), [...]: of one-hot actions [..., A], or the log density of the task's actions [..., A]."""
        distribution = self.at(observations)
        if isinstance(distribution, Categorical):
            return np.asarray(distribution.log_prob(actions.argmax(-1)))
        inside = self.box.to_agent(actions)
        if isinstance(distribution, Deterministic | UnitGaussian):  # the latter acts by its mean alone
            found = kernel_log_ratios(
                inside, distribution.mode(), np.zeros(()), kernel=kernel.name, bandwidth=kernel.bandwidth
            )
        else:
            found = np.asarray(distribution.log_prob(inside), np.float64)
        # A density of the task's actions: the box is as wide as half_width says.
        return found - np.log(np.broadcast_to(self.box.half_width, actions.shape[-1:])).sum()

    def ahead(self, observations: np.ndarray, count: int, seed: int) -> Categorical | Draws:
        """What learners read, leaves [..., ...]: all chances of numbered actions, or `count` draws of others."""
        distribution = self.at(observations)
        if isinstance(distribution, Categorical):
            return distribution
        drawn = jax.vmap(distribution.sample)(jax.random.split(jax.random.key(seed), count))
        return Draws(self.box.to_task(np.moveaxis(np.asarray(drawn), 0, -2)).astype(np.float32))


def at_mode(policy: Policy) -> Policy:
    """The policy that always does what another one's mode is."""

    def certain(observations: np.ndarray) -> Any:
        distribution = policy(observations)
        if not isinstance(distribution, Categorical):
            return Deterministic(distribution.mode())
        chosen = jax.nn.one_hot(distribution.mode(), distribution.logits.shape[-1])
        return Categorical(jnp.where(chosen > 0, 0.0, NEVER))

    return certain


def learnt_policy(folder: str | Path, observation: int, action: int) -> Partial:
    """The policy of the first seed in the newest checkpoint of a run: raw observations [..., O] -> a distribution.

    Args:
      observation, action: O and A of the data, A the number of actions where they are one-hot.

    Raises:
      FileNotFoundError: it is no run's folder, or has no checkpoint.
      ValueError: its agent is no policy of one observation, or one of other observations or actions.
    """
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: not the --workdir of a run: there is no config.json in it")
    config = ConfigDict(read_object(path / "config.json"))
    name = config.get("agent", {}).get("name", "")
    agent = make_agent(config, action) if name in AGENTS else None
    if agent is None or agent.policy is None:
        raise ValueError(f"{folder}: its agent {name!r} is no policy of one observation: give runs of "
                         f"{', '.join(sorted(set(AGENTS) - {'dt'}))}")
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = [one for one in saved_names(path) if one.startswith(("params/", "extra/observation_"))]
    _, leaves = load_leaves(path, {one: lambda shape: place for one in wanted})
    tree = flax.traverse_util.unflatten_dict({tuple(one.split("/")): x[0] for one, x in leaves.items()})

    def policy(weights: Mapping[str, Any], observations: jax.Array) -> Any:
        extra = weights.get("extra", {})
        if "observation_mean" in extra:
            observations = normalize_observations(observations, extra["observation_mean"], extra["observation_std"])
        return agent.policy(weights["params"], observations)

    found = Partial(jax.jit(policy), tree)
    try:
        jax.eval_shape(found, jax.ShapeDtypeStruct((1, observation), jnp.float32))
    except (TypeError, ValueError, flax.errors.ScopeParamShapeError) as error:
        raise ValueError(f"{folder}: its policy has other observations or actions than the data, which have "
                         f"{observation} and {action}: {' '.join(str(error).split())[:200]}") from error
    return found


def learnt_box(folder: str | Path) -> ActionBox:
    """The box of the task that a run was made for; that of [-1, 1] where it names none.

    Raises:
      ValueError: the name of the task asks for a module to be imported.
    """
    env_id = str(read_starts(Path(folder).expanduser() / "provenance.json")[-1]["inputs"].get("env_id", ""))
    if ":" in env_id:
        raise ValueError(f"{folder}: its task {env_id!r} names a module, which is not imported: give log-probs in the "
                         "data in its place")
    if not env_id:
        return ActionBox()
    with Task(env_id.partition("(")[0]).open(1) as pool:
        return action_box(pool)
