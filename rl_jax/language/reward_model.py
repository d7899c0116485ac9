"""A reward model: a decoder whose last token's state gives a number, trained on pairs by Bradley and Terry's model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.language import training
from rl_jax.language.decoder import Decoder, DecoderConfig
from rl_jax.language.held_out import by_prompt, correlations, over_held_out, won
from rl_jax.language.pairs import Pairs, apart
from rl_jax.language.rollouts import Anchored, Learned
from rl_jax.language.rows import Rows, joined, left_aligned
from rl_jax.language.sampler import Samples, prompts_and_answers
from rl_jax.language.scoring import answer_lengths, last_token_scalar
from rl_jax.language.training import Trainable, optimiser, summed_gradient
from rl_jax.losses.preference import bradley_terry_loss
from rl_jax.networks.trained import Networks, Trained


def default_config() -> ConfigDict:
    """The trainer's settings."""
    config = training.default_config()
    config.margin = 0.0  # the chosen answer leads by it times the pair's own margin; 0 for none
    config.centre = 0.01  # weight of the squared sum of a pair's rewards, which keeps them around 0
    return config


def rewards(own: Trainable, trained: PyTree, pretrained: PyTree, rows: Rows) -> jax.Array:
    """[B], of whole rows; `trained` holds "decoder" and "head" [D]."""
    hidden = own.hidden(own.params(trained["decoder"], pretrained), rows)
    return last_token_scalar(hidden, rows.segments, trained["head"])


def learned(decoder: DecoderConfig, params: PyTree, head: jax.Array, dtype: Any = jnp.float32) -> Learned:
    """A trained reward model as what scores a policy's responses, with the token that ends them.

    Args:
      params: of the decoder, adapters merged.
      head: [D].
    """
    network = Decoder(decoder, dtype, packed=False)

    def rewards(model: PyTree, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        positions, segments = left_aligned(tokens, lengths)
        hidden = network.apply({"params": model["decoder"]}, tokens, positions, segments)
        return last_token_scalar(hidden, segments, model["head"])

    return Learned({"decoder": params, "head": head}, rewards)


def anchored_reward(
    decoder: DecoderConfig, params: PyTree, head: jax.Array, max_new_tokens: int, dtype: Any = jnp.float32
) -> Anchored:
    """sigmoid(r(x, y) - r(x, anchor)): the probability that Bradley and Terry's model gives a response to beat the
    anchor answer to its question. A number that is added to all rewards of a prompt changes nothing.

    Args:
      params, head: as `learned`.
      max_new_tokens: of the policy.
    """
    own = learned(decoder, params, head, dtype)

    def rewards(model: PyTree, samples: Samples, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        prompts, _ = prompts_and_answers(samples, max_new_tokens)
        answered = own.rewards(model, samples.tokens, samples.lengths)
        return jax.nn.sigmoid(answered - own.rewards(model, *joined(prompts, (tokens, lengths))))

    return Anchored(own.params, rewards)


def reward_model_program(
    config: ConfigDict, decoder: DecoderConfig, pretrained: PyTree, train: Pairs, held_out: Pairs
) -> Program:
    """Trains "reward" on batches of pairs, drawn uniformly with replacement.

    Outcomes: `accuracy` and `margin` [S, E], of each held-out prompt: how often the chosen answer's reward is the
    higher one, and by how much; `length_correlation` [S, 1], of the rewards of all held-out answers with their tokens.

    Args:
      config: holds `agent` (`default_config`), `batch_size` (in pairs) and `num_steps`.
      pretrained: parameters to start from; the head starts at 0, so that all rewards are 0.
    """
    settings, own = config.agent, Trainable(decoder, config.agent)

    def start(key: Key, pretrained: PyTree) -> PyTree:
        return {"decoder": own.init(key, pretrained), "head": jnp.zeros(decoder.width)}

    networks = Networks({"reward": Trained(start, optimiser(settings, config.num_steps))})

    def init(key: Key, resident: PyTree) -> TrainState:
        return networks.init(key, {"reward": (resident["model"],)})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        pairs = shard_batch(sample_rows(resident["train"], key, config.batch_size, len(resident["train"])))

        def loss(trained: PyTree, part: Pairs) -> tuple[jax.Array, Metrics]:
            chosen, rejected = apart(rewards(own, trained, resident["model"], part.rows()))
            terms = bradley_terry_loss(chosen, rejected, settings.margin * part.margin)
            terms += settings.centre * jnp.square(chosen + rejected)
            found = {
                "reward/loss": terms, "reward/accuracy": (chosen > rejected).astype(jnp.float32),
                "reward/margin": chosen - rejected,
            }
            means = {name: jnp.sum(x) / config.batch_size for name, x in found.items()}
            return means["reward/loss"], means

        gradient, metrics = summed_gradient(loss, state.params["reward"], pairs, settings.micro_batches)
        state, norms = networks.apply_gradient(state, "reward", gradient)
        return state, metrics | norms

    def score(trained: PyTree, pretrained: PyTree, part: Pairs) -> dict[str, jax.Array]:
        rows = part.rows()
        chosen, rejected = apart(rewards(own, trained, pretrained, rows))
        chosen_length, rejected_length = apart(answer_lengths(rows.mask))
        lengths = {"chosen_length": chosen_length, "rejected_length": rejected_length}
        return {"chosen": chosen, "rejected": rejected} | lengths

    scored = over_held_out(score, config.batch_size)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found = scored(state.params["reward"], resident["model"], resident["held_out"])
        margins, prompts = found["chosen"] - found["rejected"], np.asarray(held_out.first.group)
        values = np.concatenate([found["chosen"], found["rejected"]], -1)
        lengths = np.concatenate([found["chosen_length"][0], found["rejected_length"][0]])
        return Evaluation(outcomes={
            "accuracy": by_prompt(won(margins), prompts), "margin": by_prompt(margins, prompts),
            "length_correlation": correlations(values, lengths)[:, None],
        })

    return Program(init, step, evaluate, {"model": pretrained, "train": train, "held_out": held_out})
