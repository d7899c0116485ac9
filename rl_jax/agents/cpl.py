"""CPL: contrastive preference learning. A policy from comparisons of segments, without a reward and without RL.

Hejna et al. 2023, "Contrastive Preference Learning: Learning from Human Feedback without Reinforcement Learning",
arXiv 2310.13639. If people prefer the segment of less regret, and the advantage is alpha log pi* as in maximum-entropy
RL, the log-probs of a segment's actions decide which is preferred. A batch is `Comparisons`; rewards are not read.

The policy first clones all segments; then its optimiser starts anew, with a warm-up, on the contrastive loss. The
settings follow the authors' code: no discount within a segment, log pi(a|s) = -|a - mu(s)|^2, dropout in both phases.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting
from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.segments import Comparisons
from rl_jax.data.shifts import random_shift
from rl_jax.losses.preference import cpl_loss, log_ratios, preferred, segment_scores
from rl_jax.networks.encoders import CNNS
from rl_jax.networks.policies import RegressionPolicy
from rl_jax.networks.trained import Networks, Trained

CLONED = ("all", "preferred")


def cpl(config: ConfigDict, action_dim: int) -> Agent:
    """Makes CPL or a baseline that clones; `config` has the fields of `default_config`.

    Raises:
      ValueError: `config.cloned` is not one of CLONED.
    """
    if config.cloned not in CLONED:
        raise ValueError(unknown("segments to clone in config.agent.cloned", config.cloned, CLONED))
    actor = RegressionPolicy(config.hidden_dims, action_dim, config.dropout, config.encoder)

    def learning_rate(count: jax.Array) -> jax.Array:
        """Constant in each phase; in the contrastive one after a linear start, full at its `warmup_steps`-th update."""
        since = (count - config.cloning_steps + 1) / jnp.maximum(config.warmup_steps, 1)
        warms_up = config.contrastive & (count >= config.cloning_steps)
        return config.learning_rate * jnp.where(warms_up, config.contrastive_rate * jnp.minimum(since, 1.0), 1.0)

    def still_cloning(step: jax.Array) -> jax.Array:
        return (step < config.cloning_steps).astype(jnp.float32)

    moments = optax.scale_by_adam()
    tx = optax.chain(moments, optax.scale_by_learning_rate(learning_rate))
    # The copy follows the policy while it clones, and is the reference pi_ref from then on.
    networks = Networks({"actor": Trained(actor.init, tx, still_cloning if config.reference else None)})

    # Losses

    def actor_loss(
        params: PyTree, reference: PyTree, batch: Comparisons, cloning: jax.Array, key: Key
    ) -> tuple[jax.Array, Metrics]:
        policy = actor.apply(params, batch.steps.observations, deterministic=False, rngs={"dropout": key})
        log_probs = policy.log_prob(batch.steps.actions)
        # How often each segment is cloned; the first phase clones all.
        chosen = jnp.stack([batch.first, batch.second])
        kept = jnp.stack(preferred(batch.labels)) if config.cloned == "preferred" else jnp.ones(chosen.shape)
        times = jnp.zeros(batch.mask.shape[0]).at[chosen].add(jnp.where(cloning, 1.0, kept))
        weights = times[:, None] * batch.mask
        cloning_loss = -jnp.sum(weights * log_probs) / jnp.maximum(jnp.sum(weights), 1.0)
        info = {"actor/cloning_loss": cloning_loss}
        loss = config.cloning_weight * cloning_loss
        if config.contrastive:
            terms = log_probs
            if config.reference:
                at = actor.apply(reference, batch.steps.observations).log_prob(batch.steps.actions)
                terms = log_ratios(log_probs, at)
            scores = segment_scores(terms, batch.mask, config.alpha, config.discount)
            first, second = scores[batch.first], scores[batch.second]
            contrastive = jnp.mean(cpl_loss(first, second, batch.labels, config.bias))
            loss = loss + contrastive
            second_wins = batch.labels > 0.5
            info |= {
                "actor/contrastive_loss": contrastive,
                "actor/accuracy": jnp.mean((second > first) == second_wins),
                # Both fall together where a policy leaves the data: watch them, not the loss.
                "actor/score_preferred": jnp.mean(jnp.where(second_wins, second, first)),
                "actor/score_other": jnp.mean(jnp.where(second_wins, first, second)),
            }
        return jnp.where(cloning, cloning_loss, loss), info | {"actor/loss": loss}

    # Update

    def init(key: Key, batch: Comparisons) -> TrainState:
        return networks.init(key, {"actor": (batch.steps.observations,)})

    def update(state: TrainState, batch: Comparisons, key: Key) -> tuple[TrainState, Metrics]:
        dropout_key, shift_key = jax.random.split(key)
        if config.encoder in CNNS:
            observations = random_shift(batch.steps.observations, shift_key, config.shift)
            batch = batch.replace(steps=batch.steps.replace(observations=observations))
        if config.contrastive:
            state = restarted(state)
        reference = state.target_params.get("actor")
        cloning = state.step < config.cloning_steps
        state, info = networks.step(state, "actor", actor_loss, reference, batch, cloning, dropout_key)
        return networks.follow(state), info

    def restarted(state: TrainState) -> TrainState:
        """With fresh moments where the contrastive phase begins; the schedule goes on counting."""
        old, *rest = state.opt_state["actor"]
        begins, fresh = state.step == config.cloning_steps, moments.init(state.params["actor"])
        old = jax.tree.map(lambda new, old: jnp.where(begins, new, old), fresh, old)
        return state.replace(opt_state=state.opt_state | {"actor": (old, *rest)})

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for Meta-World from states: CPL."""
    return ConfigDict(
        {
            "name": "cpl",
            "hidden_dims": (512, 512),
            "encoder": "none",
            "shift": 4,  # pixels that images are shifted by at most, at random, a segment at a time
            "dropout": 0.25,
            "learning_rate": 1e-4,
            "cloning_steps": 200_000,  # of the first phase
            "warmup_steps": 10_000,  # of the second one
            "contrastive_rate": 1.0,  # of the second phase, as a share of learning_rate; the authors' CPL-KL has 0.1
            "contrastive": True,  # whether the second phase learns from the comparisons; False clones on
            "alpha": 0.1,
            "bias": 0.5,  # lambda, of the segment that is not preferred
            "discount": 1.0,  # within a segment; the paper's equation has gamma there, its code has not
            "reference": False,  # CPL-KL: log pi - log pi_ref in the place of log pi, pi_ref the policy that cloned
            "cloning_weight": 0.0,  # of cloning in the second phase: CPL-BC
            "cloned": "all",  # or "preferred", the segments that the second phase clones
        }
    )


def _of(**settings: object) -> ConfigDict:
    config = default_config()
    config.update(settings)
    return config


def cpl_bc_config() -> ConfigDict:
    """CPL-BC: cloning of all segments beside, in the place of a bias; 1.5 from images."""
    return _of(bias=1.0, cloning_weight=1.0)


def cpl_kl_config() -> ConfigDict:
    """CPL-KL: the log-ratio to the policy that cloned; the authors learn by it at a tenth of the rate."""
    return _of(alpha=0.2, bias=0.75, reference=True)


def sft_config() -> ConfigDict:
    """SFT: clones all segments and then the preferred ones."""
    return _of(contrastive=False, cloning_weight=1.0, cloned="preferred")


def bc_config() -> ConfigDict:
    """BC of all segments, or %BC of those of the highest scores (config.dataset.top_fraction)."""
    return _of(contrastive=False, cloning_weight=1.0)
