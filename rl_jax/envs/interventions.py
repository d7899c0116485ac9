"""An expert beside the learner: when it takes over, what of it is stored, and with which rewards.

Luo, Dong, Zhai, Ma and Levine 2023, "RLIF: Interactive Imitation Learning as Reinforcement Learning", arXiv 2311.12996.
The only reward is -1 for the step before a take-over, the one that made it necessary. So a step is stored when the
next one is known; the task's own reward is never stored.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.program import Feed, Key, PyTree, TrainState
from rl_jax.data.experts.experts import Acting
from rl_jax.data.replay import ReplayBuffer
from rl_jax.envs.collector import Act, Collector
from rl_jax.envs.gym_pool import EnvPool

# q(params, observations [1, O], actions [1, A] of the task) -> [1], the reference Q.
Value = Callable[[PyTree, jax.Array, jax.Array], jax.Array]

KINDS = ("value", "random", "random_segments", "never")
CHOICES = {
    "what": ("steps", "labels", "segments"), "expert_steps": ("last", "all", "none"),
    "last_step": ("dropped", "kept", "punished"), "unlabelled": ("own", "dropped"),
}


class Rule(NamedTuple):
    """When the expert takes over, and for how long.

    Attributes:
      kind: "value": where the reference Q of the policy's action is worse than the expert's by the threshold, with
        probability beta, and elsewhere with 1 - beta. "random": in every step anew with `probability`, as in the
        authors' code, where `steps` has no effect. "random_segments": likewise, but it stays for `steps` steps.
        "never".
      steps: n; after them the policy has at least one step, in which nothing is decided.
      beta, probability: see `kind`.
      relative: whether the policy's Q is compared with `threshold` times the expert's, which means something for
        positive Q alone, or with the expert's less `threshold`.
      threshold: alpha or delta.
    """

    kind: str
    steps: int
    beta: float
    probability: float
    relative: bool
    threshold: float

    def begins(self, own: np.ndarray, experts: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Whether an intervention begins, [S] bool: Q of the policy's action and of the expert's [S], uniform draws."""
        if self.kind == "value":
            worse = own < (self.threshold * experts if self.relative else experts - self.threshold)
            return draws < np.where(worse, self.beta, 1.0 - self.beta)
        return draws < (0.0 if self.kind == "never" else self.probability)


class Store(NamedTuple):
    """What goes into the buffer.

    Attributes:
      what: "steps": RLIF's, with its rewards. "labels": every state with the action of the expert's mode (DAgger).
        "segments": what the expert did (HG-DAgger).
      expert_steps: of RLIF's interventions: "last" keeps the last step alone, as the authors' code does; "all"; "none".
      last_step: of an episode, of which no take-over can follow: "dropped", as in the authors' code; "kept", with
        reward 0; "punished", which gives a terminal state -1, so that it is no way out of interventions.
      label_share: with which probability a state gets its label.
      unlabelled: whether labels and segments leave the other steps out ("dropped") or in with the policy's "own"
        action, as in the authors' code.
    """

    what: str = "steps"
    expert_steps: str = "last"
    last_step: str = "dropped"
    label_share: float = 1.0
    unlabelled: str = "dropped"


