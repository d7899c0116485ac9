"""A decoder fitted to a target over texts and judged exactly over all of them; and the prior that it starts from."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.loop import Result
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.cache import files_checksum
from rl_jax.language.decoder import Decoder, DecoderConfig
from rl_jax.language.distribution_matching import Potential, draw_texts, matching_program, text_log_probs
from rl_jax.language.enumeration import all_sequences, judgement
from rl_jax.losses.distribution_matching import tilt
from rl_jax.networks.model_file import load_model, save_model
from rl_jax.networks.trained import Networks, Trained

PRIOR = Path(__file__).parent / "prior.npz"
TARGETS = ("reward", "pointwise", "distributional")
START = 0  # the token before every text
DISTANCE = Metric("eval/total_variation", "total variation from the target", "lower")
LOSS = Metric("eval/loss", "nats a token", "lower")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/kl_bayes.py says."""
    shape = DecoderConfig(**config.decoder)
    if config.task == "pretrain":
        return pretraining(config, shape)
    if config.target.kind not in TARGETS:
        raise ValueError(unknown("config.target.kind", config.target.kind, TARGETS))
    path = Path(config.prior or PRIOR)
    prior = load_model(path, "prior", "markov", functools.partial(init_decoder, shape))
    prior = jax.tree.map(jnp.asarray, prior)
    wanted = potential(config, shape, prior)
    texts = with_start(all_sequences(shape.vocab_size, config.matching.length))
    values = np.asarray(wanted(texts[:, 1:]), np.float64)
    log_prior = np.asarray(jax.jit(functools.partial(text_log_probs, shape))(prior, texts))

    @jax.jit
    def exact(state: TrainState, texts: jax.Array) -> jax.Array:
        """log pi of every text, [S, N]."""
        of_runs = over_runs(lambda own: text_log_probs(shape, own.params["policy"], texts), default_seed_axis())
        return of_runs(state.replace(step=None))

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident, key
        judged = [judgement(log_pi, log_prior, values) for log_pi in jax.device_get(gather(exact(state, texts)))]
        return Evaluation(outcomes={name: np.array([[one[name]] for one in judged]) for name in judged[0]})

    def program(config: ConfigDict) -> Program:
        return matching_program(config.matching, shape, prior, START, wanted, evaluate)

    return Experiment(program, {"prior": files_checksum(path)}, DISTANCE)


def with_start(texts: np.ndarray) -> np.ndarray:
    """[N, 1 + L] of [N, L]."""
    return np.pad(texts, ((0, 0), (1, 0)), constant_values=START)


def init_decoder(shape: DecoderConfig, key: Key) -> PyTree:
    """Fresh parameters of a decoder."""
    one = jnp.ones((1, 1), jnp.int32)
    return Decoder(shape).init(key, one, one, one)["params"]


def potential(config: ConfigDict, shape: DecoderConfig, prior: PyTree) -> Potential:
    """r / beta of texts, or the logarithm of a constraint; of distributional ones fitted to the prior's texts."""
    target = config.target
    if target.kind == "reward":  # half a point for each symbol
        return lambda texts: 0.5 * jnp.sum(texts == target.symbol, axis=-1) / target.beta
    if target.kind == "pointwise":
        return lambda texts: jnp.where(jnp.sum(texts == target.symbol, axis=-1) >= target.times, 0.0, -jnp.inf)

    def holds(texts: jax.Array) -> jax.Array:
        return jnp.any(texts == target.symbol, axis=-1).astype(jnp.float32)

    texts = draw_texts(shape, prior, START, target.fitted_on, config.matching.length, jax.random.key(config.seed))
    coefficient = tilt(holds(texts[:, 1:])[:, None], jnp.array([target.share]), target.tolerance)[0]
    return lambda texts: coefficient * holds(texts)


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

    @jax.jit
    def judged(state: TrainState, chain: jax.Array, key: Key) -> jax.Array:
        texts = draw(chain, key)
        of_runs = over_runs(lambda own: loss(own.params["policy"], texts)[0], default_seed_axis())
        return of_runs(state.replace(step=None))

    def evaluate(state: TrainState, chain: jax.Array, key: Key) -> Evaluation:
        return Evaluation(outcomes={"loss": np.asarray(jax.device_get(gather(judged(state, chain, key))))[:, None]})

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        params = jax.tree.map(lambda x: np.asarray(x[0]), gather(result.state.params["policy"]))
        save_model(workdir / "model.npz", params, kind="prior", domain="markov")
        return {"model": str(workdir / "model.npz")}

    return Experiment(lambda config: Program(init, step, evaluate, chain), {}, LOSS, finish)
