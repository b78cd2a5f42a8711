"""`cluster/onprem.yaml` for real: SSH to three hosts, a search sent there, a host lost and another one come."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.system.closed_doors import check_closed_doors, secrets_shown
from tests.system.conftest import Storage
from tests.system.hosts import VENV, Host, Site, wait_until
from tests.system.transcript import Transcript

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

HEAD = "10.77.2.1"
WORKERS = {"worker-1": "10.77.2.2", "worker-2": "10.77.2.3", "worker-3": "10.77.2.4"}
LATE = "worker-3"
"""listed from the start, and switched on when another one is lost"""
PROJECT = "/home/ubuntu/mlim_project"
NUM_TRIALS = 10
SEARCH = [
    *("--max-samples", "1200", "--train.batch-size", "8", "--trials", str(NUM_TRIALS), "--confirm", "false"),
    *("--search.max-concurrent-trials", "3", "--probe.num-records", "16", "--probe.linear-train-records", "50"),
    *("--no-dashboard", "--json"),
]


@dataclass
class OnPrem:
    """The cluster, and the laptop that it is started from."""

    site: Site
    laptop: Host
    storage: Storage
    transcript: Transcript
    hosts: dict[str, Host] = field(default_factory=dict)

    def switch_on(self, name: str, address: str) -> None:
        """A host with Python's packages where `make setup` looks for them, as no index can be reached."""
        host = self.site.add_host(name, address)
        script = f"install -d -o ubuntu -g ubuntu {PROJECT} {PROJECT}/.venv && mount --bind {VENV} {PROJECT}/.venv"
        host.run("bash", "-c", script, user="root")
        self.hosts[name] = host

    def type(self, command: str) -> str:
        """What a command says that is typed in the clone of the project, with the cluster's settings."""
        said = self.laptop.run("bash", "-c", typing(command), timeout_s=300.0)
        self.transcript.typed(command, said)
        return said

    def num_nodes(self) -> int:
        """Nodes that run Ray, the head included."""
        head = self.hosts["head"]
        script = "import ray; ray.init(address='auto', log_to_driver=False); "
        script += "print('nodes', sum(node['Alive'] for node in ray.nodes()))"
        said = head.attempt("python", "-c", script, environment={"RAY_AUTH_MODE": "token"}).stdout
        found = re.search(r"^nodes (\d+)$", said, re.MULTILINE)
        return int(found.group(1)) if found else 0


def typing(command: str) -> str:
    """A line for the laptop's shell."""
    settings = "AWS_CONFIG_FILE=~/.mlim_storage/config AWS_SHARED_CREDENTIALS_FILE=~/.mlim_storage/credentials"
    return f"cd ~/project && export RAY_AUTH_MODE=token PYTHONPATH=. {settings} && exec {command}"


@pytest.fixture(scope="module")
def cluster(site: Site, laptop: Host, storage: Storage, pytestconfig: pytest.Config) -> Iterator[OnPrem]:
    """Up, with two of its three workers there."""
    assert pytestconfig.cache is not None
    made = OnPrem(site, laptop, storage, Transcript(pytestconfig.cache.mkdir("transcripts") / "onprem.txt"))
    made.switch_on("head", HEAD)
    for name, address in WORKERS.items():
        if name != LATE:
            made.switch_on(name, address)
    region = "[default]\nregion = us-east-1\n"
    laptop.put("~/.mlim_storage/config", f"{region}endpoint_url = {storage.endpoint}\n")
    keys = f"aws_access_key_id = {storage.access_key}\naws_secret_access_key = {storage.secret_key}\n"
    laptop.put("~/.mlim_storage/credentials", f"[default]\n{keys}")
    text = laptop.run("cat", "project/cluster/onprem.yaml")
    text = re.sub(r"(head: &head ).*", rf"\g<1>{HEAD}", text)
    text = re.sub(r"(workers: &workers ).*", rf"\g<1>{json.dumps(list(WORKERS.values()))}", text)
    text = re.sub(r"(user: &user ).*", r"\g<1>ubuntu", text)
    text = re.sub(r"(storage: s3://)\w+", rf"\g<1>{storage.bucket}", text)
    assert "REPLACE_ME" not in text
    laptop.put("~/project/cluster/onprem.yaml", text, mode="644")
    assert "nothing wrong was found" in made.type("mlim-ray doctor cluster/onprem.yaml")
    made.type("ray up --yes --no-config-cache cluster/onprem.yaml")
    wait_until(lambda: made.num_nodes() == 3, 180, "Ray on three hosts")
    yield made


