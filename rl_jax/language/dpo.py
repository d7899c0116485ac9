"""DPO and its kin: a policy learns from pairs of answers, or from judged answers, without a reward model.

The reference is the pretrained policy: the parameters that training starts from, to which adapters are added where only
these are trained. Rows that bring `reference_log_probs` say themselves what theirs is (`reference_of`): it is computed
once, and it may be any policy.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.language import training
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.held_out import by_prompt, over_held_out, won
from rl_jax.language.pairs import Pairs, apart
from rl_jax.language.rows import Rows
from rl_jax.language.scoring import answer_lengths, answer_log_probs
from rl_jax.language.training import Trainable, in_parts, micro_batched, optimiser, over_parts, summed_gradient
from rl_jax.losses import preference
from rl_jax.networks.trained import Networks, Trained


def default_config() -> ConfigDict:
    """The trainer's settings."""
    config = training.default_config()
    config.loss = "dpo"  # or one of LOSSES
    # Of an answer: "sum" of its log-probs, or "weighted", by the weights that the rows bring (with_change_weights).
    config.score = "sum"
    config.beta = 0.1  # of implicit rewards; of mean log-probs, SimPO's or normalised ones, 0.5, 2 or more
    config.label_smoothing = 0.0  # DPO: the share of labels that are taken to be wrong (cDPO)
    config.gamma = 0.5  # SimPO: the margin
    config.odds_ratio_weight = 0.1  # ORPO: of the odds ratio beside the likelihood of the chosen
    config.desirable_weight, config.undesirable_weight = 1.0, 1.0  # KTO
    # Of minus the mean log-prob of the chosen beside any loss (RPO, Pang et al. 2024, arXiv 2404.19733, equation 1).
    config.likelihood_weight = 0.0
    return config


class Scored(NamedTuple):
    """Answers to P prompts as a loss sees them, first and second of each pair: tuples of [P].

    Attributes:
      log_probs: sums over the tokens of the answers, or weighted ones.
      reference: the same of the reference; None for losses without one.
      lengths: tokens of the answers, or the sums of their weights.
      desirable: [P] bool, of the first ones.
      divergence: scalar, of KTO.
    """

    log_probs: tuple[jax.Array, jax.Array]
    reference: tuple[jax.Array, jax.Array] | None
    lengths: tuple[jax.Array, jax.Array]
    desirable: jax.Array
    divergence: jax.Array

    def rewards(self, beta: float) -> tuple[jax.Array, jax.Array]:
        """Implicit ones, of sums."""
        first, second = map(preference.log_ratios, self.log_probs, self.reference)
        return beta * first, beta * second

    def mean_ratios(self) -> tuple[jax.Array, jax.Array]:
        """Log ratios a token."""
        first, second = self.rewards(1.0)
        return first / self.lengths[0], second / self.lengths[1]

    def means(self) -> tuple[jax.Array, jax.Array]:
        """Log-probs a token."""
        return self.log_probs[0] / self.lengths[0], self.log_probs[1] / self.lengths[1]


def _dpo(scored: Scored, settings: ConfigDict) -> jax.Array:
    return preference.dpo_loss(*scored.rewards(settings.beta), settings.label_smoothing)


def _ipo(scored: Scored, settings: ConfigDict) -> jax.Array:
    return preference.ipo_loss(*scored.mean_ratios(), settings.beta)


def _nca(scored: Scored, settings: ConfigDict) -> jax.Array:
    return preference.nca_loss(*scored.rewards(settings.beta))


def _kto(scored: Scored, settings: ConfigDict) -> jax.Array:
    return preference.kto_loss(
        scored.rewards(settings.beta)[0], scored.desirable, settings.beta * scored.divergence,
        desirable_weight=settings.desirable_weight, undesirable_weight=settings.undesirable_weight,
    )


def _orpo(scored: Scored, settings: ConfigDict) -> jax.Array:
    chosen, rejected = scored.means()
    return -chosen + settings.odds_ratio_weight * preference.odds_ratio_loss(chosen, rejected)


