"""A scorer behind a URL: what is sent, answers in batches, servers that are late, absent, busy, or answer wrongly."""

import base64
import io
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rl_jax.generative.rewards import jpegs, reward
from rl_jax.generative.vlm import remote_scores

Image = pytest.importorskip("PIL.Image")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
PROMPTS = [f"animal {i}" for i in range(5)]


class Server(ThreadingHTTPServer):
    """Answers request after request with what `answers` gives of it: (status, body)."""

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = list(answers), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        status, body = answer(request) if callable(answer) else answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *args):
        del args


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve():
    servers = []

    def start(*answers):
        servers.append(Server(*answers))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def numbers(request):
    """An animal's number is its score."""
    return 200, {"scores": [int(prompt.split()[1]) for prompt in request["prompts"]]}


def ask(url, **options):
    files = jpegs(IMAGES, 80)
    options = {"batch_size": 2, "timeout": 5, "retries": 0, "backoff": 0.01, **options}
    return remote_scores(url, files, PROMPTS, **options)


def test_batches_are_sent_as_jpegs_of_quality_80_and_scored_in_order(serve):
    server = serve(numbers)
    found = reward("vlm", url=server.url, batch_size=2)(IMAGES, PROMPTS)
    assert found.dtype == np.float32 and found.tolist() == [0, 1, 2, 3, 4]
    assert [request["prompts"] for request in server.requests] == [PROMPTS[:2], PROMPTS[2:4], PROMPTS[4:]]
    sent = base64.b64decode(server.requests[1]["images"][0])
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[2]).save(buffer, "JPEG", quality=80)
    assert sent == buffer.getvalue()


def test_grey_images_and_none(serve):
    server = serve(numbers)
    score = reward("vlm", url=server.url)
    assert score(IMAGES[..., 0], PROMPTS).tolist() == [0, 1, 2, 3, 4]
    assert score(IMAGES[:0], []).tolist() == [] and len(server.requests) == 1


def test_a_busy_server_is_asked_again(serve):
    server = serve((503, b"loading the model"), (429, b""), numbers)
    assert ask(server.url, retries=2).tolist() == [0, 1, 2, 3, 4]
    assert server.requests[0] == server.requests[1] == server.requests[2]


@pytest.mark.parametrize(
    "answer, message",
    [
        ((200, b"<html>hello"), "answered '<html>hello': it must answer"),
        ((200, {"score": [1, 2]}), "answered .*must answer"),
        ((200, [1, 2]), "must answer"),
        ((200, {"scores": 1}), "must answer"),
        ((200, {"scores": ["high", "low"]}), "must answer"),
        ((200, {"scores": [True, False]}), "must answer"),
        ((200, {"scores": [1, 2, 3]}), "gave 3 scores for 2 images"),
        ((200, b'{"scores": [1, NaN]}'), "not finite"),
        ((200, b'{"scores": [1, Infinity]}'), "not finite"),
        ((404, b"no such page"), "refused a request with status 404: no such page"),
        ((200, b"\xff\xfe"), "must answer"),
    ],
)
def test_wrong_answers_end_at_once_and_name_the_url(serve, answer, message):
    server = serve(answer)
    with pytest.raises(ValueError, match=message) as error:
        ask(server.url, retries=3)
    assert server.url in str(error.value) and len(server.requests) == 1


def test_a_server_that_is_absent_late_or_hangs_up(serve):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f":{port} gave no answer in 3 attempts.*refused.*start the server"):
        ask(f"http://127.0.0.1:{port}", retries=2)

    def late(request):
        time.sleep(0.3)
        return numbers(request)

    server = serve(late)
    with pytest.raises(ConnectionError, match="2 attempts of 0.05 s .*timed out.*timeout higher"):
        ask(server.url, timeout=0.05, retries=1)
    assert len(server.requests) == 2
    with pytest.raises(ConnectionError, match="status 500: broken"):
        ask(serve((500, b"broken")).url, retries=1)


def test_wrong_options_and_inputs():
    for url in ("127.0.0.1:8085", "ftp://a", ""):
        with pytest.raises(ValueError, match="give where the scorer listens"):
            reward("vlm", url=url)
    with pytest.raises(ValueError, match="timeout is 0 "):
        reward("vlm", url="http://a", timeout=0)
    with pytest.raises(ValueError, match="retries -1"):
        reward("vlm", url="http://a", retries=-1)
    score = reward("vlm", url="http://127.0.0.1:1")
    with pytest.raises(ValueError, match="5 images and 4 prompts"):
        score(IMAGES, PROMPTS[:4])
    with pytest.raises(ValueError, match="5 images and 'a cat'"):
        score(IMAGES, "a cat")
    with pytest.raises(ValueError, match="give uint8"):
        score(IMAGES / 255.0, PROMPTS)
