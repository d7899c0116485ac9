"""How far a decoder is from a target over texts that are too many to list, by samples of the prior and of itself."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluate, Evaluation, Key, PyTree, TrainState
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.distribution_matching import Target, draw_texts, text_log_probs


class Wanted(NamedTuple):
    """Texts of the target, which are the prior's that keep a constraint.

    Attributes:
      texts: [A, 1 + L].
      log_p: [A], log pi0 - log Z.
      share: Z, the share of the prior's texts that keep it.
    """

    texts: np.ndarray
    log_p: np.ndarray
    share: float


def wanted_texts(
    shape: DecoderConfig, prior: PyTree, start: int, length: int, target: Target, number: int, key: Key
) -> Wanted:
    """The target's texts among `number` of the prior's, of a constraint: a potential of 0 or -inf.

    Raises:
      ValueError: fewer than ten keep it.
    """
    texts = jax.jit(lambda prior, key: draw_texts(shape, prior, start, number, length, key))(prior, key)
    kept = np.asarray(target.potential(texts[:, 1:])) == 0.0
    if kept.sum() < 10:
        raise ValueError(
            f"{kept.sum()} of {number:,} texts of the prior keep the constraint, too few to judge by: take a less rare "
            "one, or more texts"
        )
    log_prior = jax.jit(lambda prior, texts: text_log_probs(shape, prior, texts))(prior, texts[kept])
    return Wanted(np.asarray(texts[kept]), np.asarray(log_prior) - np.log(kept.mean()), float(kept.mean()))


def sampled_judge(shape: DecoderConfig, start: int, target: Target, wanted: Wanted, number: int) -> Evaluate:
    """Outcomes: `kl` [S, A], log p - log pi of the target's texts, whose mean is KL(p || pi); of `number` texts of the
    policy [S, number], `kept`, 1 where the constraint holds, and `kl_from_prior`, log pi - log pi0; `distinct` [S, 1],
    the share of different ones among the pairs of neighbouring tokens of these (Li et al. 2016, arXiv 1510.03055).
    """
    length = wanted.texts.shape[1] - 1

    @jax.jit
    def numbers(state: TrainState, prior: PyTree, wanted_texts: jax.Array, key: Key) -> Mapping[str, jax.Array]:
        def of_one(own: TrainState) -> Mapping[str, jax.Array]:
            params = own.params["policy"]
            texts = draw_texts(shape, params, start, number, length, key)
            log_pi, log_prior = (text_log_probs(shape, x, texts) for x in (params, prior))
            return {
                "log_pi": text_log_probs(shape, params, wanted_texts), "kl_from_prior": log_pi - log_prior,
                "kept": (target.potential(texts[:, 1:]) == 0.0).astype(jnp.float32), "texts": texts,
            }

        return over_runs(of_one, default_seed_axis())(state.replace(step=None))

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = jax.device_get(gather(numbers(state, resident, wanted.texts, key)))
        return Evaluation(outcomes={
            "kl": wanted.log_p - found["log_pi"], "kl_from_prior": found["kl_from_prior"], "kept": found["kept"],
            "distinct": np.array([[distinct_pairs(texts)] for texts in found["texts"]]),
        })

    return evaluate


def distinct_pairs(texts: np.ndarray) -> float:
    """The share of different ones among all pairs of neighbouring tokens of texts [N, T]."""
    pairs = np.stack([texts[:, :-1], texts[:, 1:]], axis=-1).reshape(-1, 2)
    return len(np.unique(pairs, axis=0)) / len(pairs)