class InterventionCollector(Collector):
    """A collector in whose environments an expert takes over.

    Args:
      expert: acts, in [-1, 1] for the box of the task's actions, with its own noise where `is_stochastic`; labels are
        its mode.
      rule, store: see there.
      compared: whose mode the policy's action is compared with; None for what the expert would do.
      value, value_params: the reference Q, where the rule needs one.

    Attributes:
      counts: by name, [S] int64 so far: env_steps, expert_steps, interventions, labels.

    Raises:
      ValueError: a rule or a store has an unknown part, or there is no reference Q to decide by.
    """

    def __init__(
        self, pool: EnvPool, replay: ReplayBuffer, *, expert: Acting, rule: Rule, store: Store,
        is_stochastic: bool = True, compared: Acting | None = None, value: Value | None = None,
        value_params: PyTree = (), **options: Any,
    ):
        for name, known in {"kind": KINDS, **CHOICES}.items():
            given = getattr(rule if name == "kind" else store, name)
            if given not in known:
                part = "intervention" if name == "kind" else "store"
                raise ValueError(unknown(f"config.{part}.{name}", given, known))
        if rule.kind == "value" and value is None:
            raise ValueError("config.intervention.kind=value: the rule compares a reference Q, and none is given")
        super().__init__(pool, replay, **options)
        self._expert, self._compared, self._is_stochastic = expert, compared, is_stochastic
        self._rule, self._store = rule, store
        self._value, self._value_params = value, jax.device_put(value_params, jax.local_devices()[0])
        low, high = pool.action_space.low, pool.action_space.high
        self._centre, self._half_width = (low + high) / 2, (high - low) / 2
        runs = pool.num_envs
        self._left = np.zeros(runs, np.int64)  # steps of the intervention to come, 1 being the policy's after it
        self._taking, self._took = np.zeros(runs, bool), np.zeros(runs, bool)  # in this step, in the one before
        self._labels, self._asked = np.zeros((runs, *low.shape), np.float32), np.zeros(runs, bool)
        # The step before, which waits for its reward.
        self._waiting: dict[str, np.ndarray] = {}
        self._waits = np.zeros(runs, bool)
        self._in_episode = np.zeros((2, runs), np.int64)  # steps, and the expert's among them
        self._rates: list[float] = []  # of the episodes that ended in this call
        names = ("env_steps", "expert_steps", "interventions", "labels")
        self.counts = {name: np.zeros(runs, np.int64) for name in names}

    def feed(self, act: Act) -> Feed:
        """As `Collector.feed`."""
        watched = jax.jit(_watched(act, self._value, default_seed_axis()))

        def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
            del resident
            self._rates = []
            batch, metrics = self._collect(watched, state, keys, step)
            return batch, metrics | ({"collect/intervention_rate": float(np.mean(self._rates))} if self._rates else {})

        return Feed(collect, self.save, self.restore, self._pool.close)

    def _choose(
        self, act_all: Callable[..., Any], policy: PyTree, inputs: tuple[jax.Array, ...],
        generators: Sequence[np.random.Generator],
    ) -> np.ndarray:
        observations = self._observations.astype(np.float32)
        draws = np.stack([generator.random(2) for generator in generators])
        noise = np.stack([generator.standard_normal(self._half_width.shape) for generator in generators])
        self._labels = self._actions_of(self._expert, observations, None)
        experts = self._actions_of(self._expert, observations, noise) if self._is_stochastic else self._labels
        compared = experts if self._compared is None else self._actions_of(self._compared, observations, None)
        own, own_q, compared_q = jax.device_get(act_all(policy, self._value_params, *inputs, compared))
        begins = self._rule.begins(own_q, compared_q, draws[:, 0])
        if self._rule.kind == "random":
            self._taking = begins
        else:
            self._left[(self._left == 0) & begins] = self._rule.steps + 1
            self._taking = self._left > 1
            self._left = np.maximum(self._left - 1, 0)
        self._asked = draws[:, 1] < self._store.label_share
        return np.where(self._taking[:, None], experts, own)

    def _actions_of(self, policy: Acting, observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """The task's actions [S, A]; a run at a time, so that its own do not depend on the runs beside it."""
        rows = range(len(observations))
        alone = [policy.act(observations[i : i + 1], None if noise is None else noise[i : i + 1])[0] for i in rows]
        return self._centre + self._half_width * np.stack(alone)

    def _remember(self, ended: np.ndarray, rewards: np.ndarray, **step: np.ndarray) -> None:
        del rewards  # the task's; none of it is ever stored
        taking, started = self._taking, self._taking & ~self._took
        self._store_step(ended, started, step)
        self.counts["env_steps"] += 1
        self.counts["expert_steps"] += taking
        self.counts["interventions"] += started
        self._in_episode += np.stack([np.ones_like(taking), taking])
        if ended.any():
            self._rates += (self._in_episode[1] / self._in_episode[0])[ended].tolist()
            self._in_episode[:, ended] = 0
        self._took = taking & ~ended
        self._left[ended] = 0

    def _store_step(self, ended: np.ndarray, started: np.ndarray, step: dict[str, np.ndarray]) -> None:
        store, nothing = self._store, np.zeros(len(ended))
        if store.what == "labels":
            own = store.unlabelled == "own"
            actions = np.where(self._asked[:, None], self._labels, step["actions"])
            marks = self._asked.astype(np.float32)
            self._replay.add(ended, self._asked | own, rewards=nothing, expert=marks, **step | {"actions": actions})
            self.counts["labels"] += self._asked
            return
        marks = self._taking.astype(np.float32)
        if store.what == "segments":
            kept = self._taking | (store.unlabelled == "own")
            self._replay.add(ended, kept, rewards=nothing, expert=marks, **step)
            return
        if self._waiting:
            kept = self._waits & self._keeps(self._waiting["expert"], self._taking)
            self._replay.add(np.zeros_like(ended), kept, rewards=-1.0 * started, **self._waiting)
        self._waiting, self._waits = step | {"expert": marks}, ~ended
        if store.last_step != "dropped":
            rewards = step["masks"] - 1.0 if store.last_step == "punished" else nothing
            kept = ended & self._keeps(marks, np.zeros_like(ended))
            self._replay.add(ended, kept, rewards=rewards, **self._waiting)

    def _keeps(self, expert: np.ndarray, followed: np.ndarray) -> np.ndarray:
        """Whether steps are stored, [S] bool: by whom they were made, and whether the expert's step followed."""
        if self._store.expert_steps == "all":
            return np.ones(len(expert), bool)
        return ~((expert > 0) & (followed | (self._store.expert_steps == "none")))

    def save(self) -> dict[str, PyTree]:
        """As `Collector.save`, with the interventions under way and the counts."""
        own = {name: getattr(self, f"_{name}").copy() for name in ("left", "took", "waits", "in_episode")}
        return super().save() | {"own": own, "waiting": dict(self._waiting), "counts": dict(self.counts)}

    def restore(self, saved: dict[str, PyTree]) -> None:
        """Goes on exactly from what `save` gave."""
        super().restore(saved)
        for name, value in saved["own"].items():
            setattr(self, f"_{name}", np.array(value))
        self._waiting = dict(saved["waiting"])
        self.counts = {name: np.array(value) for name, value in saved["counts"].items()}


def _watched(act: Act, value: Value | None, seed_axis: str) -> Callable[..., tuple[jax.Array, ...]]:
    def watched(
        policy: PyTree, params: PyTree, words: jax.Array, observations: jax.Array, place: jax.Array, compared: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Samples [S, A] of all runs' policies, and the reference Q [S] of them and of the actions compared [S, A];
        zeros without a reference. For `words` and `place` see `Collector`."""

        def one(
            policy: PyTree, key: Key, observation: jax.Array, compared: jax.Array
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            key = jax.random.fold_in(jax.random.fold_in(key, place[0]), place[1])
            action = act(policy, observation[None], key, 1.0)
            if value is None:
                return action[0], jax.numpy.zeros(()), jax.numpy.zeros(())
            own, other = (value(params, observation[None], x)[0] for x in (action, compared[None]))
            return action[0], own, other

        return over_runs(one, seed_axis)(policy, jax.random.wrap_key_data(words), observations, compared)

    return watched
