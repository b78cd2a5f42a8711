"""The server of `mlim-ray demo`: one page and one question at a time, on this machine alone."""

import base64
import binascii
import json
import logging
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import Field, ValidationError

from mlim_ray.config.base import Section
from mlim_ray.config.wording import plain_problem
from mlim_ray.inference.answer import Question, Respondent
from mlim_ray.reporting.demo_page import answer_json, render_demo_page

HOST = "127.0.0.1"
MAX_PICTURE_BYTES = 20_000_000
"""of a picture's file; larger ones are refused before they are read"""
_MAX_BODY_BYTES = MAX_PICTURE_BYTES * 4 // 3 + 100_000
_MAX_TEXT_CHARACTERS = 10_000
_PATIENCE_S = 30.0
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

logger = logging.getLogger(__name__)


class Asked(Section):
    """What the page sends."""

    text: str = Field("", max_length=_MAX_TEXT_CHARACTERS)
    picture: str | None = None
    """the file in base64"""
    hidden: float = Field(0.8, ge=0.0, le=1.0)
    """share of the picture's cells to hide"""
    seed: int = Field(0, ge=0, lt=2**32)
    """of the choice of these cells"""


class DemoServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1 until it is shut down.

    Args:
        respondent: that is asked, one question after the other.
        run: name of the run.
        facts: what its model is, in a sentence.
        port: where to listen; 0: any that is free.
    """

    daemon_threads = True

    def __init__(self, respondent: Respondent, run: str, facts: str, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.respondent = respondent
        self.page = render_demo_page(run, facts, MAX_PICTURE_BYTES).encode()
        self.asking = threading.Lock()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    @property
    def names(self) -> set[str]:
        """What a browser may call this server. A page elsewhere whose name was led here calls it by that name."""
        return {f"{host}:{self.server_address[1]}" for host in (HOST, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that left is no error; anything else is a bug of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            logger.exception("a request was not answered")

    def answer(self, asked: Asked) -> dict[str, Any]:
        """The answer to what was asked. Raises ValueError where it cannot be."""
        picture = None
        if asked.picture is not None:
            try:
                picture = base64.b64decode(asked.picture, validate=True)
            except binascii.Error as error:
                raise ValueError(f"picture: given something else than base64 ({error}); send the file so") from error
            if len(picture) > MAX_PICTURE_BYTES:
                raise ValueError(f"the picture has {len(picture):,} bytes; at most {MAX_PICTURE_BYTES:,} are taken")
        question = Question(asked.text, picture, asked.hidden, asked.seed)
        with self.asking:
            return answer_json(self.respondent.answer(question))


class _Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, line: str) -> None:
        super().__init__(line)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version = "mlim_ray"
    sys_version = ""
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        try:
            self._check_names()
            if self.path.partition("?")[0] != "/":
                raise _Refused(HTTPStatus.NOT_FOUND, "there is one page, /")
        except _Refused as refused:
            self._refuse(refused)
        else:
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        try:
            self._check_names()
            if self.path != "/ask":
                raise _Refused(HTTPStatus.NOT_FOUND, "questions are sent to /ask")
            found = self.server.answer(self._read())
        except _Refused as refused:
            self._refuse(refused)
        except TimeoutError:
            self._refuse(_Refused(HTTPStatus.REQUEST_TIMEOUT, f"nothing came for {_PATIENCE_S:.0f} s"))
        except ValueError as error:
            self._refuse(_Refused(HTTPStatus.BAD_REQUEST, " ".join(str(error).split())))
        except Exception:
            logger.exception("a question was not answered")
            self._refuse(_Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed; the console says more"))
        else:
            self._send(HTTPStatus.OK, json.dumps(found, allow_nan=False).encode(), "application/json")

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)

    def _check_names(self) -> None:
        """Refuse what another page, or a name that was led to this machine, asks."""
        names = self.server.names
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in names or origin not in (None, *(f"http://{name}" for name in names)):
            raise _Refused(HTTPStatus.FORBIDDEN, f"only {self.server.url} is answered")

    def _read(self) -> Asked:
        kind = self.headers.get_content_type()
        if kind != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"given {kind}, expected application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is expected")
        if len(length) > 15 or int(length) > _MAX_BODY_BYTES:
            line = f"the question has {length[:15]} bytes; a picture may have {MAX_PICTURE_BYTES:,}"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line)
        try:
            return Asked.model_validate_json(self.rfile.read(int(length)))
        except ValidationError as error:
            raise ValueError(": ".join(filter(None, plain_problem(error)))) from error

    def _refuse(self, refused: _Refused) -> None:
        # What is left of the body is not read.
        self.close_connection = True
        self._send(refused.status, json.dumps({"error": str(refused)}).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
