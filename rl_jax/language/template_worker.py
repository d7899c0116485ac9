"""A process that renders one chat template: `python template_worker.py`, started by chat.py.

A template is a program that came with the weights. jinja2's immutable sandbox keeps it from calling out, and this
process bounds its time and memory, which the sandbox does not. The first line of standard input is the template (JSON),
each line after it a dictionary of variables; each line of standard output says what came of it: {"text", "spans"} or
{"error"}. A render that takes more processor time than SECONDS ends the process. It needs jinja2 and nothing of this
project, so it starts quickly; it ends when its input does, so it cannot outlive its parent.
"""

import contextlib
import functools
import json
import os
import re
import resource
import secrets
import signal
import sys
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 2
MEMORY_BYTES = 2**29
MOST_LETTERS = 10_000_000
OPEN, CLOSE = "open", "close"


class Generation(Extension):
    """The tag {% generation %} ... {% endgeneration %}: the assistant's words, put between two marks.

    A mark holds a secret of the render, so that no message can spell it.
    """

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        secret = self.environment.secret
        return f"{secret}{OPEN}\0{caller()}{secret}{CLOSE}\0"


@functools.cache
def compiled(source: str) -> jinja2.Template:
    """The template with what chat templates are written for: blocks are trimmed, loops may break, JSON is as it is."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.secret = ""
    return made.from_string(source)


def to_json(x: Any, indent: int | None = None, **settings: Any) -> str:
    return json.dumps(x, ensure_ascii=False, indent=indent, **settings)


def refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def render(template: jinja2.Template, variables: dict[str, Any]) -> dict[str, Any]:
    """The text, and the spans of characters that stand between marks."""
    secret = template.environment.secret = f"\0{secrets.token_hex(8)}"
    text, spans, opened = "", [], []
    for part in re.split(rf"({secret}(?:{OPEN}|{CLOSE})\0)", template.render(**variables)):
        if part == f"{secret}{OPEN}\0":
            opened.append(len(text))
        elif part == f"{secret}{CLOSE}\0":
            spans.append((opened.pop(), len(text)))
        else:
            text += part
    if len(text) > MOST_LETTERS:
        return {"error": f"it writes {len(text)} letters, and at most {MOST_LETTERS} are taken"}
    return {"text": text, "spans": spans}


def answer(source: str, line: str) -> dict[str, Any]:
    try:
        return render(compiled(source), json.loads(line))
    except jinja2.sandbox.SecurityError as error:
        return {"error": f"it reaches for what a template may not touch ({error})"}
    except MemoryError:
        return {"error": f"it takes more than {MEMORY_BYTES >> 20} MiB"}
    except RecursionError:
        return {"error": "it calls itself without end"}
    except Exception as error:  # noqa: BLE001: whatever a template does wrong
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source = json.loads(sys.stdin.readline())
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process's work; its signal ends the process
        said = json.dumps(answer(source, line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(said + "\n")
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()
