"""Scores of images by a vision-language model that another process serves, on an accelerator of its own.

Source: Black et al. 2023 (DDPO), arXiv 2305.13301, section 5.3, and Oertell et al. 2024 (RLCM), arXiv 2404.03673, with
LLaVA. Their server reads pickles, which can run any code; this protocol is JSON.

The protocol is one POST a batch. The request is

    {"images": ["<base64 of a JPEG file of quality 80>", ...], "prompts": ["a cat washing the dishes", ...]}

with as many prompts as images, and the answer, status 200, is

    {"scores": [0.87, ...]}

with a finite number for each image, in the same order. A server that is busy or starting answers 429 or 5xx, and the
same batch is sent again. Any other status ends the run; the message has the start of its body.

The authors' score is how well the model's own description recalls the prompt. For each image their server asks LLaVA

    Answer concisely: what is going on in this image?

and scores the answer by BERTScore's recall (Zhang et al. 2020, arXiv 1904.09675) with the reference
"The image contains {prompt}".
"""

import base64
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

import numpy as np

BUSY = 429  # the status of a server that wants to be asked later, as do all from 500 on
SHOWN = 200  # characters of an answer that an error quotes


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
      timeout: seconds that one request may take.
      retries: times that a request is sent again if nobody listens, nothing comes in time, or the server is busy.
      backoff: seconds before it is sent again; twice as many each time.

    Raises:
      ConnectionError: no attempt succeeded.
      ValueError: the server answered, but not with that many finite scores.
    """
    scores = []
    for start in range(0, len(jpegs), batch_size):
        rows = slice(start, start + batch_size)
        images = [base64.b64encode(jpeg).decode("ascii") for jpeg in jpegs[rows]]
        body = json.dumps({"images": images, "prompts": list(prompts[rows])}).encode()
        scores += _checked(url, _ask(url, body, timeout, retries, backoff), len(images))
    return np.asarray(scores, np.float32)


def _ask(url: str, body: bytes, timeout: float, retries: int, backoff: float) -> bytes:
    for attempt in range(retries + 1):
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:  # it answered, and not with 200
            with error:
                why = f"status {error.code}: {error.read(SHOWN).decode(errors='replace')}"
            if error.code != BUSY and error.code < 500:
                raise ValueError(f"the scorer at {url} refused a request with {why}") from None
        except (OSError, http.client.HTTPException) as error:  # nobody listens, it hung up, or it took too long
            why = str(getattr(error, "reason", error))
        if attempt < retries:
            logging.warning("the scorer at %s gave no answer (%s): asking again", url, why)
            time.sleep(backoff * 2**attempt)
    raise ConnectionError(
        f"the scorer at {url} gave no answer in {retries + 1} attempts of {timeout:g} s ({why}): start the server, or "
        "set the reward's url to where it listens, or its timeout higher"
    )


def _checked(url: str, answer: bytes, expected: int) -> list[float]:
    """Returns the scores of an answer, checked against the protocol above."""
    said, remedy = answer[:SHOWN].decode(errors="replace"), 'it must answer {"scores": [a number for each image]}'
    try:
        scores = json.loads(answer)["scores"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"the scorer at {url} answered {said!r}: {remedy}") from None
    if not isinstance(scores, list) or not all(type(score) in (int, float) for score in scores):
        raise ValueError(f"the scorer at {url} answered {said!r}: {remedy}")
    if len(scores) != expected:
        raise ValueError(f"the scorer at {url} gave {len(scores)} scores for {expected} images: {remedy}")
    if not np.isfinite(scores).all():
        raise ValueError(f"the scorer at {url} gave a score that is not finite, {scores}: {remedy}")
    return scores
