"""Supervised fine-tuning: the log-likelihood of answers, or of whole documents, rises."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.language import training
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.held_out import over_held_out
from rl_jax.language.rows import Rows, weights
from rl_jax.language.scoring import answer_lengths, answer_log_probs
from rl_jax.language.training import Trainable, optimiser, summed_gradient
from rl_jax.networks.trained import Networks, Trained


def default_config() -> ConfigDict:
    """The trainer's settings."""
    config = training.default_config()
    config.weights = "token_mean"  # or "sequence_mean": language.rows.weights
    return config


def sft_loss(log_probs: jax.Array, rows: Rows) -> tuple[jax.Array, Metrics]:
    """-sum(weights log pi), and the same as `policy/loss`; log-probs [B, T]."""
    loss = -jnp.sum(rows.weights * log_probs)
    return loss, {"policy/loss": loss}


def sft_program(config: ConfigDict, decoder: DecoderConfig, pretrained: PyTree, train: Rows, held_out: Rows) -> Program:
    """Trains "policy" on batches of rows, drawn uniformly with replacement.

    Outcomes: `loss` [S, E], minus the mean log-prob of a token of each held-out document, in nats. The metric
    `eval/token_loss` is that over all tokens, and `eval/perplexity` its exponential.

    Args:
      config: holds `agent` (`default_config`), `batch_size` and `num_steps`.
      pretrained: parameters to start from.
      train: rows, packed or not.
      held_out: rows of one document each.
    """
    settings = config.agent
    own = Trainable(decoder, settings, packed=bool(np.max(train.segments) > 1))
    networks = Networks({"policy": Trained(own.init, optimiser(settings, config.num_steps))})

    def init(key: Key, resident: PyTree) -> TrainState:
        return networks.init(key, {"policy": (resident["model"],)})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        rows = shard_batch(sample_rows(resident["train"], key, config.batch_size, len(resident["train"])))
        rows = rows.replace(weights=weights(rows.mask, settings.weights, segments=rows.segments))

        def loss(trained: PyTree, part: Rows) -> tuple[jax.Array, Metrics]:
            return sft_loss(own.log_probs(own.params(trained, resident["model"]), part), part)

        gradient, metrics = summed_gradient(loss, state.params["policy"], rows, settings.micro_batches)
        state, norms = networks.apply_gradient(state, "policy", gradient)
        return state, metrics | norms

    def score(trained: PyTree, pretrained: PyTree, rows: Rows) -> dict[str, jax.Array]:
        total = answer_log_probs(own.log_probs(own.params(trained, pretrained), rows), rows.mask)
        return {"total": total, "length": answer_lengths(rows.mask)}

    scored = over_held_out(score, config.batch_size)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found = scored(state.params["policy"], resident["model"], resident["held_out"])
        total, length = (found[name].astype(np.float64) for name in ("total", "length"))
        token_loss = -total.sum(-1) / length.sum(-1)
        return Evaluation(
            {"eval/token_loss": token_loss, "eval/perplexity": np.exp(token_loss)}, {"loss": -total / length}
        )

    return Program(init, step, evaluate, {"model": pretrained, "train": train, "held_out": held_out})
