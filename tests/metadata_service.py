"""The metadata service of an EC2 machine as programs see it, version 2 only: `python -m tests.metadata_service FOLDER`.

A token is asked for with PUT and wanted with every GET. What it tells lies in FOLDER, a file for each path; a path
without a file is answered with 404, as the notice of a spot machine is until there is one.
"""

from __future__ import annotations

import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN_PATH = "/latest/api/token"
METADATA = "/latest/meta-data/"
LIFETIME = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"
_MOST_LIFETIME_S = 21_600


class MetadataService(ThreadingHTTPServer):
    """Serves `folder`; `asked` counts what was asked of it, by path and answer."""

    daemon_threads = True

    def __init__(self, folder: Path, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, _Handler)
        self.folder = folder
        self.expiry: dict[str, float] = {}
        """of each token, by the monotonic clock"""
        self.asked: list[tuple[str, str, int]] = []

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def forget_tokens(self) -> None:
        """As if all of them had expired."""
        self.expiry.clear()


class _Handler(BaseHTTPRequestHandler):
    server: MetadataService

    def do_PUT(self) -> None:
        lifetime = self.headers.get(LIFETIME, "")
        if self.path != TOKEN_PATH:
            self._answer(403)
        elif not (lifetime.isdigit() and 1 <= int(lifetime) <= _MOST_LIFETIME_S):
            self._answer(400)
        else:
            token = secrets.token_urlsafe(40)
            self.server.expiry[token] = time.monotonic() + int(lifetime)
            self._answer(200, token)

    def do_GET(self) -> None:
        token = self.headers.get(TOKEN)
        # Version 1, a question without a token, is switched off as on all of our machines.
        if token is None or self.server.expiry.get(token, 0.0) < time.monotonic():
            self._answer(401)
            return
        name = self.path.removeprefix(METADATA)
        file = self.server.folder / name.strip("/").replace("/", "_")
        if self.path.startswith(METADATA) and name and file.is_file():
            self._answer(200, file.read_text())
        else:
            self._answer(404)

    def _answer(self, status: int, text: str = "") -> None:
        self.server.asked.append((self.command, self.path, status))
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen."""


def main(folder: str) -> None:
    MetadataService(Path(folder), ("169.254.169.254", 80)).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
