"""What the stages of RLHF-V train and how they are judged; each seed learns from what its own model has said."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.rlhf_v.corrections import corrupted, own_pairs
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.members import side_by_side
from rl_jax.core.mesh import first_run
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.data.text.records import Answer
from rl_jax.language import scenes
from rl_jax.language.decoder import DecoderConfig, head_kernel, logits
from rl_jax.language.documents import pair_documents
from rl_jax.language.dpo import dpo_program, reference_of
from rl_jax.language.experiments import leaves_model, start
from rl_jax.language.held_out import over_held_out, won
from rl_jax.language.own_answers import with_own_answers
from rl_jax.language.pairs import Pairs, apart, compared, with_change_weights
from rl_jax.language.rows import Rows, pad
from rl_jax.language.sampler import Sampling, answers, sample
from rl_jax.language.scoring import answer_log_probs
from rl_jax.language.sft import sft_program
from rl_jax.language.stages import starting_models
from rl_jax.language.training import Trainable

STAGES = ("sft", "preferences")
HALLUCINATED = Metric("eval/hallucinated", "share of wrong mentions in a description", "lower")
SEGMENT = Metric("eval/segment", "right segment above the wrong one, held out")
FILLERS = (1, scenes.FILLERS)  # the first token that is style alone, and the last
SHOWN = 2  # scenes whose descriptions a run leaves


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/rlhf_v.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist, or there are too few pairs.
    """
    for field, known in (("domain", DOMAINS), ("stage", STAGES)):
        if config[field] not in known:
            raise ValueError(unknown(f"config.{field}", config[field], known))
    return DOMAINS[config.domain](config)


def scenes_experiment(config: ConfigDict) -> Experiment:
    """Descriptions of scenes without pixels; judged by what a model says of scenes that nobody has described."""
    shape = DecoderConfig(vocab_size=scenes.VOCABULARY, **config.decoder)
    seeds = range(config.seed, config.seed + config.num_seeds)
    starts = starting_models("start", config.start, shape, seeds)
    fresh = scenes.scenes(config.data.judged, np.random.default_rng(config.judge.seed))
    if config.stage == "sft":
        make = demonstrations(config, shape, fresh)
    else:
        told = config.pairs

        def drawn(kind: str, count: int, part: int) -> list[Pairs]:
            """Of each seed's own model; `part` tells pairs to train on from those to judge by."""
            return [
                compared(own_pairs(kind, shape, own, count, config.judge.max_new_tokens, told.seed + 2 * seed + part),
                         shape.context_length)
                for seed, own in zip(seeds, starts, strict=True)
            ]

        train, held_out = drawn(told.kind, told.kept, 0), drawn(told.kind, told.judged, 1)
        common = held_out if told.kind == "corrections" else drawn("corrections", told.judged, 1)
        make = preferences(config, shape, starts, train, held_out, common)

    def measure(numbers: np.ndarray, samples: Any) -> Mapping[str, np.ndarray]:
        return scenes.measured(fresh[numbers], samples)

    def program(config: ConfigDict) -> Program:
        asked, stop = scenes.questions(fresh), (scenes.END,)
        return side_by_side([
            with_own_answers(make(config, number, own), shape, config.agent, config.judge, asked, stop, measure)
            for number, own in enumerate(starts)
        ], config.seed)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        del workdir
        if jax.process_count() > 1:
            return {}
        own = Trainable(shape, config.agent)
        params = own.params(first_run(result.state.params["policy"]), starts[0])
        return {"descriptions": described(shape, params, fresh[:SHOWN], config.judge)}

    return Experiment(program, {"start": config.start}, HALLUCINATED, finish)


def texts_experiment(config: ConfigDict) -> Experiment:
    """Worked solutions with one wrong number; judged by which number a model finds the more likely one in its place.

    Writes the folder `model`, as supervised fine-tuning does.

    Raises:
      ValueError: the set holds no answers, or rankings are asked for, which nobody has made.
    """
    if config.stage != "preferences" or config.pairs.kind != "corrections":
        raise ValueError("config.domain=texts has corrections alone: config.stage=preferences, pairs.kind=corrections")
    found, data, told = start(config), config.data, config.pairs
    if not isinstance(found.train[0], Answer):
        raise ValueError(f"config.data.name={data.name} holds pairs, and answers are corrected: name a set of answers")

    def pairs(records: Sequence[Answer], seed: int, kept: int) -> Pairs:
        wrong = corrupted(records, told.most, seed)
        documents = pair_documents(found.model, wrong, data.name, data.longest, data.most)
        order = np.random.default_rng(seed).permutation(len(documents))[: kept or None]
        return compared([documents[at] for at in order], data.longest)

    train = pairs(found.train, told.seed, told.kept)
    held_out = pairs(found.held_out, told.seed + 1, told.judged)
    starts, decoder = [found.model.params] * config.num_seeds, found.model.config
    make = preferences(config, decoder, starts[:1], [train], [held_out], [held_out])

    def program(config: ConfigDict) -> Program:
        return side_by_side([make(config, number, own) for number, own in enumerate(starts)], config.seed)

    return Experiment(program, found.inputs, SEGMENT, leaves_model(config, found.model))


DOMAINS: dict[str, Callable[[ConfigDict], Experiment]] = {"scenes": scenes_experiment, "texts": texts_experiment}

# Functions that make a program of one seed, from its number among the seeds and the model it starts from

Make = Callable[[ConfigDict, int, PyTree], Program]


