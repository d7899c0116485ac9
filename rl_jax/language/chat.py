"""Chat templates: messages to the text that a model was trained on, and which of it the assistant wrote.

A template is a program that came with the weights, so it runs in jinja2's sandbox, in a process of its own with bounds
on time and memory (template_worker.py). It sees no clock: `strftime_now` is not defined, and templates that ask for it
take their fixed date.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rl_jax.core.extras import require
from rl_jax.language.spans import Span
from rl_jax.language.text import Tokenizer

Messages = Sequence[Mapping[str, Any]]  # {"role": "system" | "user" | "assistant" | ..., "content": text, ...}
REMEDY = "use the template that its model was published with"


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
      text: of all messages.
      spans: of characters, what the assistant is to write: its words and the mark that ends them.
    """

    text: str
    spans: list[Span]


class Encoded(NamedTuple):
    """A conversation as tokens.

    Attributes:
      tokens: int32 [T].
      mask: bool [T], which of them the assistant is to write.
    """

    tokens: np.ndarray
    mask: np.ndarray


class ChatTemplate:
    """A chat template in jinja2.

    Args:
      source: the template.
      special: variables of every render: bos_token, eos_token, pad_token.
      name: where it came from, for messages.
    """

    def __init__(self, source: str, special: Mapping[str, str], name: str = "the chat template"):
        self.source, self.special, self.name = source, dict(special), name
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def render(self, messages: Messages, add_generation_prompt: bool = False, **variables: Any) -> str:
        """The text of a conversation; with `add_generation_prompt`, up to where the assistant begins to answer.

        Args:
          variables: others that the template reads, such as tools or enable_thinking; values that JSON can say.

        Raises:
          ValueError: the template refuses the messages, is no template, reaches out of its sandbox, or needs more time,
            memory or letters than a template may.
        """
        return self._ask(messages, add_generation_prompt, variables)["text"]

    def rendered(self, messages: Messages, **variables: Any) -> Rendered:
        """The text of a conversation and the spans of the assistant's words in it.

        They are what the template's {% generation %} tags hold. In a template without these they are what each answer
        adds to the text before it, up to the last token that ends an answer.

        Raises:
          ValueError: as `render`; or there are no tags, and the template writes earlier messages in another way when
            later ones follow.
        """
        whole = self._ask(messages, False, variables)
        if whole["spans"] or "endgeneration" in self.source:
            return Rendered(whole["text"], [(start, end) for start, end in whole["spans"]])
        text, spans, eos = whole["text"], [], self.special.get("eos_token", "")
        for turn, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            before = self.render(messages[:turn], True, **variables)
            after = self.render(messages[: turn + 1], **variables)
            if not (text.startswith(after) and after.startswith(before)):
                raise ValueError(
                    f"{self.name} writes the messages before the assistant's message {turn} in another way when it "
                    "follows: learn from the last answer alone, or mark the answers with {% generation %} in a copy "
                    "of the template"
                )
            end = after.rfind(eos, len(before)) + len(eos) if eos and eos in after[len(before) :] else len(after)
            spans.append((len(before), end))
        return Rendered(text, spans)

    def encoded(self, tokenizer: Tokenizer, messages: Messages, **variables: Any) -> Encoded:
        """The tokens of a conversation to learn from, and a mask of what the assistant is to write.

        Each stretch is encoded by itself, so that no token lies across the border of what is learnt.
        """
        text, spans = self.rendered(messages, **variables)
        borders = [0, *(border for span in spans for border in span), len(text)]
        parts = [tokenizer.encode(text[start:end]) for start, end in zip(borders[:-1], borders[1:], strict=True)]
        mask = [np.full(len(part), place % 2 == 1) for place, part in enumerate(parts)]
        return Encoded(np.concatenate(parts), np.concatenate(mask))

    def prompt(self, tokenizer: Tokenizer, messages: Messages, **variables: Any) -> np.ndarray:
        """The tokens up to where the assistant begins to answer, int32 [T]."""
        return tokenizer.encode(self.render(messages, True, **variables))

    def next_turn(self, tokenizer: Tokenizer, messages: Messages, **variables: Any) -> np.ndarray:
        """The tokens that follow the assistant's last answer up to where its next one begins, int32 [T].

        To be appended to the tokens that were sampled, which end with the token that ends an answer.

        Args:
          messages: the conversation; the last answer stands in it, and what was replied to it behind.

        Raises:
          ValueError: there is no answer in the messages; or as `rendered`.
        """
        whole, spans = self.rendered(messages, **variables)
        if not spans:
            raise ValueError(f"{self.name}: there is no answer of the assistant among the messages: encode a prompt")
        text = self.render(messages, True, **variables)
        if not text.startswith(whole):
            raise ValueError(f"{self.name} writes the messages in another way when an answer is to follow: {REMEDY}")
        return tokenizer.encode(text[spans[-1][1] :])

    def _ask(self, messages: Messages, add_generation_prompt: bool, variables: Mapping[str, Any]) -> dict[str, Any]:
        values = {**self.special, **variables}
        values |= {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        try:
            line = json.dumps(values, default=dict)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.name}: JSON cannot say what the messages hold ({error}): give text") from None
        with self._lock:
            said, code = self._exchange(line)
        if not said:
            ended = "takes too much time" if code == -signal.SIGPROF else f"takes too much memory (code {code})"
            raise ValueError(f"{self.name} {ended}: {REMEDY}")
        found = json.loads(said)
        if "error" in found:
            raise ValueError(f"{self.name} fails on these messages: {found['error']}. {REMEDY.capitalize()}")
        return found

    def _exchange(self, line: str) -> tuple[str, int]:
        """Sends a line to the process; returns its answer, or "" and the code with which it ended."""
        # Until it has answered there is none, so that after an interrupt no late answer is taken for the next one.
        process, self._process = self._process or self._start(), None
        _write(process, line)
        said = process.stdout.readline()
        if not said.endswith("\n"):
            return "", _stop(process)
        self._process = process
        return said, 0

    def _start(self) -> subprocess.Popen:
        require("jinja2", "language")
        worker = Path(__file__).with_name("template_worker.py")
        process = subprocess.Popen(
            [sys.executable, "-P", str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )
        weakref.finalize(self, _stop, process)
        _write(process, json.dumps(self.source))
        return process


def _write(process: subprocess.Popen, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # it ended, and reading its answer will tell
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _stop(process: subprocess.Popen) -> int:
    """Ends the process and closes its pipes; returns the code with which it ended."""
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
