"""DQN on labelled trials: the action names the class of what is seen, the reward says whether it was right.

Nallani and Ramachandran 2024, "RLEEGNet: Integrating Brain-Computer Interfaces with Adaptive AI for Intuitive
Responsiveness and High-Accuracy Motor Imagery Classification", arXiv 2402.09465. The next trial does not depend on the
action, so with a discount of 0 this is a contextual bandit: Q(s, a) goes to 2 P(a | s) - 1. Two more settings:

  feedback="label"  the same network descends the cross-entropy of the labels: all that a classifier is told.
  wait_cost > 0     a further action waits: the next window of the same trial comes, at this cost; a decision ends the
                    episode, and waiting at the last window is a wrong one. Here the discount matters.

A state is two numbers, which window of which trial; `observe` gives the signals, and neither label nor reward.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.eeg.folds import Fold
from rl_jax.data.transitions import sample_rows, write_rows
from rl_jax.losses.value_learning import td_target, values_of_actions
from rl_jax.networks.conv_lstm import ConvLSTM
from rl_jax.networks.trained import Networks, Trained, every

FEEDBACK = ("reward", "label")
RIGHT, WRONG = 1.0, -1.0


class Place(flax.struct.PyTreeNode):
    """Windows: which trial and which window of it, int32 [...]."""

    trial: jax.Array
    window: jax.Array


class Step(flax.struct.PyTreeNode):
    """What the replay keeps of a step, [...]: places, int32 actions, rewards, masks (0 where the episode ended)."""

    place: Place
    action: jax.Array
    reward: jax.Array
    mask: jax.Array
    next_place: Place


class TrialAgent(NamedTuple):
    """A learner of trials: init(key, fold) -> TrainState, update(state, fold, key) -> (state, metrics), and
    values(params, observations [B, T, F]) -> [B, actions]."""

    init: Callable[[Key, Fold], TrainState]
    update: Callable[[TrainState, Fold, Key], tuple[TrainState, Metrics]]
    values: Callable[[PyTree, jax.Array], jax.Array]


def trial_dqn(
    config: ConfigDict, num_classes: int, observe: Callable[[Fold, jax.Array, jax.Array], jax.Array]
) -> TrialAgent:
    """Makes the learner; `config` has the fields of `default_config`.

    Args:
      observe: (fold, trials [B], windows [B]) -> what is seen [B, T, F].

    Raises:
      ValueError: there is no such feedback, or labels are to teach waiting.
    """
    if config.feedback not in FEEDBACK:
        raise ValueError(f"config.agent.feedback={config.feedback!r}: choose one of {', '.join(FEEDBACK)}")
    streams = config.wait_cost > 0
    if streams and config.feedback == "label":
        raise ValueError("config.agent.wait_cost > 0 needs config.agent.feedback='reward': labels say not when to wait")
    network = ConvLSTM(
        num_classes + streams, config.widths, config.kernels, config.pool, config.memory, config.dropout
    )
    networks = Networks({"q": Trained(network.init, optax.adamw(config.learning_rate, weight_decay=config.weight_decay),
                                      tau=1.0)})

    def seen(fold: Fold, place: Place) -> jax.Array:
        return observe(fold, place.trial, place.window)

    # Losses

    def td_loss(params: PyTree, fold: Fold, batch: Step, target: jax.Array, key: Key) -> tuple[jax.Array, Metrics]:
        q = network.apply(params, seen(fold, batch.place), False, rngs={"dropout": key})
        q = values_of_actions(q, batch.action)
        loss = jnp.mean(optax.huber_loss(q, target))
        return loss, {"q/loss": loss, "q/mean": jnp.mean(q)}

    def label_loss(params: PyTree, fold: Fold, place: Place, key: Key) -> tuple[jax.Array, Metrics]:
        logits = network.apply(params, seen(fold, place), False, rngs={"dropout": key})
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, fold.labels[place.trial]))
        return loss, {"q/loss": loss, "q/mean": jnp.mean(logits)}

    # Update

    def init(key: Key, fold: Fold) -> TrainState:
        network_key, start_key = jax.random.split(key)
        here = begin(fold, start_key, config.collected)
        room = jnp.zeros(config.capacity)
        anywhere = Place(room.astype(jnp.int32), room.astype(jnp.int32))
        replay = Step(anywhere, anywhere.trial, room, room, anywhere)
        extra = {"here": here, "replay": replay, "added": jnp.zeros((), jnp.int32)}
        return networks.init(network_key, {"q": (seen(fold, here),)}, extra)

    def begin(fold: Fold, key: Key, count: int) -> Place:
        """Windows [count] drawn from those that may be learnt from, or the first ones of trials where those stream."""
        total = jnp.cumsum(fold.learnt.reshape(-1))
        draws = total[-1] * (1.0 - jax.random.uniform(key, (count,)))  # in (0, total]
        flat = jnp.searchsorted(total, draws).astype(jnp.int32)
        trial, window = flat // fold.learnt.shape[1], flat % fold.learnt.shape[1]
        return Place(trial, jnp.zeros_like(window) if streams else window)

    def respond(fold: Fold, place: Place, action: jax.Array, fresh: Place) -> tuple[Step, Place]:
        """The steps of actions [B], and where the next ones are taken: at `fresh` windows, unless one waits."""
        right = action == fold.labels[place.trial]
        if not streams:
            return Step(place, action, jnp.where(right, RIGHT, WRONG), jnp.ones(len(action)), fresh), fresh
        waits = action == num_classes
        goes_on = waits & (place.window + 1 < fold.learnt.shape[1])
        reward = jnp.where(goes_on, -config.wait_cost, jnp.where(right, RIGHT, WRONG))
        later = place.replace(window=place.window + 1)
        after = jax.tree.map(lambda x, y: jnp.where(goes_on, x, y), later, fresh)
        return Step(place, action, reward, goes_on.astype(jnp.float32), after), after

    def act(state: TrainState, fold: Fold, key: Key) -> tuple[TrainState, Metrics]:
        """Names the classes of `collected` windows, mostly by the greatest value, and keeps what that earned."""
        chance_key, action_key, fresh_key = jax.random.split(key, 3)
        here = state.extra["here"]
        shape = here.trial.shape
        best = jnp.argmax(values(state.params, seen(fold, here)), -1).astype(jnp.int32)
        drawn = jax.random.randint(action_key, shape, 0, num_classes + streams)
        epsilon = optax.linear_schedule(1.0, config.final_epsilon, config.exploration_steps)(state.step)
        action = jnp.where(jax.random.uniform(chance_key, shape) < epsilon, drawn, best)
        made, after = respond(fold, here, action, begin(fold, fresh_key, config.collected))
        replay, added = write_rows(state.extra["replay"], made, jnp.ones(shape, bool), state.extra["added"])
        right = jnp.mean(made.reward == RIGHT)
        return state.replace(extra={"here": after, "replay": replay, "added": added}), {"train/right": right}

    def update(state: TrainState, fold: Fold, key: Key) -> tuple[TrainState, Metrics]:
        act_key, batch_key, dropout_key = jax.random.split(key, 3)
        if config.feedback == "label":
            batch = shard_batch(begin(fold, batch_key, config.batch_size))
            state, metrics = networks.step(state, "q", label_loss, fold, batch, dropout_key)
            return state, metrics | {"train/right": jnp.zeros(())}
        state, earned = act(state, fold, act_key)
        filled = jnp.minimum(state.extra["added"], config.capacity)
        batch = shard_batch(sample_rows(state.extra["replay"], batch_key, config.batch_size, filled))
        state, _ = every(config.target_every, lambda own: (networks.follow(own), {}), state,
                         first=config.target_every - 1)
        target = batch.reward
        if config.discount > 0:
            next_q = jnp.max(network.apply(state.target_params["q"], seen(fold, batch.next_place)), -1)
            target = td_target(batch.reward, batch.mask, next_q, config.discount)
        state, metrics = networks.step(state, "q", td_loss, fold, batch, target, dropout_key)
        return state, metrics | earned

    # Act

    def values(params: PyTree, observations: jax.Array) -> jax.Array:
        return network.apply(params["q"], observations)

    return TrialAgent(init, update, values)


def default_config() -> ConfigDict:
    """Returns the sizes of the method card in place of the authors', which are not known."""
    return ConfigDict(
        {
            "name": "trial_dqn",
            "feedback": "reward",  # of the action that was taken; or "label"
            "widths": (32, 64),  # of the convolutions
            "kernels": (7, 5),
            "pool": 2,
            "memory": 64,  # of the LSTM
            "dropout": 0.5,
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "discount": 0.0,
            "wait_cost": 0.0,  # above 0: windows of a trial come one after the other until a class is named
            "collected": 1,  # actions a step
            "batch_size": 64,
            "capacity": 10_000,  # of the replay
            "target_every": 200,  # steps
            "exploration_steps": 4000,  # over which epsilon falls from 1
            "final_epsilon": 0.05,
        }
    )
