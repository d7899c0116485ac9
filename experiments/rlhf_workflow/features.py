"""Bradley and Terry's model on features: a linear head on what a frozen decoder says of the last token of a text."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.language.held_out import by_prompt, correlations, over_held_out, won
from rl_jax.language.pairs import Pairs, apart
from rl_jax.language.rows import Rows, bucket
from rl_jax.language.scoring import answer_lengths, last_token
from rl_jax.language.training import Trainable, in_parts, optimiser
from rl_jax.losses.preference import bradley_terry_loss
from rl_jax.networks.trained import Networks, Trained


class Features(flax.struct.PyTreeNode):
    """P pairs of texts, of which the first was preferred.

    Attributes:
      chosen, rejected: [P, D] float32.
      chosen_length, rejected_length: [P], tokens of the answers.
      group: [P] int32, the prompt's number.
    """

    chosen: jax.Array
    rejected: jax.Array
    chosen_length: jax.Array
    rejected_length: jax.Array
    group: jax.Array


def features_of(own: Trainable, params: PyTree, pairs: Pairs, at_once: int = 16, step: int = 32) -> Features:
    """The features of pairs on the host, computed once; at the last token, however long the row's padding is.

    Args:
      at_once: rows that are read together, of about one length: they are cut to the next multiple of `step` tokens.
    """
    params, rows = jax.tree.map(jnp.asarray, params), jax.tree.map(np.asarray, pairs.rows())
    longest = rows.tokens.shape[1]

    @jax.jit
    def states(params: PyTree, part: Rows) -> jax.Array:
        return last_token(own.hidden(params, part), part.segments).astype(jnp.float32)

    found = np.zeros((len(rows), own.config.width), np.float32)
    numbered = rows.replace(group=np.arange(len(rows)))
    for part in bucket(numbered, [*range(step, longest, step), longest]).values():
        found[part.group] = in_parts(lambda some: states(params, some), part, at_once)
    return Features(*apart(found), *apart(np.asarray(answer_lengths(rows.mask))), np.asarray(pairs.first.group))


def head_program(config: ConfigDict, train: Features, held_out: Features) -> Program:
    """Trains "reward", {"head": [D]}, on batches of pairs drawn uniformly with replacement.

    Outcomes are those of `reward_model.reward_model_program`, and `longer_accuracy`, how often the longer answer is the
    chosen one: what a head that only counts tokens would have, or 1 less it.
    """
    settings, width = config.agent, train.chosen.shape[-1]
    tx = optimiser(settings, config.num_steps)
    networks = Networks({"reward": Trained(lambda key: {"head": jnp.zeros(width)}, tx)})

    def init(key: Key, resident: PyTree) -> TrainState:
        del resident
        return networks.init(key, {"reward": ()})

    def loss(trained: PyTree, pairs: Features) -> tuple[jax.Array, Metrics]:
        chosen, rejected = pairs.chosen @ trained["head"], pairs.rejected @ trained["head"]
        terms = bradley_terry_loss(chosen, rejected) + settings.centre * jnp.square(chosen + rejected)
        metrics = {"reward/loss": terms, "reward/accuracy": (chosen > rejected).astype(jnp.float32)}
        return jnp.mean(terms), jax.tree.map(jnp.mean, metrics)

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        pairs = shard_batch(sample_rows(resident["train"], key, config.batch_size, len(train.group)))
        return networks.step(state, "reward", loss, pairs)

    def score(trained: PyTree, pretrained: None, part: Features) -> dict[str, jax.Array]:
        return {"chosen": part.chosen @ trained["head"], "rejected": part.rejected @ trained["head"]}

    scored = over_held_out(score, config.batch_size)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found = scored(state.params["reward"], None, resident["held_out"])
        margins, prompts = found["chosen"] - found["rejected"], np.asarray(held_out.group)
        values = np.concatenate([found["chosen"], found["rejected"]], -1)
        lengths = np.concatenate([held_out.chosen_length, held_out.rejected_length])
        longer = won(held_out.chosen_length - held_out.rejected_length)
        return Evaluation(outcomes={
            "accuracy": by_prompt(won(margins), prompts), "margin": by_prompt(margins, prompts),
            "longer_accuracy": by_prompt(np.tile(longer, (len(margins), 1)), prompts),
            "length_correlation": correlations(values, lengths)[:, None],
        })

    return Program(init, step, evaluate, {"train": train, "held_out": held_out})
