"""A real S3 server on loopback for tests: OpenStack Swift with its S3 interface, one process a service."""

import contextlib
import fcntl
import getpass
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

SWIFT = "swift==2.38.3"
SERVICES = ("account", "container", "object", "proxy")
START_S = 30.0
_POLL_S = 0.05

_NO_RESERVE = "disable_fallocate = true\n"
_PLAIN_FILTERS = (
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "listing_formats",
    "copy",
    "slo",
    "dlo",
    "symlink",
)
_FILTERS = {
    # Listings come in small pages, so that every one of more than a few keys takes several.
    "s3api": "location = us-east-1\nmax_upload_part_num = 10000\nmax_bucket_listing = 25",
    "versioned_writes": "allow_object_versioning = true",
    **dict.fromkeys(_PLAIN_FILTERS, ""),
}
_PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats s3api tempauth "
    "copy slo dlo versioned_writes symlink proxy-server"
)


@dataclass
class ObjectStore:
    """Swift under `folder`, answering S3 on `port` of `host` while the block runs; all else stays on loopback."""

    folder: Path
    python: Path
    port: int
    access_key: str
    secret_key: str
    host: str = "127.0.0.1"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> "ObjectStore":
        self._configure()
        for service in SERVICES:
            self.start(service)
        self._wait_for_answers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, service: str) -> None:
        """Start one of SERVICES."""
        with open(self.folder / f"{service}.log", "ab") as log:
            self.processes[service] = subprocess.Popen(
                [self.python.parent / f"swift-{service}-server", self.folder / f"{service}-server.conf"],
                stdout=log,
                stderr=log,
            )

    def kill(self, service: str) -> None:
        """End one of SERVICES at once, as a crash of its machine would."""
        self.processes[service].kill()
        self.processes[service].wait()

    @contextmanager
    def suspended(self, service: str) -> Iterator[None]:
        """One of SERVICES accepts connections and does nothing until the block ends."""
        self.processes[service].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.processes[service].send_signal(signal.SIGCONT)

    @contextmanager
    def full(self) -> Iterator[None]:
        """The disk takes nothing more until the block ends; what is on it can be read."""
        path = self.folder / "object-server.conf"
        before = path.read_text()
        path.write_text(before.replace(_NO_RESERVE, "disable_fallocate = false\nfallocate_reserve = 100%\n"))
        self.restart("object")
        try:
            yield
        finally:
            path.write_text(before)
            self.restart("object")

    def revive(self, service: str) -> None:
        """Start one of SERVICES that was killed; it answers when this returns."""
        self.start(service)
        self._wait_for_answers()

    def restart(self, service: str) -> None:
        """End one of SERVICES and start it again; it answers when this returns."""
        self.kill(service)
        self.revive(service)

    def stop(self) -> None:
        """End the servers that this object started."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_for_answers(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > deadline:
                self.stop()
                raise TimeoutError(f"Swift did not answer within {START_S:.0f} s; its logs lie in {self.folder}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.processes["proxy"].wait(_POLL_S)
                raise RuntimeError(f"Swift ended while it started; its logs lie in {self.folder}")

    def _answers(self) -> bool:
        ports = range(self.port, self.port + len(SERVICES))
        for port in ports:
            with socket.socket() as probe:
                if probe.connect_ex((self.host if port == self.port else "127.0.0.1", port)) != 0:
                    return False
        return True

    def _configure(self) -> None:
        self.folder.mkdir(mode=0o700)
        (self.folder / "node" / "disk").mkdir(parents=True)
        suffix = secrets.token_hex(16)
        policy = "[storage-policy:0]\nname = only\ndefault = yes\n"
        self._write("swift.conf", f"[swift-hash]\nswift_hash_path_suffix = {suffix}\n{policy}")
        for offset, service in enumerate(("account", "container", "object"), 1):
            ring = self.folder / f"{service}.builder"
            for step in (
                ["create", "6", "1", "0"],
                ["add", f"r1z1-127.0.0.1:{self.port + offset}/disk", "1"],
                ["rebalance"],
            ):
                command = [self.python.parent / "swift-ring-builder", ring, *step]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            # Listings are up to date as soon as a write returns.
            extra = "container_update_timeout = 20\n" if service == "object" else ""
            app = f"[app:{service}-server]\nuse = egg:swift#{service}\n"
            defaults = self._defaults(self.port + offset, f"{service}-server", extra)
            self._write(f"{service}-server.conf", defaults + app)
        account, user = self.access_key.split(":")
        filters = _FILTERS | {"tempauth": f"user_{account}_{user} = {self.secret_key} .admin"}
        proxy = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        # A server that is back is asked at once.
        proxy += "error_suppression_interval = 1\n"
        proxy += "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n{lines}\n" for name, lines in filters.items())
        self._write("proxy-server.conf", self._defaults(self.port, _PIPELINE, host=self.host) + proxy)

    def _defaults(self, port: int, pipeline: str, extra: str = "", host: str = "127.0.0.1") -> str:
        return (
            f"[DEFAULT]\nbind_ip = {host}\nbind_port = {port}\nuser = {getpass.getuser()}\n"
            f"swift_dir = {self.folder}\ndevices = {self.folder / 'node'}\nmount_check = false\n"
            f"{_NO_RESERVE}workers = 0\nlog_address = /nonexistent\nlog_level = WARNING\n"
            f"{extra}[pipeline:main]\npipeline = {pipeline}\n"
        )

    def _write(self, name: str, content: str) -> None:
        (self.folder / name).write_text(content)


def install(folder: Path) -> Path:
    """Python of a virtual environment with Swift, made in `folder` if it is not there.

    Raises subprocess.CalledProcessError if it cannot be installed.
    """
    python = folder / "bin" / "python"
    with open(folder.parent / f"{folder.name}.lock", "w") as lock:
        # Two test files may ask at a time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bin" / "swift-proxy-server").exists():
            venv.create(folder, with_pip=True, clear=True)
            command = [python, "-m", "pip", "install", "--quiet", SWIFT]
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    return python


def free_ports() -> int:
    """The first of as many free loopback ports in a row as there are services."""
    for start in range(20_000 + os.getpid() % 1_000 * 8, 60_000, 8):
        try:
            for port in range(start, start + len(SERVICES)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return start
    raise OSError(f"no {len(SERVICES)} free ports in a row on {sys.platform}")
