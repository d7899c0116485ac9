"""A host-scored sampler: short texts sampled on the device, scored by plain Python while the device trains.

The key of a sample is derived from its index in the batch, so several processes that sample a share each make the
same batch as one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Program, TrainState, overlapped

HEADLINE = "eval/expected_score"
LETTERS, LENGTH, WORD = 4, 6, "abcabd"


def get_config(preset: str = "tiny") -> ConfigDict:
    def tiny() -> ConfigDict:
        config = core_config()
        config.batch_size = 16
        config.learning_rate = 5e-2
        return config

    return from_preset("scored", {"tiny": tiny}, preset)


def log_probs_of(params, tokens):
    """Of whole texts [..., LENGTH]; the letters are independent."""
    log_probs = jax.nn.log_softmax(params["logits"])
    return jnp.sum(jnp.take_along_axis(log_probs[None], tokens[..., None], -1)[..., 0], -1)


@jax.jit
def sample_run(params, key, rows):
    def one(row):
        return jax.random.categorical(jax.random.fold_in(key, row), params["logits"])

    tokens = jax.vmap(one)(rows).astype(jnp.int32)
    return tokens, log_probs_of(params, tokens)


def parameters_on_host(state):
    """A copy: what reads the device's own memory on a CPU would keep the next step from taking it over."""
    return jax.tree.map(np.array, jax.device_get(gather(state.params)))


def score_text(text: str) -> float:
    return sum(letter == wanted for letter, wanted in zip(text, WORD, strict=True)) / LENGTH


def make_program(config: ConfigDict, workdir) -> tuple[Program, dict]:
    del workdir
    # A letter that no text of the batch has gets a gradient of rounding errors: a small eps would make steps of it.
    optimizer = optax.adam(config.learning_rate, eps=1e-3)

    def init(key):
        params = {"logits": jax.random.normal(key, (LENGTH, LETTERS)) * 0.1}
        return TrainState.create(params, optimizer.init(params))

    def step(state, batch, key):
        del key
        batch = shard_batch(batch)

        def loss_fn(params):
            ratio = jnp.exp(log_probs_of(params, batch["tokens"]) - batch["log_probs"])
            advantages = batch["rewards"] - jnp.mean(batch["rewards"])
            return -jnp.mean(ratio * advantages), jnp.mean(ratio)

        (loss, ratio), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state)
        info = {"actor/loss": loss, "ratio/mean": ratio, "rewards/mean": jnp.mean(batch["rewards"])}
        return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state), info

    def sample(state, keys, step):
        del step
        share = config.batch_size // jax.process_count()
        rows = jax.process_index() * share + np.arange(share)
        params, words = parameters_on_host(state), np.asarray(jax.random.key_data(keys))
        runs = [
            sample_run(jax.tree.map(lambda x: x[run], params), jax.random.wrap_key_data(words[run]), rows)
            for run in range(config.num_seeds)
        ]
        tokens, log_probs = zip(*runs, strict=True)
        return {"tokens": np.stack(tokens), "log_probs": np.stack(log_probs)}

    def score(sampled):
        texts = [["".join("abcd"[token] for token in row) for row in run] for run in sampled["tokens"]]
        rewards = np.asarray([[score_text(text) for text in run] for run in texts], np.float32)
        return sampled | {"rewards": rewards}, {"score/best": float(rewards.max())}

    def evaluate(state, key):
        del key
        chances = np.asarray(jax.nn.softmax(parameters_on_host(state)["logits"]))
        wanted = ["abcd".index(letter) for letter in WORD]
        return {HEADLINE: chances[:, np.arange(LENGTH), wanted].mean(axis=1)}

    return Program(init, step, overlapped(sample, score), evaluate), {"word": WORD}