def test_an_unauthenticated_client_is_refused(cluster: OnPrem) -> None:
    check_closed_doors(cluster.hosts["head"], HEAD, cluster.laptop)


def test_a_search_outlives_a_host_and_takes_another_in(cluster: OnPrem) -> None:
    laptop, storage = cluster.laptop, cluster.storage
    forward = laptop.start("bash", "-c", typing("ray dashboard cluster/onprem.yaml"))
    answers = ["curl", "--silent", "--output", "/dev/null", "http://127.0.0.1:8265/api/version"]
    wait_until(lambda: laptop.attempt(*answers).returncode == 0, 60, "the dashboard through SSH")
    out = f"s3://{storage.bucket}/mlim/runs/first"
    search = f"python experiments/tune_mam.py --data {storage.source} --out {out} {' '.join(SEARCH)}"
    line = f"ray job submit --address http://127.0.0.1:8265 --working-dir . -- {search}"
    job = laptop.start("bash", "-c", typing(line))

    def has_trial(name: str) -> bool:
        return bool(cluster.hosts[name].processes("ray::trial-"))

    def is_due(name: str) -> bool:
        return has_trial(name) or job.poll() is not None

    def taken_in() -> bool:
        # The trials of the host that is left stand still, or a quick one would end the search by itself.
        cluster.hosts["worker-2"].signal("ray::trial-", signal.SIGSTOP)
        return is_due(LATE)

    wait_until(lambda: is_due("worker-1"), 300, "a trial on worker-1")
    assert job.poll() is None, job.communicate()[0]
    cluster.hosts["worker-1"].kill()
    lost_at = time.monotonic()
    cluster.switch_on(LATE, WORKERS[LATE])
    wait_until(taken_in, 300, f"a trial on {LATE}")
    cluster.hosts["worker-2"].signal("ray::trial-", signal.SIGCONT)
    assert job.poll() is None, f"the search ended before {LATE} had a trial: {job.communicate()[0][-3000:]}"
    joined_s = time.monotonic() - lost_at
    said = job.communicate(timeout=600)[0]
    forward.kill()
    assert job.returncode == 0, said[-5000:]
    laptop.put("~/search.log", said)
    cluster.transcript.typed(line, said)
    cluster.transcript.happened(f"worker-1 was lost while it ran a trial, {LATE} was switched on at that moment")
    cluster.transcript.happened(f"{LATE} ran a trial {joined_s:.0f} s later")
    assert f"search: {NUM_TRIALS} trials" in said and "0 failed" in said
    assert "starts again from its last rung" in said, said
    table = json.loads(storage.python("-m", "tests.system.ended_search", out))
    # Nothing is lost, and nothing is there twice.
    assert [row["number"] for row in table] == list(range(NUM_TRIALS))
    assert {row["state"] for row in table} <= {"COMPLETE", "PRUNED"}
    for row in table:
        budgets = [int(samples) for samples in row["scores"]]
        assert budgets == sorted(set(budgets)) and budgets, row


def test_secrets_are_nowhere(cluster: OnPrem) -> None:
    storage = cluster.storage
    token = cluster.laptop.run("cat", ".ray/auth_token").strip()
    for host in [*cluster.hosts.values(), cluster.laptop]:
        if host.is_up:
            assert secrets_shown(host, token, storage.secret_key) == []
    pages = storage.python("-m", "tests.system.find_in_bucket", storage.bucket, token, storage.secret_key)
    assert pages == ""


def test_ray_down_stops_all(cluster: OnPrem) -> None:
    cluster.type("ray down --yes cluster/onprem.yaml")
    for host in cluster.hosts.values():
        if host.is_up:
            wait_until(lambda host=host: not ray_processes(host), 150, f"{host.name} without Ray")


def ray_processes(host: Host) -> list[str]:
    """Command lines of all that belongs to Ray there."""
    lines = [" ".join(process.cmdline()) for process in host.processes()]
    return [line for line in lines if "/ray/" in line or line.startswith("ray::") or "ray start" in line]
