"""Scores of images by a vision-language model that another process serves, on an accelerator of its own.

Source: Black et al. 2023 (DDPO), arXiv 2305.13301, section 5.3, and Oertell et al. 2024 (RLCM), arXiv 2404.03673, with
LLaVA. Their server reads pickles, which can run any code; this protocol is JSON.

The protocol is one POST a batch. The request is

    {"images": ["<base64 of a JPEG file of quality 80>", ...], "prompts": ["a cat washing the dishes", ...]}

with as many prompts as images, and the answer, status 200, is

    {"scores": [0.87, ...]}

with a number of float32's range for each image, in the same order. A server that is busy or starting answers 429 or
5xx, and the same batch is sent again. Any other status ends the run, redirections too, since a POST does not survive
them; the message has the start of its body.

The authors' score is how well the model's own description recalls the prompt. For each image their server asks LLaVA

    Answer concisely: what is going on in this image?

and scores the answer by BERTScore's recall (Zhang et al. 2020, arXiv 1904.09675) with the reference
"The image contains {prompt}".
"""

import base64
import functools
import http.client
import io
import json
import logging
import time
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

BUSY = 429  # the status of a server that wants to be asked later, as do all from 500 on
SHOWN = 200  # characters of an answer that an error quotes
MAX_ANSWER = 1 << 24  # bytes of an answer
MAX_TIMEOUT = 1e6  # seconds, which the clocks of all systems hold
MAX_DOUBLINGS = 6  # of the seconds before a request is sent again


def remote_scores(
    url: str,
    jpegs: Sequence[bytes],
    prompts: Sequence[str],
    *,
    batch_size: int,
    timeout: float,
    retries: int,
    backoff: float = 1.0,
) -> np.ndarray:
    """Asks the server at `url` for the scores of images, float32 [B].

    Args:
      jpegs: B files.
      prompts: B, of the images.
      batch_size: images of a request.
      timeout: seconds that one request may take, from connecting to the end of the answer.
      retries: times that a request is sent again if nobody listens, nothing comes in time, or the server is busy.
      backoff: seconds before it is sent again; twice as many each time, up to 64 times.

    Raises:
      ConnectionError: no attempt succeeded.
      ValueError: an option cannot be, or the server answered, but not with that many scores of float32's range.
    """
    check_options(url, batch_size, timeout, retries)
    scores = []
    for start in range(0, len(jpegs), batch_size):
        rows = slice(start, start + batch_size)
        images = [base64.b64encode(jpeg).decode("ascii") for jpeg in jpegs[rows]]
        body = json.dumps({"images": images, "prompts": list(prompts[rows])}).encode()
        scores += _checked(url, _ask(url, body, timeout, retries, backoff), len(images))
    return np.asarray(scores, np.float32)


def check_options(url: str, batch_size: int, timeout: float, retries: int) -> None:
    """Raises ValueError if an option of `remote_scores` cannot be."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:  # a port that is no number, or half of an address
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"url is {url!r}: give where the scorer listens, as http://127.0.0.1:8085")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it is 1 or more")
    if not 0 < timeout <= MAX_TIMEOUT or retries < 0:
        raise ValueError(
            f"timeout is {timeout} and retries {retries}: more than 0 and at most {MAX_TIMEOUT:g}, and 0 or more, are "
            "possible"
        )


class _Timely(io.RawIOBase):
    """Reads what a socket receives until a moment in time, after which it raises TimeoutError.

    The time-out of a socket is that of one reception, so that an answer that comes byte by byte could take any time.
    """

    def __init__(self, raw: io.RawIOBase, sock: Any, end: float):
        self._raw, self._sock, self._end = raw, sock, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that is read until `end`, in seconds of the monotonic clock."""

    def __init__(self, sock: Any, *args: Any, end: float, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Timely(self.fp.detach(), sock, end))


class _Opener(urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.HTTPErrorProcessor):
    """Opens http and https, each connection with an end; an answer of any status is returned as it is."""

    def __init__(self, end: float):
        super().__init__()
        self._end = end

    def do_open(self, kind: type, request: urllib.request.Request, **options: Any) -> Any:
        def connection(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            made = kind(*args, **kwargs)
            made.response_class = functools.partial(_Response, end=self._end)
            return made

        return super().do_open(connection, request, **options)

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


def _ask(url: str, body: bytes, timeout: float, retries: int, backoff: float) -> bytes:
    for attempt in range(retries + 1):
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            opener = urllib.request.build_opener(_Opener(time.monotonic() + timeout))
            with opener.open(request, timeout=timeout) as response:
                answer = response.read(MAX_ANSWER + 1)
                if response.length and len(answer) <= MAX_ANSWER:
                    raise http.client.IncompleteRead(answer, response.length)
        except (OSError, http.client.HTTPException) as error:  # nobody listens, it hung up, or it took too long
            why = str(getattr(error, "reason", error))
        else:
            if len(answer) > MAX_ANSWER:
                raise ValueError(f"the scorer at {url} answered more than {MAX_ANSWER} bytes: is it the scorer?")
            if response.status == 200:
                return answer
            why = f"status {response.status}: {answer[:SHOWN].decode(errors='replace')}"
            if response.status != BUSY and response.status < 500:
                raise ValueError(f"the scorer at {url} refused a request with {why}")
        if attempt < retries:
            logging.warning("the scorer at %s gave no answer (%s): asking again", url, why)
            time.sleep(backoff * 2 ** min(attempt, MAX_DOUBLINGS))
    raise ConnectionError(
        f"the scorer at {url} gave no answer in {retries + 1} attempts of {timeout:g} s ({why}): start the server, or "
        "set the reward's url to where it listens, or its timeout higher"
    )


def _checked(url: str, answer: bytes, expected: int) -> list[float]:
    """Returns the scores of an answer, checked against the protocol above."""
    said, remedy = answer[:SHOWN].decode(errors="replace"), 'it must answer {"scores": [a number for each image]}'
    try:
        scores = json.loads(answer)["scores"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"the scorer at {url} answered {said!r}: {remedy}") from None
    if not isinstance(scores, list) or not all(type(score) in (int, float) for score in scores):
        raise ValueError(f"the scorer at {url} answered {said!r}: {remedy}")
    if len(scores) != expected:
        raise ValueError(f"the scorer at {url} gave {len(scores)} scores for {expected} images: {remedy}")
    largest = float(np.finfo(np.float32).max)
    if not all(-largest <= score <= largest for score in scores):
        raise ValueError(f"the scorer at {url} gave a score that is not finite in float32, {said!r}: {remedy}")
    return scores
