"""Several hosts on one machine, each with a network, processes, mounts, shared memory, /tmp and an sshd of its own.

Nothing outside is met or disturbed: `ray stop` on a host finds that host's processes. A site's first process is the
root of all others, so that everything goes with it, and it goes with the test's process.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(sys.prefix)
BOOT = Path(__file__).with_name("boot_host.sh")
PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "/usr/sbin/sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "git": "git",
    "make": "make",
}
SITE_ADDRESS = "10.77.0.1"
_OWN = ("--net", "--pid", "--mount", "--ipc", "--uts")
_START_S = 30.0


def why_not() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if os.geteuid() != 0:
        return "hosts need namespaces, mounts and sshd, that is root: run as root, for instance sudo make test-cluster"
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        return f"not installed: {', '.join(missing)}; apt-get install $(cat tests/system-packages.txt)"
    done = subprocess.run(["unshare", *_OWN, "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    if done.returncode != 0:
        return f"no namespaces or mounts here, although this is root: {done.stderr.decode().strip()}"
    return None


def wait_until(due: Callable[[], bool], budget_s: float, what: str) -> None:
    """Until `due`. Raises TimeoutError that names `what` after the budget."""
    tick = threading.Event()
    for _ in range(int(budget_s * 10)):
        if due():
            return
        tick.wait(0.1)
    raise TimeoutError(f"{what}: not within {budget_s:.0f} s")


def _first_process(below: subprocess.Popen[bytes], level: int) -> int | None:
    """The process that is number 1 in its PID namespace, `level` namespaces below this one."""
    try:
        family = psutil.Process(below.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return None
    for process in family:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            continue
        numbers = next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
        if len(numbers) == level + len(_own_numbers()) and numbers[-1] == "1":
            return process.pid
    return None


def _own_numbers() -> list[str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith("NSpid:"))


@dataclass
class Site:
    """The network that hosts hang on, and what keeps them together; `folder` is for keys and mount points."""

    folder: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    pid: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Site:
        self.folder.mkdir(parents=True, exist_ok=True)
        # It ends with this process, however that ends, and everything else ends with it.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *_OWN, "--fork", "--kill-child=KILL", "--mount-proc"]
        process = subprocess.Popen([*command, "sleep", "infinity"], start_new_session=True)
        self._process = process
        wait_until(lambda: _first_process(process, 1) is not None, _START_S, "the site's first process")
        self.pid = _first_process(process, 1) or 0
        for line in (
            "link set lo up",
            "link add br0 type bridge",
            f"address add {SITE_ADDRESS}/16 dev br0",
            "link set br0 up",
            "route add default dev br0",
        ):
            self.run("ip", *line.split())
        for name in ("host_key", "operator"):
            key = self.folder / name
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)]
            subprocess.run(command, check=True)
        shutil.copy(self.folder / "operator.pub", self.folder / "authorized_keys")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        # The kernel ends all processes of a PID namespace with its first.
        psutil.Process(self.pid).kill()
        self._process.wait()
        for host in self.hosts.values():
            host.process.wait()

    def run(self, *command: str) -> None:
        """Run a command in the site's network, on none of its hosts."""
        subprocess.run(self.entering(*command), check=True, capture_output=True)

    def entering(self, *command: str) -> list[str]:
        """`command` as this process has to start it for it to run in the site's network."""
        return ["nsenter", "--target", str(self.pid), "--net", *command]

    def popen(self, *command: str, log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a service in the site's network; it ends with the site."""
        inside = ["nsenter", "--target", str(self.pid), "--net", "--pid", *command]
        with log.open("ab") as output:
            return subprocess.Popen(
                inside,
                cwd=ROOT,
                env=os.environ | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def add_host(self, name: str, *addresses: str) -> Host:
        """A running host that answers at `addresses`, all on one network card."""
        folder = self.folder / f"{name}-{secrets.token_hex(3)}"
        folder.mkdir()
        boot = ["bash", str(BOOT), str(folder), name, str(ROOT), str(VENV), str(self.folder)]
        inside = ["nsenter", "--target", str(self.pid), "--net", "--pid", "unshare", *_OWN, "--fork"]
        log = (self.folder / f"{folder.name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [*inside, "--kill-child=KILL", *boot], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline() != b"booted\n":
            raise RuntimeError(f"host {name} did not boot: {(self.folder / f'{folder.name}.log').read_text()}")
        host = Host(name, addresses, process, _first_process(process, 2) or 0, folder / "root")
        card = f"v{secrets.token_hex(5)}"
        subprocess.run(
            self.entering("ip", "link", "add", card, "type", "veth", "peer", "eth0", "netns", str(host.pid)), check=True
        )
        self.run("ip", "link", "set", card, "master", "br0", "up")
        for address in addresses:
            host.run("ip", "address", "add", f"{address}/32", "dev", "eth0", user="root")
        host.run("ip", "link", "set", "eth0", "up", user="root")
        host.run("ip", "route", "add", "default", "dev", "eth0", "src", addresses[0], user="root")
        process.stdin.write(b"go\n")
        process.stdin.close()
        self.hosts[name] = host
        return host


@dataclass
class Host:
    """One of them: what runs there, and what is done to it."""

    name: str
    addresses: tuple[str, ...]
    process: subprocess.Popen[bytes]
    pid: int
    """of its first process, as seen from here"""
    root: Path

    def entering(self, *command: str, user: str = "ubuntu", environment: Mapping[str, str] | None = None) -> list[str]:
        """`command` as this process has to start it for it to run on the host, with an environment of a fresh login."""
        home = "/root" if user == "root" else f"/home/{user}"
        path = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = {"HOME": home, "USER": user, "PATH": path, "LANG": "C.UTF-8"} | dict(environment or {})
        inside = ["nsenter", "--target", str(self.pid), "--all", "--root", "env", "-i", f"--chdir={home}"]
        inside += [f"{name}={value}" for name, value in variables.items()]
        if user != "root":
            inside += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*inside, *command]

    def run(
        self,
        *command: str,
        user: str = "ubuntu",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> str:
        """What a command says on both outputs. Raises RuntimeError with it if the command fails."""
        done = self.attempt(*command, user=user, environment=environment, timeout_s=timeout_s)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def attempt(
        self,
        *command: str,
        user: str = "ubuntu",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """The same, whatever its exit code."""
        return subprocess.run(
            self.entering(*command, user=user, environment=environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )

    def start(
        self, *command: str, user: str = "ubuntu", environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command that goes on; it ends with the host."""
        return subprocess.Popen(
            self.entering(*command, user=user, environment=environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def put(self, path: str, content: str | bytes, *, user: str = "ubuntu", mode: str = "600") -> None:
        """Write a file there, its folder included; `path` may begin with `~/`."""
        script = 'f="${1/#\\~/$HOME}"; umask 077; mkdir -p "$(dirname "$f")"; cat > "$f"; chmod "$2" "$f"'
        data = content.encode() if isinstance(content, str) else content
        command = self.entering("bash", "-c", script, "bash", path, mode, user=user)
        subprocess.run(command, input=data, check=True)

    def feed(self, text: str, *command: str, user: str = "ubuntu") -> str:
        """What a command says that reads `text`, whatever its exit code."""
        done = subprocess.run(
            self.entering(*command, user=user), input=text, stdout=subprocess.PIPE, text=True, timeout=120
        )
        return done.stdout

    def processes(self, title: str = "") -> list[psutil.Process]:
        """What runs there, by the start of the command line or title."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def signal(self, title: str, number: int) -> None:
        """Send one to all that runs there under this title."""
        for process in self.processes(title):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """Power off: everything on it ends at once."""
        psutil.Process(self.pid).kill()
        self.process.wait()

    @property
    def is_up(self) -> bool:
        return self.process.poll() is None