def _simpo(scored: Scored, settings: ConfigDict) -> jax.Array:
    return preference.simpo_loss(*scored.means(), settings.beta, settings.gamma)


# Terms [P] of a loss by its name.
LOSSES: dict[str, Callable[[Scored, ConfigDict], jax.Array]] = {
    "dpo": _dpo, "ipo": _ipo, "nca": _nca, "kto": _kto, "orpo": _orpo, "simpo": _simpo,
}
WITHOUT_REFERENCE = ("orpo", "simpo")
PLACES = ("first", "second")  # of a pair
SCORES = ("sum", "weighted")


def reference_of(
    config: DecoderConfig, settings: ConfigDict, batch_size: int
) -> Callable[[PyTree, Pairs], Pairs]:
    """The function (parameters of a reference, pairs on the host) -> the pairs with its log-probs, one a token.

    They are computed once, in the shape of the update: at a policy that is the reference, margins are 0 to rounding.

    Args:
      settings: of the trainer.
      batch_size: of the trainer, in pairs.
    """
    own = Trainable(config, settings)

    @jax.jit
    def log_probs(params: PyTree, part: Pairs) -> tuple[jax.Array, jax.Array]:
        return over_parts(lambda part: apart(own.log_probs(params, part.rows())), part, settings.micro_batches)

    def referenced(params: PyTree, pairs: Pairs) -> Pairs:
        first, second = in_parts(lambda part: gather(log_probs(params, part)), pairs, batch_size)
        return pairs.replace(
            first=pairs.first.replace(reference_log_probs=first),
            second=pairs.second.replace(reference_log_probs=second),
        )

    return referenced


