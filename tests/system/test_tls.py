"""TLS between nodes as docs/tls.md sets it up: what they send cannot be read, and only certificates let a node in."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.hosts import ROOT, Host, Site

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

HEAD, WORKER, STRANGER = "10.77.3.1", "10.77.3.2", "10.77.3.3"
SECRET = "a-title-that-nobody-else-may-read"
PAGE = (ROOT / "docs" / "tls.md").read_text()
ADDRESS = "10.0.0.5"
"""of the page's node"""
SEND = f"""
import ray
ray.init(address="auto", log_to_driver=False)

@ray.remote(num_cpus=1)
def titles():
    return "{SECRET} " * 100_000

found = ray.get(titles.remote())
print("came:", len(found), "from", ray.get_runtime_context().gcs_address)
"""
COUNT = """
import ray
ray.init(address="auto", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
"""
KNOCK = f"""
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
if sys.argv[1:]:
    context.load_cert_chain(sys.argv[1] + "/node.crt", sys.argv[1] + "/node.key")
try:
    with context.wrap_socket(socket.create_connection(("{HEAD}", 6379), 30)) as door:
        door.settimeout(30)
        door.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        print("answered" if door.recv(9) else "refused")
except (ssl.SSLError, ConnectionError):
    print("refused")
"""
"""the beginning of HTTP/2, to which a server that lets one in answers with its settings"""
START = ["ray", "start", "--object-store-memory=100000000"]


@dataclass
class Pair:
    """A head without CPUs, and a worker."""

    head: Host
    worker: Host
    environment: Mapping[str, str]

    def start(self) -> None:
        """Ray on both."""
        at_head = ["--head", f"--node-ip-address={HEAD}", "--port=6379", "--num-cpus=0", "--include-dashboard=false"]
        self.head.run(*START, *at_head, environment=self.environment, timeout_s=240)
        joined = self.join(self.worker, WORKER)
        assert joined.returncode == 0, joined.stdout

    def join(
        self, host: Host, address: str, environment: Mapping[str, str] | None = None, *before: str
    ) -> subprocess.CompletedProcess[str]:
        """A node of that host, with the worker's settings if no others are given."""
        command = [*before, *START, f"--address={HEAD}:6379", f"--node-ip-address={address}", "--num-cpus=1"]
        return host.attempt(*command, environment=environment or self.environment, timeout_s=240)

    def num_nodes(self) -> int:
        """Nodes that the head knows and that live."""
        return int(self.head.run("python", "-c", COUNT, environment=self.environment).split()[-1])

    def stop(self) -> None:
        for host in (self.head, self.worker):
            host.run("ray", "stop", "--force", environment=self.environment)


@pytest.fixture(scope="module")
def pair(site: Site) -> Pair:
    """Two hosts with a token and certificates."""
    head, worker = site.add_host("head", HEAD), site.add_host("worker", WORKER)
    for host in (head, worker):
        host.put("~/.ray/auth_token", "0" * 64)
    certify(site.folder / "ca", (head, HEAD), (worker, WORKER))
    return Pair(head, worker, {"RAY_AUTH_MODE": "token", **variables()})


def variables() -> dict[str, str]:
    """The environment that the page asks for."""
    found = dict(re.findall(r"^export (RAY_\w+)=(\S+)$", PAGE, re.MULTILINE))
    assert "RAY_USE_TLS" in found, "docs/tls.md names no environment"
    return {name: value.replace("~", "/home/ubuntu") for name, value in found.items()}


def certify(folder: Path, *hosts: tuple[Host, str]) -> None:
    """Certificates by the page's own commands, on the machine where the authority's key is, and then on the hosts."""
    folder.mkdir()
    authority, node = re.findall(r"^openssl .*$", PAGE, re.MULTILINE)
    subprocess.run(shlex.split(authority), cwd=folder, check=True, capture_output=True)
    for host, address in hosts:
        subprocess.run(shlex.split(node.replace(ADDRESS, address)), cwd=folder, check=True, capture_output=True)
        for name in ("ca.crt", "node.crt", "node.key"):
            host.put(f"~/mlim_tls/{name}", (folder / name).read_bytes())


def packets_with_the_secret(site: Site, pair: Pair) -> int:
    """How many packets between the hosts held what a task of the worker gave to a driver on the head."""
    command = site.entering(sys.executable, "-m", "tests.system.wire", SECRET)
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as wire:
        assert wire.stdout is not None and wire.stdout.readline() == "listening\n"
        said = pair.head.run("python", "-c", SEND, environment=pair.environment)
        assert f"came: {100_000 * (len(SECRET) + 1)} " in said
        answer, _ = wire.communicate("")
    held, seen = map(int, answer.split())
    assert seen > 50, "no packets were seen: the test is blind"
    return held


def knocks(host: Host, folder: str | None) -> str:
    """What the head answers to a host that shows the certificate in `folder`, or none."""
    return host.run("python", "-c", KNOCK, *([folder] if folder else []))


def test_what_nodes_send_cannot_be_read_and_strangers_stay_outside(site: Site, pair: Pair) -> None:
    pair.start()
    assert packets_with_the_secret(site, pair) == 0
    stranger = site.add_host("stranger", STRANGER)
    stranger.put("~/.ray/auth_token", "0" * 64)
    certify(site.folder / "other_ca", (stranger, STRANGER))
    assert "answered" in knocks(pair.worker, "/home/ubuntu/mlim_tls")
    for folder in (None, "/home/ubuntu/mlim_tls"):
        assert "refused" in knocks(stranger, folder)
    # Ray itself goes on asking until it is ended, with the right token and the wrong certificate or none.
    for environment in ({"RAY_AUTH_MODE": "token"}, pair.environment):
        assert pair.join(stranger, STRANGER, environment, "timeout", "30").returncode != 0
    assert pair.num_nodes() == 2
    pair.stop()


def test_without_it_all_of_it_can_be_read(site: Site, pair: Pair) -> None:
    """What the test above looks for is there to be found."""
    plain = Pair(pair.head, pair.worker, {"RAY_AUTH_MODE": "token"})
    plain.start()
    assert packets_with_the_secret(site, plain) > 0
    plain.stop()
