"""DPO in rounds: a policy answers questions, its answers are compared, it learns from the pairs, and answers others.

Each round is a training of its own: pairs of its own block of questions, from the policy as it then is, an optimiser
and a schedule that start anew, and an anchor, which is what DPO's reference is in it:

    frozen      what the first round started from (Dong et al. 2024, arXiv 2405.07863, as the paper has it)
    previous    the policy at the end of the round before (the authors' scripts; Yu et al. 2024, arXiv 2405.17220)

The feed makes the pairs inside the core's loop, with the anchor's log-probs, one a token: so a checkpoint holds no
anchor, and a run that resumes goes on with the same pairs.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import Feed, Key, Metrics, Program, PyTree, TrainState
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.documents import PairDocuments
from rl_jax.language.dpo import PLACES, dpo_program, reference_of
from rl_jax.language.own_answers import Drawn, drawer
from rl_jax.language.pairs import Pairs, compared
from rl_jax.language.questions import Questions
from rl_jax.language.rollouts import own_share
from rl_jax.language.rows import Rows
from rl_jax.language.sampler import Sampling, sampler_bytes
from rl_jax.language.training import DTYPES, Trainable

ANCHORS = ("frozen", "previous")

# (numbers of the questions [m], host answers [m n, ...] of one run, randomness) -> pairs, and host metrics
Compare = Callable[[np.ndarray, Drawn, np.random.Generator], tuple[Sequence[PairDocuments], Mapping[str, float]]]


def default_config(max_new_tokens: int) -> ConfigDict:
    """How rounds are made: the field `rounds`."""
    return ConfigDict({
        "prompts": 512,  # questions of a round, which no other round asks as long as there are new ones
        "samples": 8,  # answers to each, which the temperatures share
        "temperatures": (1.0,),
        "max_new_tokens": max_new_tokens,
        "updates": 100,  # of a round; num_steps says how many rounds there are
        "anchor": "frozen",  # or "previous"
        "at_once": 128,  # questions that are answered together
    })


def rounds_program(
    config: ConfigDict, decoder: DecoderConfig, pretrained: PyTree, questions: Questions, stop: tuple[int, ...],
    compare: Compare, held_out: Pairs | None = None,
) -> Program:
    """Trains "policy" in rounds of `config.rounds.updates` updates, in passes over a round's pairs in random order.

    Outcomes are those of `dpo.dpo_program` for held-out pairs. `resident["model"]` is the pretrained policy.

    Args:
      config: holds `agent` (`dpo.default_config`), `rounds` (`default_config`), `batch_size` (in pairs), `num_steps`.
      questions: the first `rounds.prompts` of them are asked in the first round, and so on, and then again from the
        beginning.
      stop: tokens that end an answer.
      compare: makes the pairs of a round of one run; their documents have at most the decoder's context.

    Raises:
      ValueError: the anchor is unknown, or there are fewer questions than a round asks; by the feed: a round has no
        pairs.
    """
    told, settings = config.rounds, config.agent
    if told.anchor not in ANCHORS:
        raise ValueError(unknown("config.rounds.anchor", told.anchor, ANCHORS))
    if told.prompts > len(questions.lengths):
        raise ValueError(
            f"config.rounds.prompts={told.prompts} of {len(questions.lengths)} questions: ask fewer in a round"
        )
    own = Trainable(decoder, settings)
    drawn_from = [
        Sampling(max_new_tokens=told.max_new_tokens, temperature=temperature, stop=stop)
        for temperature in told.temperatures
    ]
    draw = drawer(own, questions, told.samples, drawn_from, min(told.at_once, told.prompts))
    referenced = reference_of(decoder, settings, config.batch_size)
    sets: list[Pairs] = []  # of the runs, in this round
    seeds: list[np.ndarray] = []  # of their passes

    of_round = config.copy_and_resolve_references()
    of_round.num_steps = told.updates  # how long the schedule of the learning rate is
    inner = dpo_program(of_round, decoder, pretrained, None, held_out)

    def step(state: TrainState, resident: PyTree, batch: Pairs, key: Key) -> tuple[TrainState, Metrics]:
        fresh = inner.init(key, resident).opt_state  # of zeros, whatever the key is
        starts = state.step % told.updates == 0
        opt_state = jax.tree.map(lambda new, old: jnp.where(starts, new, old), fresh, state.opt_state)
        return inner.step(state.replace(opt_state=opt_state), resident, batch, key)

    def renew(state: TrainState, resident: PyTree, keys: Key, number: int) -> dict[str, float]:
        """The pairs of a round, and what there is to say of them, means over the runs."""
        trained = state.params["policy"]
        asked = (number * told.prompts + np.arange(told.prompts)) % len(questions.lengths)
        drawn, said, found = draw(trained, resident["model"], asked, keys), [], []
        words = np.asarray(jax.device_get(jax.random.key_data(keys)))
        for run in range(len(words)):
            documents, metrics = compare(asked, drawn.of_run(run), np.random.default_rng(words[run].tolist()))
            if not documents:
                raise ValueError(
                    f"round {number + 1} of {told.prompts} questions with {told.samples} answers has no pair: all "
                    "answers are judged equally good; raise config.rounds.prompts or the temperatures, and see whether "
                    "the judge, if it is learned, tells answers apart"
                )
            reference = resident["model"]
            if told.anchor == "previous":
                reference = own.params(jax.tree.map(lambda x, run=run: x[run], trained), reference)
            pairs = referenced(reference, compared(documents, decoder.context_length))
            found.append(pairs)
            lengths = {
                f"round/{name}_length": float(np.mean(rows.mask.sum(-1)))
                for name, rows in (("chosen", pairs.first), ("rejected", pairs.second))
            }
            said.append({"round/pairs": float(len(pairs))} | lengths | dict(metrics))
        sets[:], seeds[:] = found, list(words)
        return {name: float(np.mean([x[name] for x in said])) for name in said[0]}

    def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[Pairs, dict[str, float]]:
        number, within = divmod(int(step), told.updates)
        metrics = {} if within else renew(state, resident, keys, number)
        parts = []
        for pairs, seed in zip(sets, seeds, strict=True):
            chosen = passes(len(pairs), seed, within * config.batch_size, config.batch_size)
            parts.append(jax.tree.map(lambda x, chosen=chosen: np.asarray(x)[chosen], pairs))
        return own_share(jax.tree.map(lambda *leaves: np.stack(leaves), *parts)), metrics

    def save() -> PyTree:
        return {"sets": [saved_pairs(pairs) for pairs in sets], "seeds": list(seeds)}

    def restore(saved: PyTree) -> None:
        sets[:] = [restored_pairs(x) for x in saved["sets"]]
        seeds[:] = [np.asarray(x) for x in saved["seeds"]]

    most = max(drawn_from, key=lambda sampling: sampling.max_new_tokens)
    size = sampler_bytes(
        decoder, min(told.at_once, told.prompts), questions.tokens.shape[1], told.samples, most, DTYPES[settings.dtype]
    )
    return inner._replace(step=step, feed=Feed(collect, save, restore, bytes=size))


def passes(size: int, seed: Sequence[int], start: int, count: int) -> np.ndarray:
    """[count] int, from place `start` on, of one random order of `size` things after the other."""
    places = start + np.arange(count)
    orders = {
        number: np.random.default_rng([*map(int, seed), int(number)]).permutation(size)
        for number in np.unique(places // size)
    }
    return np.array([orders[place // size][place % size] for place in places])


def saved_pairs(pairs: Pairs) -> dict[str, Any]:
    """Pairs as what a checkpoint holds of a feed."""
    rows = {place: _fields(getattr(pairs, place)) for place in PLACES}
    return rows | {"desirable": np.asarray(pairs.desirable), "margin": np.asarray(pairs.margin)}


def restored_pairs(saved: Mapping[str, Any]) -> Pairs:
    """Pairs of `saved_pairs`."""
    first, second = (Rows(**{name: np.asarray(x) for name, x in saved[place].items()}) for place in PLACES)
    return Pairs(first, second, np.asarray(saved["desirable"]), np.asarray(saved["margin"]))


def _fields(rows: Rows) -> dict[str, np.ndarray]:
    found = ((field.name, getattr(rows, field.name)) for field in dataclasses.fields(rows))
    return {name: np.asarray(x) for name, x in found if x is not None}
