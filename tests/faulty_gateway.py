"""A gateway before a real S3 server that lets chosen requests go wrong, and remembers all of them."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self

Fault = Literal["503", "500", "reset", "cut", "garbled", "flipped", "lost", "403", "404"]
"""an answer of S3's own kind; no answer; half an answer; what is sent, or answered, changed on its way; an answer that
is lost"""


@dataclass(frozen=True)
class Request:
    """One request that came by, and what was done to it."""

    method: str
    path: str
    headers: dict[str, str]
    fault: Fault | None


@dataclass
class FaultyGateway:
    """Answers on a free port of the loopback interface, while the block runs, for the server on `port`.

    `choose` gets method and path of each request, one request at a time.
    """

    port: int
    choose: Callable[[str, str], Fault | None] = lambda method, path: None
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def faults(self) -> list[Fault]:
        """The faults that were met, in order."""
        return [request.fault for request in self.requests if request.fault is not None]

    def note(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        """Remember a request and decide what happens to it."""
        with self._lock:
            fault = self.choose(method, path)
            self.requests.append(Request(method, path, headers, fault))
        return fault


def _handler(gateway: FaultyGateway) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Header and body are two writes: the second must not wait for the first one's acknowledgement.
        disable_nagle_algorithm = True

        def _forward(self) -> None:
            headers = dict(self.headers.items())
            # Answered already, by the base class.
            headers.pop("Expect", None)
            fault = gateway.note(self.command, self.path, headers)
            body = self.rfile.read(int(headers.get("Content-Length", 0)))
            if fault == "garbled" and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            if fault == "reset":
                self.close_connection = True
                return
            if fault in {"503", "500", "403", "404"}:
                self._refuse(int(fault))
                return
            server = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
            server.request(self.command, self.path, body or None, headers)
            answer = server.getresponse()
            content = answer.read()
            server.close()
            if fault == "flipped" and content:
                middle = len(content) // 2
                content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            if fault == "lost":
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            length = answer.headers["Content-Length"] if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if fault == "cut":
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            else:
                self.wfile.write(content)

        def _refuse(self, status: int) -> None:
            code = {503: "SlowDown", 500: "InternalError", 403: "AccessDenied", 404: "NoSuchUpload"}[status]
            content = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: `requests` has them."""

    return Handler