def demonstrations(config: ConfigDict, decoder: DecoderConfig, fresh: np.ndarray) -> Make:
    """Supervised learning of a demonstrator that hallucinates."""
    rng = np.random.default_rng(config.data.seed)
    rows = pad([
        scenes.document(scene, scenes.described(scene, config.data.noise, rng), decoder.context_length)
        for scene in scenes.scenes(config.data.size, rng)
    ], decoder.context_length)
    held_out = pad([
        scenes.document(scene, scenes.described(scene, config.data.noise, rng), decoder.context_length)
        for scene in fresh
    ], decoder.context_length)
    return lambda config, number, own: sft_program(config, decoder, own, rows, held_out)


def preferences(
    config: ConfigDict, decoder: DecoderConfig, starts: Sequence[PyTree], train: Sequence[Pairs],
    held_out: Sequence[Pairs], common: Sequence[Pairs],
) -> Make:
    """DPO by weighted scores; the reference's log-probs are computed once, before the first update.

    Args:
      starts, train, held_out: of each seed the model that it starts from and its arm's own pairs; or one for all seeds.
      common: held-out corrections of each seed, by which all arms are judged (`with_segments`).
    """
    told, styles = config.pairs, FILLERS if config.domain == "scenes" else None
    kind = {"normalised": told.normalised, "shortest": told.shortest, "one_sided": told.one_sided}
    referenced = reference_of(decoder, config.agent, config.batch_size)
    train, held_out = (
        [referenced(own, with_change_weights(found, told.gamma, **kind)) for own, found in zip(starts, part)]
        for part in (train, held_out)
    )
    common = [with_change_weights(found, 0.0, normalised=False) for found in common]  # 0 on what was corrected

    def make(config: ConfigDict, number: int, own: PyTree) -> Program:
        place = number % len(train)
        program = dpo_program(config, decoder, own, train[place], held_out[place])
        return with_segments(program, Trainable(decoder, config.agent), common[place], config.batch_size, styles)

    return make


# Judging


def with_segments(
    program: Program, own: Trainable, common: Pairs, batch_size: int, styles: tuple[int, int] | None = None
) -> Program:
    """The program judged also on corrections that all arms share.

    Outcomes, [1, pairs]: `segment`, whether the right segments together are more likely than the wrong ones, each after
    what stands before it in its answer; `corrected_log_prob`, of the whole corrected answer; `unchanged_log_prob`, of
    its tokens that were not corrected, whose fall a weighted score can hide; and, where there are styles, `style_kl`.

    Args:
      common: their weights are 1 on tokens that were kept, and 0 on those that were corrected.
      styles: as `style_kl`.
    """
    def score(trained: PyTree, pretrained: PyTree, part: Pairs) -> dict[str, jax.Array]:
        rows, params = part.rows(), own.params(trained, pretrained)
        log_probs = own.log_probs(params, rows)
        right, wrong = apart(answer_log_probs(log_probs * (1.0 - rows.weights), rows.mask))
        corrected, _ = apart(answer_log_probs(log_probs, rows.mask))
        unchanged, _ = apart(answer_log_probs(log_probs * rows.weights, rows.mask))
        found = {"right": right, "wrong": wrong, "corrected_log_prob": corrected, "unchanged_log_prob": unchanged}
        return found | ({"style_kl": style_kl(own, params, pretrained, part.first, styles)} if styles else {})

    over_all = over_held_out(score, batch_size)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = program.evaluate(state, resident, key)
        said = over_all(state.params["policy"], resident["model"], resident["common"])
        segment = won(said.pop("right") - said.pop("wrong"))
        return Evaluation(found.metrics, {**found.outcomes, **said, "segment": segment})

    return program._replace(evaluate=evaluate, resident={**program.resident, "common": common})


def style_kl(own: Trainable, params: PyTree, reference: PyTree, rows: Rows, styles: tuple[int, int]) -> jax.Array:
    """KL(pi || reference) of the next token in nats, [B]: the mean over the places of each answer where a token of
    style stands, from the first one of `styles` to the last."""
    def log_probs(params: PyTree) -> jax.Array:
        return jax.nn.log_softmax(logits(own.hidden(params, rows)[:, :-1], head_kernel(params, own.config)))

    ours, theirs = log_probs(params), log_probs(reference)
    tokens = rows.tokens[:, 1:]
    placed = rows.mask[:, 1:] * ((tokens >= styles[0]) & (tokens <= styles[1]))
    divergence = jnp.sum(jnp.exp(ours) * (ours - theirs), -1)
    return jnp.sum(placed * divergence, -1) / jnp.maximum(jnp.sum(placed, -1), 1.0)


def as_text(tokens: Sequence[int], scene: np.ndarray) -> str:
    """Tokens of a scene or of its description as a reader sees them: fillers a to d, mentions such as D2 for value 2 of
    the fourth slot, and a star after one that is not true of the scene."""
    wrong = {mention.place for mention in scenes.wrong_mentions(scene, tokens)}

    def word(place: int, token: int) -> str:
        if FILLERS[0] <= token <= FILLERS[1]:
            return "abcd"[token - FILLERS[0]]
        found = scenes.mentions(np.array([token]))
        return f"{'ABCDEFGH'[found[0].slot]}{found[0].value}{'*' * (place in wrong)}" if found else "?"

    return " ".join(word(place, int(token)) for place, token in enumerate(tokens) if token != scenes.END)


def described(decoder: DecoderConfig, params: PyTree, found: np.ndarray, told: ConfigDict) -> list[dict[str, str]]:
    """What a model says of scenes, as text."""
    asked, sampling = scenes.questions(found), Sampling(max_new_tokens=told.max_new_tokens, stop=(scenes.END,))
    said = sample(decoder, params, asked.tokens, asked.lengths, 1, sampling, jax.random.key(told.seed))
    return [
        {"scene": as_text(scenes.prompt(scene), scene), "description": as_text(own, scene)}
        for scene, own in zip(found, answers(jax.device_get(said)), strict=True)
    ]
