"""A decoder fitted to a target over texts and judged exactly over all of them; and the prior that it starts from."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.files import write_atomically
from rl_jax.core.fused import evaluated
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.cache import files_checksum
from rl_jax.language.checkpoints import load
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.distribution_matching import Target, draw_texts, matching_program, text_log_probs
from rl_jax.language.enumeration import all_sequences, judgement
from rl_jax.language.sampled_judgement import sampled_judge, wanted_texts
from rl_jax.language.text import Tokenizer
from rl_jax.losses.distribution_matching import tilt
from rl_jax.networks.model_file import load_model, save_model
from rl_jax.networks.trained import Networks, Trained

PRIOR = Path(__file__).parent / "prior.npz"
TARGETS = ("reward", "pointwise", "distributional", "word")
START = 0  # the token before every text
TARGET_SEED = 0  # of texts that say what the target is, which is one for the runs of all seeds
DISTANCE = Metric("eval/total_variation", "total variation from the target", "lower")
TO_TARGET = Metric("eval/kl", "KL(p || pi)", "lower", "nats")
LOSS = Metric("eval/loss", "nats a token", "lower")


class Prior(NamedTuple):
    """The decoder that is trained; `start` is the token before every text, `tokenizer` None where none can be read."""

    shape: DecoderConfig
    params: PyTree
    start: int
    tokenizer: Tokenizer | None
    inputs: dict[str, str]


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/kl_bayes.py says."""
    if config.task == "pretrain":
        return pretraining(config, DecoderConfig(**config.decoder))
    prior = load_prior(config)
    target = target_of(config, prior)
    if config.model:
        return by_samples(config, prior, target)
    shape, texts = prior.shape, with_start(all_sequences(prior.shape.vocab_size, config.matching.length))
    potential = np.asarray(target.potential(texts[:, 1:]), np.float64)
    log_prior = np.asarray(jax.jit(functools.partial(text_log_probs, shape))(prior.params, texts))

    @evaluated
    def exact(params: PyTree, texts: jax.Array) -> jax.Array:
        """log pi of every text, [N]."""
        return text_log_probs(shape, params["policy"], texts)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident, key
        judged = [judgement(log_pi, log_prior, potential) for log_pi in exact(state.params, texts)]
        return Evaluation(outcomes={name: np.array([[one[name]] for one in judged]) for name in judged[0]})

    def program(config: ConfigDict) -> Program:
        return matching_program(config.matching, shape, prior.params, prior.start, target, evaluate)

    return Experiment(program, prior.inputs, DISTANCE)


def by_samples(config: ConfigDict, prior: Prior, target: Target) -> Experiment:
    """Texts of a language model, which cannot all be listed; the finished run writes some, the prior's and its own."""
    key = jax.random.key(TARGET_SEED)
    wanted = wanted_texts(
        prior.shape, prior.params, prior.start, config.matching.length, target, config.prior_texts, key
    )
    evaluate = sampled_judge(prior.shape, prior.start, target, wanted, config.evaluation_texts)

    def program(config: ConfigDict) -> Program:
        return matching_program(config.matching, prior.shape, prior.params, prior.start, target, evaluate)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        trained = first_run(result.state.params["policy"])
        lines = []
        for name, params in {"prior": prior.params, "trained": trained}.items():
            texts = np.asarray(draw_texts(prior.shape, params, prior.start, 8, config.matching.length, key))
            lines += [f"{name}: {prior.tokenizer.decode(text[1:].tolist())}" for text in texts]
        write_atomically(workdir / "texts.txt", "\n".join(lines) + "\n")
        return {"share_of_prior": wanted.share, "texts": str(workdir / "texts.txt")}

    return Experiment(program, prior.inputs, TO_TARGET, finish)


def load_prior(config: ConfigDict) -> Prior:
    """A language model by its name or folder, or else the decoder of symbols."""
    if config.model:
        model = load(config.model)
        return Prior(model.config, model.params, model.tokenizer.bos, model.tokenizer, {"prior": config.model})
    shape, path = DecoderConfig(**config.decoder), Path(config.prior or PRIOR)
    params = load_model(path, "prior", "markov", functools.partial(init_decoder, shape))
    return Prior(shape, jax.tree.map(jnp.asarray, params), START, None, {"prior": files_checksum(path)})


