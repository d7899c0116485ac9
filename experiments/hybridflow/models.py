"""The roles of the dataflows, and the pure functions that they run.

Trained roles hold a `Learner`, the others parameters or, as a verifier does, none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.hybridflow.sorting import STOP, Task, share_right, shows
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.roles import Role, generation_rules, place
from rl_jax.language.rows import Rows
from rl_jax.language.sampler import Samples, Sampling, generate
from rl_jax.language.scoring import token_values
from rl_jax.language.training import DTYPES, Trainable, micro_batched, optimiser
from rl_jax.losses.kl import kl_penalty
from rl_jax.losses.policy_gradient import clipped_value_loss, policy_gradient_loss
from rl_jax.networks.trained import global_norm


class Prompts(NamedTuple):
    """What an iteration asks.

    Attributes:
      tokens: [P, T0] int32.
      ids: [P] int32, what an answer's randomness is folded from: any placement gives the same text.
      examples: rows with right answers, for the pre-training loss.
    """

    tokens: jax.Array
    ids: jax.Array
    examples: Rows


class Experience(Rows):
    """Rows with the log-probs [B, T] that the sampler gave, and what a critic learns: `returns` [B, T]."""

    behaviour_log_probs: jax.Array | None = None
    returns: jax.Array | None = None


class Learner(NamedTuple):
    """What training changes of a model."""

    params: PyTree
    opt_state: PyTree


class Functions(NamedTuple):
    """Compiled functions of parameters and a batch, one object each for a whole run.

    `generate` draws as many answers to a prompt as the settings say, `drawn` one, `greedy` is the most likely one.
    """

    generate: Callable[[PyTree, Prompts, Key], Experience]
    drawn: Callable[[PyTree, Prompts, Key], Experience]
    greedy: Callable[[PyTree, Prompts, Key], Experience]
    actor_log_probs: Callable[[Learner, Rows], Rows]
    reference_log_probs: Callable[[PyTree, Rows], Rows]
    values: Callable[[Learner, Rows], Rows]
    scores: Callable[[tuple, Rows], Rows]
    costs: Callable[[tuple, Rows], Rows]
    update_actor: Callable[..., tuple[Learner, Metrics]]
    update_critic: Callable[[Learner, Experience], tuple[Learner, Metrics]]
    update_multiplier: Callable[[jax.Array, Rows], tuple[jax.Array, Metrics]]


@dataclass(frozen=True)
class Model(Role):
    """A role that has the functions of this experiment."""

    functions: Functions = None

    def _updated(self, function: Callable[..., tuple[PyTree, Metrics]], *batch: PyTree) -> tuple[Self, Metrics]:
        params, info = self.run(function, *batch)
        if self.mesh is not None:
            params = place(params, self.mesh, self.rules)  # as it was, whatever the compiler chose: nothing recompiles
        return replace(self, params=params), info


class Actor(Model):
    def generate(self, prompts: Prompts, key: Key) -> Experience:
        return self._rolled_out(self.functions.generate, prompts, key)

    def greedy(self, prompts: Prompts, key: Key) -> Experience:
        return self._rolled_out(self.functions.greedy, prompts, key)

    def log_probs(self, rows: Experience) -> Experience:
        return self.run(self.functions.actor_log_probs, rows)

    def update(self, rows: Experience, examples: Rows | None = None) -> tuple[Self, Metrics]:
        return self._updated(self.functions.update_actor, rows, examples)

    def _rolled_out(self, function: Callable, prompts: Prompts, key: Key) -> Experience:
        """Samples from a copy in the layout of generation, which lives no longer than that."""
        rollout = Role(self.params.params, self.rules, self.mesh).relaid(generation_rules(self.rules))
        rows = rollout.run(function, prompts, key)
        if self.mesh is not None:
            jax.block_until_ready(rows)
        rollout.free(shared=self.params)
        return rows


class Critic(Model):
    def values(self, rows: Experience) -> Experience:
        return self.run(self.functions.values, rows)

    def update(self, rows: Experience) -> tuple[Self, Metrics]:
        return self._updated(self.functions.update_critic, rows)


class Reference(Model):
    def log_probs(self, rows: Experience) -> Experience:
        return self.run(self.functions.reference_log_probs, rows)


class Reward(Model):
    def scores(self, rows: Experience) -> Experience:
        return self.run(self.functions.scores, rows)


class Cost(Model):
    def scores(self, rows: Experience) -> Experience:
        return self.run(self.functions.costs, rows)


class Multiplier(Model):
    """Holds the logarithm of the Lagrange multiplier."""

    def read(self) -> jax.Array:
        return jnp.exp(self.params)

    def update(self, costs: Experience) -> tuple[Self, Metrics]:
        return self._updated(self.functions.update_multiplier, costs)


class Roles(NamedTuple):
    """The models of a dataflow; None for those that it has not."""

    actor: Actor
    reference: Reference
    reward: Reward
    critic: Critic | None = None
    cost: Cost | None = None
    cost_critic: Critic | None = None
    multiplier: Multiplier | None = None


def learn(roles: Roles, rows: Experience, **batches: tuple) -> tuple[Roles, Experience, Metrics]:
    """The roles after the updates of those that are named with their batches, the rows, and what was measured."""
    found = {name: getattr(roles, name).update(*batch) for name, batch in batches.items()}
    metrics = {f"{name}/{key}": value for name, (_, info) in found.items() for key, value in info.items()}
    return roles._replace(**{name: role for name, (role, _) in found.items()}), rows, metrics


def init_critic(params: PyTree) -> PyTree:
    """A critic that starts from a decoder: its value of everything is 0."""
    width = params["norm"]["scale"].shape
    return {"decoder": jax.tree.map(jnp.copy, params), "value": jnp.zeros(width)}


def optimisers(settings: ConfigDict, num_steps: int) -> dict[str, optax.GradientTransformation]:
    """Of actor and critics."""
    updates = num_steps * settings.updates
    critic = optimiser(settings, updates, settings.critic_learning_rate)
    return {"actor": optimiser(settings, updates), "critic": critic}


def functions_of(decoder: DecoderConfig, settings: ConfigDict, task: Task, num_steps: int) -> Functions:
    """The functions that the settings and the task say; `num_steps` iterations are the length of schedules."""
    own, optimiser_of = Trainable(decoder, settings), optimisers(settings, num_steps)
    told = {"max_new_tokens": task.digits + 1, "stop": (STOP,)}
    sampling, most_likely = Sampling(**told), Sampling(**told, temperature=0.0)

    def sampled(params: PyTree, prompts: Prompts, key: Key, n: int, how: Sampling) -> Experience:
        number, length = prompts.tokens.shape
        lengths = jnp.full(number, length, jnp.int32)
        free = jnp.full((number * n, how.max_new_tokens), -1, jnp.int32)
        samples, _ = generate(
            decoder, params, prompts.tokens, lengths, n, how, key, prompts.ids, free, DTYPES[settings.dtype]
        )
        return experience(samples, jnp.repeat(prompts.ids, n))

    def actor_log_probs(learner: Learner, rows: Rows) -> Rows:
        """With the training layout's own numbers in place of the sampler's."""
        rows = shard_batch(rows)
        return rows.replace(log_probs=own.log_probs(learner.params, rows))

    def reference_log_probs(params: PyTree, rows: Rows) -> Rows:
        rows = shard_batch(rows)
        return rows.replace(reference_log_probs=own.log_probs(params, rows))

    def values_of(params: PyTree, rows: Rows) -> jax.Array:
        return token_values(own.hidden(params["decoder"], rows), params["value"])

    def values(learner: Learner, rows: Rows) -> Rows:
        rows = shard_batch(rows)
        return rows.replace(values=values_of(learner.params, rows))

    def scores(none: tuple, rows: Rows) -> Rows:
        del none
        return rows.replace(reward=share_right(rows.tokens, task.digits))

    def costs(none: tuple, rows: Rows) -> Rows:
        del none
        return rows.replace(reward=shows(rows.tokens, task.digits, task.costly), reference_log_probs=None)

    def actor_loss(params: PyTree, rows: Rows, examples: Rows | None) -> tuple[jax.Array, Metrics]:
        log_probs = own.log_probs(params, rows)
        loss, _ = policy_gradient_loss(
            log_probs, rows.log_probs, rows.advantages, rows.mask, clip_low=settings.clip, clip_high=settings.clip
        )
        share = rows.mask / jnp.maximum(jnp.sum(rows.mask), 1.0)
        divergence = kl_penalty(
            log_probs, rows.reference_log_probs, coefficient=settings.kl_loss, estimator="k3", place="loss"
        ).losses
        loss += jnp.sum(share * jnp.where(rows.mask > 0, divergence, 0.0))
        if examples is not None:
            taught = examples.mask / jnp.maximum(jnp.sum(examples.mask), 1.0)
            loss -= settings.pretraining_coefficient * jnp.sum(taught * own.log_probs(params, examples))
        ratio = jnp.sum(share * jnp.exp(jnp.where(rows.mask > 0, log_probs - rows.log_probs, 0.0)))
        return loss, {"loss": loss, "ratio": ratio}

    def critic_loss(params: PyTree, rows: Experience, nothing: None) -> tuple[jax.Array, Metrics]:
        del nothing
        loss, _ = clipped_value_loss(
            values_of(params, rows), rows.values, rows.returns, rows.mask, clip=settings.value_clip
        )
        return loss, {"loss": loss}

    def updated(name: str, loss: Callable, learner: Learner, rows: Rows, examples: Rows | None) -> Any:
        """One step of the optimiser for each part of the batch; every part has rows of all devices."""
        parts = micro_batched((rows, examples), settings.updates)

        def one(learner: Learner, part: tuple[Rows, Rows | None]) -> tuple[Learner, Metrics]:
            gradient, info = jax.grad(loss, has_aux=True)(learner.params, *shard_batch(part))
            change, opt_state = optimiser_of[name].update(gradient, learner.opt_state, learner.params)
            info["grad_norm"] = global_norm(gradient)
            return Learner(optax.apply_updates(learner.params, change), opt_state), info

        learner, infos = jax.lax.scan(one, learner, parts)
        return learner, jax.tree.map(jnp.mean, infos)

    def update_actor(learner: Learner, rows: Rows, examples: Rows | None = None) -> tuple[Learner, Metrics]:
        return updated("actor", actor_loss, learner, rows, examples)

    def update_critic(learner: Learner, rows: Experience) -> tuple[Learner, Metrics]:
        return updated("critic", critic_loss, learner, rows, None)

    def update_multiplier(logarithm: jax.Array, rows: Rows) -> tuple[jax.Array, Metrics]:
        cost = jnp.mean(rows.reward)
        logarithm = logarithm + settings.multiplier_rate * (cost - settings.cost_limit)
        return logarithm, {"value": jnp.exp(logarithm), "cost": cost}

    return Functions(
        jax.jit(lambda params, prompts, key: sampled(params, prompts, key, settings.samples, sampling)),
        jax.jit(lambda params, prompts, key: sampled(params, prompts, key, 1, sampling)),
        jax.jit(lambda params, prompts, key: sampled(params, prompts, key, 1, most_likely)),
        *map(jax.jit, (actor_log_probs, reference_log_probs, values, scores, costs)),
        *map(jax.jit, (update_actor, update_critic, update_multiplier)),
    )


def experience(samples: Samples, group: jax.Array) -> Experience:
    """Rows of what was sampled; what other roles have to say is 0."""
    places = jnp.broadcast_to(jnp.arange(samples.tokens.shape[1], dtype=jnp.int32), samples.tokens.shape)
    inside = places < samples.lengths[:, None]
    zeros = jnp.zeros(samples.tokens.shape)
    nothing = jnp.zeros(len(group), jnp.int32)
    return Experience(
        tokens=samples.tokens, mask=samples.sampled.astype(jnp.float32), segments=inside.astype(jnp.int32),
        positions=places * inside, log_probs=samples.behaviour_log_probs, weights=zeros, advantages=zeros, group=group,
        source=nothing, policy_step=nothing, truncated=samples.truncated, reward=jnp.zeros(len(group)),
        behaviour_log_probs=samples.behaviour_log_probs,
    )
