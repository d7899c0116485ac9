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

from rl_jax.generative import vlm
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
        if 300 <= status < 400:
            self.send_header("Location", self.server.url)
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
        ((200, b'{"scores": [1, -1e39]}'), "not finite in float32"),
        ((200, b'{"scores": [1, 1' + b"0" * 400 + b"]}"), "not finite in float32"),
        ((200, b"[" * 100_000), "must answer"),
        ((302, b"over there"), "refused a request with status 302: over there"),
        ((201, b"made"), "refused a request with status 201: made"),
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


@pytest.fixture
def answer_slowly():
    """Starts a server that sends bytes, and then spaces until nobody listens or, with `hang_up`, nothing."""
    sockets = []

    def start(answer, hang_up=False):
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve():
            connection, _ = listening.accept()
            with connection:
                request = b""
                while not request.endswith(b"}"):  # of the JSON; what is left unread would make the end a reset
                    request += connection.recv(1 << 20)
                connection.sendall(answer)
                end = time.monotonic() + 5.0
                while not hang_up and time.monotonic() < end:
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return
                    time.sleep(0.02)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for listening in sockets:
        listening.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 404 No\r\n\r\n"]
)
def test_an_answer_that_comes_byte_by_byte_is_late(answer_slowly, answer):
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match="in 1 attempts of 0.2 s .*timed out"):
        ask(answer_slowly(answer), timeout=0.2)
    assert time.monotonic() - begin < 2.0


def test_half_an_answer_is_none_and_a_long_one_ends_at_once(serve, answer_slowly, monkeypatch):
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"scores": [1, 2]}'
    with pytest.raises(ConnectionError, match="IncompleteRead"):
        ask(answer_slowly(half, hang_up=True))
    monkeypatch.setattr(vlm, "MAX_ANSWER", 1000)
    with pytest.raises(ValueError, match="answered more than 1000 bytes"):
        ask(serve((200, b" " * 2000)).url)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8085", "ftp://a", "", "file:///etc/hostname", "data:,x", "http://", "http://a:b", "http://[::1",
        "http://a b",
    ],
)
def test_a_url_that_is_none(url):
    for make in (lambda: reward("vlm", url=url), lambda: ask(url)):
        with pytest.raises(ValueError, match="give where the scorer listens"):
            make()


def test_wrong_options_and_inputs():
    for name, value, message in (
        ("timeout", 0, "timeout is 0 "), ("timeout", float("nan"), "timeout is nan"), ("timeout", 1e30, "is 1e\\+30"),
        ("retries", -1, "retries -1"), ("batch_size", 0, "batch_size is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            reward("vlm", url="http://a", **{name: value})
        with pytest.raises(ValueError, match=message):
            ask("http://a", **{name: value})
    score = reward("vlm", url="http://127.0.0.1:1")
    with pytest.raises(ValueError, match="5 images and 4 prompts"):
        score(IMAGES, PROMPTS[:4])
    with pytest.raises(ValueError, match="5 images and 'a cat'"):
        score(IMAGES, "a cat")
    with pytest.raises(ValueError, match="give uint8"):
        score(IMAGES / 255.0, PROMPTS)
