"""A real MLflow server on loopback for tests, its runs in a file of SQLite."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

import psutil

from tests.object_store import free_ports

START_S = 300.0
NEEDED = ("mlflow", "flask", "sqlalchemy", "alembic")


def missing_packages() -> list[str]:
    """What the server needs and this environment has not."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


class LocalMlflow:
    """The server at `url` while the block runs; `kill` and `start` do to it what a machine's crash and return do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_ports()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)),
            *("--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", "--workers", "1"),
            *("--artifacts-destination", str(self._folder / "artifacts")),
        ]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
            )
        tick = threading.Event()
        for _ in range(int(START_S * 5)):
            assert self._process.poll() is None, (self._folder / "log").read_text()
            if self._answers():
                return
            tick.wait(0.2)
        raise AssertionError((self._folder / "log").read_text())

    def kill(self) -> None:
        """End it at once."""
        below = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(below)

    def __enter__(self) -> LocalMlflow:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
