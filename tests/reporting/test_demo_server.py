"""The server of the demo, asked over HTTP: it answers its own page, is bounded, and says in a line what is wrong."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mlim_ray.inference.answer import Question
from mlim_ray.reporting.demo_page import answer_json
from mlim_ray.reporting.demo_server import MAX_PICTURE_BYTES, DemoServer
from tests.data.pictures import encoded, noise
from tests.reporting.demo_servers import demo_of

JSON = {"Content-Type": "application/json"}
PICTURE = encoded(noise(40, 30))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    with demo_of(tmp_path_factory.mktemp("run"), "<runs>/pretrain-001") as made:
        yield made


def ask(
    server: DemoServer,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request(method, path, body, dict(headers or {}))
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    is_json = reply.headers["Content-Type"] == "application/json"
    return reply.status, json.loads(content) if is_json else content.decode(), reply.headers


def question(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_the_page_asks_nobody_else(server: DemoServer) -> None:
    status, page, headers = ask(server, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "&lt;runs&gt;/pretrain-001" in page and "<runs>" not in page
    assert "http://" not in page and "https://" not in page


def test_an_answer_is_that_of_the_model(server: DemoServer) -> None:
    body = question(text="red [MASK] bowl", picture=base64.b64encode(PICTURE).decode(), hidden=0.5, seed=3)
    status, found, _ = ask(server, "POST", "/ask", body, JSON)
    assert status == 200
    assert found == answer_json(server.respondent.answer(Question("red [MASK] bowl", PICTURE, 0.5, 3)))
    assert len(found["neighbours"]["items"]) == 8
    assert {one["uri"].partition(";")[0] for one in found["pictures"]["items"]} == {"data:image/png"}


def test_questions_at_one_time_are_all_answered(server: DemoServer) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda text=f"red bowl {i}": statuses.append(
                ask(server, "POST", "/ask", question(text=text), JSON)[0]
            )
        )
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 6


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "object"),
        (question(), "neither a picture nor a title is given"),
        (question(text="red", colour=1), "colour"),
        (question(text="red", hidden=2.0), "hidden"),
        (question(text="red", seed=-1), "seed"),
        (question(text="x" * 20_000), "text"),
        (b'{"text": "\\ud800"}', ""),
        (question(picture="?"), "base64"),
        (question(picture=""), "the picture cannot be used: missing_picture"),
        (question(picture=base64.b64encode(b"GIF89a").decode()), "the picture cannot be used"),
        (question(picture=base64.b64encode(encoded(noise(5_100, 5_000), "JPEG")).decode()), "too_many_pixels"),
    ],
)
def test_what_cannot_be_answered_is_one_plain_line(server: DemoServer, body: bytes, line: str) -> None:
    status, found, _ = ask(server, "POST", "/ask", body, JSON)
    assert status == 400 and set(found) == {"error"}
    assert line in found["error"] and "\n" not in found["error"] and "Traceback" not in found["error"]
    assert ask(server, "POST", "/ask", question(text="red"), JSON)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/etc/passwd", {}, 404),
        ("GET", "/../../etc/passwd", {}, 404),
        ("POST", "/", JSON, 404),
        ("POST", "/ask", {"Content-Type": "text/plain"}, 415),
        ("POST", "/ask", {**JSON, "Content-Length": "-1"}, 411),
        ("POST", "/ask", {**JSON, "Content-Length": "1e3"}, 411),
        ("POST", "/ask", {**JSON, "Content-Length": str(2 * MAX_PICTURE_BYTES)}, 413),
        ("POST", "/ask", {**JSON, "Content-Length": "9" * 4_000}, 413),
        ("POST", "/ask", {**JSON, "Origin": "http://elsewhere.example"}, 403),
        ("POST", "/ask", {**JSON, "Origin": "null"}, 403),
        ("POST", "/ask", {**JSON, "Host": "elsewhere.example"}, 403),
        ("GET", "/", {"Host": "elsewhere.example:80"}, 403),
        ("PUT", "/ask", JSON, 501),
    ],
)
def test_what_is_not_for_it_is_refused(
    server: DemoServer, method: str, path: str, headers: dict[str, str], expected: int
) -> None:
    body = None if method == "GET" or "Content-Length" in headers else b"{}"
    assert ask(server, method, path, body, headers)[0] == expected


def test_it_listens_on_this_machine_alone(server: DemoServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    own = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in own:
        with pytest.raises(OSError):
            socket.create_connection((address, server.server_address[1]), timeout=5).close()


def test_a_failure_of_the_model_is_told_and_ends_nothing(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(server.respondent, "gallery", "broken")
        status, found, _ = ask(server, "POST", "/ask", question(text="red"), JSON)
    assert status == 500 and found == {"error": "the model failed; the console says more"}
    assert "AttributeError" in caplog.text
    assert ask(server, "POST", "/ask", question(text="red"), JSON)[0] == 200