def with_start(texts: np.ndarray) -> np.ndarray:
    """[N, 1 + L] of [N, L]."""
    return np.pad(texts, ((0, 0), (1, 0)), constant_values=START)


def target_of(config: ConfigDict, prior: Prior) -> Target:
    """What `config.target` asks of a text; distributional constraints are fitted to texts of the prior.

    Raises:
      ValueError: there is no such kind, or the word needs a model that has one.
    """
    target = config.target
    if target.kind not in TARGETS:
        raise ValueError(unknown("config.target.kind", target.kind, TARGETS))
    if (target.kind == "word") != bool(config.model):
        raise ValueError(
            f"config.target.kind={target.kind!r} with config.model={config.model!r}: a word is asked of a language "
            "model's texts, and the other kinds of the decoder of symbols"
        )

    def holds(texts: jax.Array, times: int = 1) -> jax.Array:
        return (jnp.sum(texts == target.symbol, axis=-1) >= times).astype(jnp.float32)

    def reward(texts: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(texts == target.symbol, axis=-1)

    if target.kind == "reward":  # half a point for each symbol
        return Target(lambda texts: reward(texts) / target.beta, reward)
    if target.kind == "pointwise":
        return Target(lambda texts: jnp.log(holds(texts, target.times)), lambda texts: holds(texts, target.times))
    if target.kind == "word":
        word = prior.tokenizer.encode(target.word).tolist()
        return Target(lambda texts: jnp.log(contains(texts, word)), lambda texts: contains(texts, word))
    key, length = jax.random.key(TARGET_SEED), config.matching.length
    texts = draw_texts(prior.shape, prior.params, prior.start, target.fitted_on, length, key)
    coefficient = tilt(holds(texts[:, 1:])[:, None], jnp.array([target.share]), target.tolerance)[0]
    return Target(lambda texts: coefficient * holds(texts), holds)


def contains(texts: jax.Array, word: Sequence[int]) -> jax.Array:
    """1.0 where the tokens of the word stand next to each other in texts [B, L], else 0.0."""
    places = texts.shape[1] - len(word) + 1
    found = [texts[:, offset : offset + places] == token for offset, token in enumerate(word)]
    return jnp.any(jnp.all(jnp.stack(found), axis=0), axis=-1).astype(jnp.float32)


def pretraining(config: ConfigDict, shape: DecoderConfig) -> Experiment:
    """The prior: a decoder that has learnt a random Markov chain of order 2."""
    networks = Networks({"policy": Trained(functools.partial(init_decoder, shape), optax.adam(3e-3))})
    size, concentration = shape.vocab_size, config.chain.concentration
    chain = jax.random.dirichlet(jax.random.key(config.chain.seed), jnp.full(size, concentration), (size, size))

    def draw(chain: jax.Array, key: Key) -> jax.Array:
        """Texts [B, 1 + L] of the chain, which starts after two START."""

        def step(last: tuple[jax.Array, jax.Array], key: Key) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            token = jax.random.categorical(key, jnp.log(chain[last]))
            return (last[1], token), token

        start = jnp.full(config.batch_size, START)
        _, texts = jax.lax.scan(step, (start, start), jax.random.split(key, config.matching.length))
        return jnp.concatenate([start[:, None], texts.T], axis=1)

    def loss(params: PyTree, texts: jax.Array) -> tuple[jax.Array, Metrics]:
        value = -jnp.mean(text_log_probs(shape, params, texts)) / config.matching.length
        return value, {"policy/loss": value}

    def init(key: Key, chain: jax.Array) -> TrainState:
        return networks.init(key, {"policy": ()})

    def step(state: TrainState, chain: jax.Array, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        return networks.step(state, "policy", loss, draw(chain, key))

    @evaluated
    def judged(params: PyTree, chain: jax.Array, key: Key) -> jax.Array:
        return loss(params["policy"], draw(chain, key))[0]

    def evaluate(state: TrainState, chain: jax.Array, key: Key) -> Evaluation:
        return Evaluation(outcomes={"loss": judged(state.params, chain, key)[:, None]})

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        save_model(workdir / "model.npz", first_run(result.state.params["policy"]), kind="prior", domain="markov")
        return {"model": str(workdir / "model.npz")}

    return Experiment(lambda config: Program(init, step, evaluate, chain), {}, LOSS, finish)
