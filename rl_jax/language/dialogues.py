"""Chats of several roles, such as an assistant, a user and a judge, each a model or a script, in turn.

A dialogue is tokens from the beginning: nobody's words are encoded again, and each role reads what it may see of it.
Only the turns of one role are learnt from (`document`); others' words, the marks of roles and the outcomes that are
put beside them are given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key, PyTree
from rl_jax.language.decoder import DecoderConfig, head_kernel
from rl_jax.language.judge import default_config
from rl_jax.language.rows import Builder, Document, left_aligned
from rl_jax.language.sampler import Sampling, padded, sample
from rl_jax.language.scoring import label_probability
from rl_jax.language.training import Trainable, in_parts


class Turn(NamedTuple):
    """What a role says.

    Attributes:
      log_probs: of the policy that said it, one a token; None of a script.
    """

    role: str
    tokens: Sequence[int]
    log_probs: Sequence[float] | None = None


Dialogue = tuple[Turn, ...]
# What a role says next in each dialogue.
Speaker = Callable[[Sequence[Dialogue]], Sequence[Turn]]
Marks = Mapping[str, Sequence[int]]  # the tokens before the turns of each role


def conversed(dialogues: Sequence[Dialogue], speakers: Sequence[Speaker]) -> list[Dialogue]:
    """The dialogues after each speaker has spoken in each, one after the other."""
    found = list(dialogues)
    for speaker in speakers:
        found = [(*own, turn) for own, turn in zip(found, speaker(found), strict=True)]
    return found


def seen(dialogue: Dialogue, roles: Sequence[str]) -> Dialogue:
    """The turns of these roles alone: what stands for a reader that may not see the others, such as a world model that
    knows the facts and the choice and not what was said about them."""
    return tuple(turn for turn in dialogue if turn.role in roles)


def tokens_of(dialogue: Dialogue, marks: Marks, opens: str | None = None) -> np.ndarray:
    """The dialogue as one row of tokens, [T] int32; with the mark of the role that speaks next, if one is named."""
    pieces = [[*marks[turn.role], *turn.tokens] for turn in dialogue]
    return np.array([*(token for piece in pieces for token in piece), *(marks[opens] if opens else ())], np.int32)


def document(
    dialogue: Dialogue, marks: Marks, decoder: DecoderConfig, learnt: str = "assistant", **whole: Any
) -> Document:
    """The dialogue as a document of which the turns of one role are learnt, with the log-probs that they bring.

    Args:
      whole: fields of Document, such as group and reward.

    Raises:
      TooLongError: it outgrows the decoder's context.
      ValueError: as `rows.Builder.append`.
    """
    builder = Builder(decoder.vocab_size, decoder.context_length)
    for turn in dialogue:
        builder.append(marks[turn.role], sampled=False)
        builder.append(turn.tokens, sampled=turn.role == learnt, log_probs=turn.log_probs)
    return builder.document(**whole)


# Who speaks


def scripted(role: str, says: Callable[[Dialogue], Sequence[int]]) -> Speaker:
    """A role that a rule speaks for, such as a simulated user or the outcome of what was chosen."""
    return lambda dialogues: [Turn(role, np.asarray(says(own), np.int32)) for own in dialogues]


def sampled(
    role: str, decoder: DecoderConfig, params: PyTree, marks: Marks, told: Sampling, key: Key, width: int,
    sees: Sequence[str] | None = None,
) -> Speaker:
    """A role that a model speaks for.

    Args:
      told: how its tokens are drawn.
      width: tokens of the longest dialogue that it reads: one shape is compiled.
      sees: the roles whose turns it reads; all if left out.

    Raises, when it speaks:
      ValueError: a dialogue is longer than `width`, or as `sampler.sample`.
    """

    def speak(dialogues: Sequence[Dialogue]) -> list[Turn]:
        prompts, lengths = _read(dialogues, marks, role, sees, width)
        found = jax.device_get(sample(decoder, params, prompts, lengths, 1, told, key))
        places = (slice(*both) for both in zip(found.prompt_lengths, found.lengths, strict=True))
        return [
            Turn(role, found.tokens[row, place], found.behaviour_log_probs[row, place])
            for row, place in enumerate(places)
        ]

    return speak


def choosing(
    role: str, decoder: DecoderConfig, params: PyTree, marks: Marks, labels: Sequence[int], width: int,
    sees: Sequence[str] | None = None, at_once: int = 256,
) -> Speaker:
    """A role that says the most likely one of some single tokens, such as which option it takes.

    Arguments and errors as `sampled`.
    """
    own = Trainable(decoder, default_config())

    @jax.jit
    def probabilities(params: PyTree, texts: tuple[jax.Array, jax.Array]) -> jax.Array:
        positions, segments = left_aligned(*texts)
        hidden = own.hidden_of(params, texts[0], positions, segments)
        return label_probability(hidden, segments, head_kernel(params, decoder), jnp.array(labels))[0]

    def speak(dialogues: Sequence[Dialogue]) -> list[Turn]:
        texts = _read(dialogues, marks, role, sees, width)
        found = in_parts(lambda part: probabilities(params, part), texts, at_once)
        return [Turn(role, np.array([labels[number]], np.int32)) for number in found.argmax(-1)]

    return speak


def _read(
    dialogues: Sequence[Dialogue], marks: Marks, role: str, sees: Sequence[str] | None, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [R, width] and lengths [R] of what a role reads before it speaks."""
    texts = [tokens_of(own if sees is None else seen(own, sees), marks, role) for own in dialogues]
    tokens, lengths = padded(texts)
    if tokens.shape[1] > width:
        raise ValueError(f"a dialogue of {tokens.shape[1]} tokens is longer than the {width} that {role!r} reads")
    return np.pad(tokens, ((0, 0), (0, width - tokens.shape[1]))), lengths