def dpo_program(
    config: ConfigDict, decoder: DecoderConfig, pretrained: PyTree, train: Pairs | None,
    held_out: Pairs | None
) -> Program:
    """Trains "policy" on batches of pairs, drawn uniformly with replacement, or on those that a feed brings.

    Outcomes, [S, E], of each held-out prompt: `margin`, beta times how much more the log ratio of the chosen answer has
    grown than that of the rejected one (the implicit reward's margin); `accuracy`, how often it is above 0, which is
    1/2 at the start; `chosen_log_prob` and `rejected_log_prob` of whole answers. Judged answers have no rival: their
    margin is to KTO's reference point, and turned around where the answer is not desirable.

    Args:
      config: holds `agent` (`default_config`), `batch_size` (in pairs) and `num_steps`.
      train: compared answers; for KTO judged ones. None where the program gets a feed of Pairs.
      held_out: compared answers; for KTO also judged ones, of which some are not desirable. None judges nothing.

    Raises:
      ValueError: the loss or the score is unknown, or the pairs have no weights for it.
    """
    settings, own = config.agent, Trainable(decoder, config.agent)
    for field, known in (("loss", LOSSES), ("score", SCORES)):
        if settings[field] not in known:
            raise ValueError(unknown(f"config.agent.{field}", settings[field], known))
    if settings.score == "weighted" and train is not None and not np.any(train.first.weights):
        raise ValueError(
            "config.agent.score='weighted': the pairs have no weights; pairs.with_change_weights gives them some"
        )
    networks = Networks({"policy": Trained(own.init, optimiser(settings, config.num_steps))})

    def summed(params: PyTree, rows: Rows) -> jax.Array:
        return answer_log_probs(own.log_probs(params, rows), rows.mask)

    def scored(
        trained: PyTree, pretrained: PyTree, pairs: Pairs, divergence: jax.Array, reference: bool
    ) -> tuple[Scored, tuple[jax.Array, jax.Array]]:
        """Also the plain sums of log-probs, which a score may hide."""
        rows, before = pairs.rows(), None
        log_probs = own.log_probs(own.params(trained, pretrained), rows)
        counted = rows.weights if settings.score == "weighted" else rows.mask

        def score(log_probs: jax.Array) -> tuple[jax.Array, jax.Array]:
            return apart(answer_log_probs(counted * log_probs, rows.mask))

        if reference:
            given = rows.reference_log_probs
            before = score(jax.lax.stop_gradient(own.log_probs(pretrained, rows) if given is None else given))
        lengths = apart(jnp.sum(counted, axis=-1) if settings.score == "weighted" else answer_lengths(rows.mask))
        plain = apart(answer_log_probs(log_probs, rows.mask))
        return Scored(score(log_probs), before, lengths, pairs.desirable, divergence), plain

    def divergence(trained: PyTree, pretrained: PyTree, pairs: Pairs) -> jax.Array:
        """KTO's, over the whole batch, however it is cut."""
        params = own.params(trained, pretrained)
        parts = micro_batched(pairs.second, settings.micro_batches)
        found = jax.lax.map(lambda rows: (summed(params, rows), summed(pretrained, rows)), parts)
        return preference.kto_divergence(*(x.reshape(-1) for x in found))

    def init(key: Key, resident: PyTree) -> TrainState:
        return networks.init(key, {"policy": (resident["model"],)})

    def step(state: TrainState, resident: PyTree, batch: Pairs | None, key: Key) -> tuple[TrainState, Metrics]:
        if batch is None:
            batch = sample_rows(resident["train"], key, config.batch_size, len(resident["train"]))
        pairs = shard_batch(batch)
        trained, reference = state.params["policy"], resident["model"]
        away = divergence(trained, reference, pairs) if settings.loss == "kto" else jnp.zeros(())

        def loss(trained: PyTree, part: Pairs) -> tuple[jax.Array, Metrics]:
            found, plain = scored(trained, reference, part, away, settings.loss not in WITHOUT_REFERENCE)
            terms = LOSSES[settings.loss](found, settings)
            terms -= settings.likelihood_weight * plain[0] / answer_lengths(part.first.mask)
            metrics = {"policy/loss": terms, "policy/first_log_prob": plain[0]}
            if settings.loss != "kto":
                # Of pairs: the lead of the chosen answer, over the reference's where there is one.
                lead = found.log_probs if found.reference is None else found.rewards(settings.beta)
                metrics["policy/margin"] = lead[0] - lead[1]
                metrics["policy/second_log_prob"] = plain[1]
            means = {name: jnp.sum(x) / config.batch_size for name, x in metrics.items()}
            return means["policy/loss"], means

        gradient, metrics = summed_gradient(loss, trained, pairs, settings.micro_batches)
        state, norms = networks.apply_gradient(state, "policy", gradient)
        return state, metrics | norms | ({"policy/divergence": away} if settings.loss == "kto" else {})

    if held_out is None:
        return Program(init, step, resident={"model": pretrained, "train": train})

    def score(trained: PyTree, pretrained: PyTree, part: Pairs) -> dict[str, jax.Array]:
        found, plain = scored(trained, pretrained, part, jnp.zeros(()), True)
        values = {"reward": found.rewards(settings.beta), "log_prob": plain}
        return {f"{place}_{name}": x for name, both in values.items() for place, x in zip(PLACES, both, strict=True)}

    over_all = over_held_out(score, config.batch_size)
    prompts, desirable = np.asarray(held_out.first.group), np.asarray(held_out.desirable)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found = over_all(state.params["policy"], resident["model"], resident["held_out"])
        if np.all(desirable):
            margin = found["first_reward"] - found["second_reward"]
            chosen, rejected = (by_prompt(found[f"{place}_log_prob"], prompts) for place in PLACES)
        else:
            point = np.maximum(found["second_reward"].mean(-1, keepdims=True), 0.0)
            margin = np.where(desirable, 1.0, -1.0) * (found["first_reward"] - point)
            chosen, rejected = (
                by_prompt(found["first_log_prob"][:, kind], prompts[kind]) for kind in (desirable, ~desirable)
            )
        outcomes = {"margin": by_prompt(margin, prompts), "accuracy": by_prompt(won(margin), prompts)}
        return Evaluation(outcomes=outcomes | {"chosen_log_prob": chosen, "rejected_log_prob": rejected})

    return Program(init, step, evaluate, {"model": pretrained, "train": train, "held_out": held_out})
