"""A tiny random decoder and a few documents, which the tests of language share."""

import jax
import numpy as np

from rl_jax.language.decoder import Decoder, DecoderConfig, head_kernel, init_decoder
from rl_jax.language.rows import Builder
from rl_jax.language.scoring import token_log_probs

CONFIG = DecoderConfig(
    vocab_size=13, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4, hidden_width=24, tied=True,
    context_length=32,
)
DECODER = Decoder(CONFIG)


def _documents():
    rng = np.random.default_rng(0)
    for number, (prompt, answer) in enumerate([(3, 8), (5, 4), (2, 6), (4, 3), (1, 4), (2, 2)]):
        builder = Builder(CONFIG.vocab_size, CONFIG.context_length)
        builder.append(rng.integers(0, 13, prompt), sampled=False).append(rng.integers(0, 13, answer), sampled=True)
        yield builder.document(group=number // 2)


DOCUMENTS = list(_documents())


def _params():
    params = jax.jit(init_decoder, static_argnums=0)(CONFIG, jax.random.key(0))
    # Ten times the initial values: a decoder whose distributions are far from uniform.
    return jax.tree.map(lambda x: x * 10 if x.ndim > 2 else x, params)


PARAMS = jax.jit(_params)()


def log_probs(params, rows):
    """[B, T] of the tokens of Rows."""
    hidden = DECODER.apply({"params": params}, rows.tokens, rows.positions, rows.segments)
    return token_log_probs(hidden, head_kernel(params, CONFIG), rows.tokens, chunk=5)[0]
