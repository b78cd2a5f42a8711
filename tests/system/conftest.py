"""Hosts on a network, a storage beside them, and what a person has at home to start a cluster with."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.object_store import free_ports, install
from tests.system.hosts import ROOT, SITE_ADDRESS, Host, Site, wait_until, why_not

REQUIRED = "REQUIRE_SYSTEM_TESTS"
NUM_RECORDS = 400


@dataclass(frozen=True)
class Storage:
    """A bucket that every host reaches, and what opens it."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    source: str
    """of raw records"""
    site: Site

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def python(self, *arguments: str) -> str:
        """What a Python of the tests says that sees the storage."""
        done = subprocess.run(
            self.site.entering(sys.executable, *arguments),
            cwd=ROOT,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def cannot(reason: str) -> None:
    """Skip with the reason, or fail with it where a skip would hide that nothing was tried."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, and the system tests cannot run here: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An empty network; its hosts end with the module's tests."""
    reason = why_not()
    if reason is not None:
        cannot(reason)
    with Site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def storage(site: Site, pytestconfig: pytest.Config) -> Storage:
    """Swift on the site's own address, with real records in it, or generated ones where the real are not here."""
    cache = pytestconfig.cache
    assert cache is not None
    try:
        python = install(cache.mkdir("swift"))
    except subprocess.CalledProcessError as error:
        cannot(f"Swift cannot be installed: {error.stderr.decode()[-200:]}")
    port, access_key, secret_key = free_ports(), "acct:cluster", secrets.token_hex(16)
    log = site.folder / "storage.log"
    arguments = [str(site.folder / "swift"), str(python), str(port), access_key, secret_key]
    site.popen(sys.executable, "-m", "tests.system.storage", *arguments, log=log)
    wait_until(lambda: "ready" in log.read_text(), 60, f"the storage ({log})")
    real = ROOT.parent / "shared" / "data" / "fashion"
    raw = "s3://cluster/mlim/raw"
    source = raw if real.is_dir() else f"generated:{NUM_RECORDS}"
    made = Storage(f"http://{SITE_ADDRESS}:{port}", access_key, secret_key, "cluster", source, site)
    made.python("-m", "tests.system.raw_records", str(real), made.bucket, raw, str(NUM_RECORDS))
    return made


@pytest.fixture(scope="module")
def laptop(site: Site) -> Host:
    """Where clusters are started from: a clean clone of the project, a token, and a key that opens the hosts."""
    host = site.add_host("laptop", "10.77.1.1")
    clone = site.folder / "clone"
    command = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        cannot(f"the project cannot be cloned: {error.stderr.decode().strip()}")
    packed = subprocess.run(["tar", "-C", str(clone), "-c", "."], check=True, capture_output=True).stdout
    host.put("~/clone.tar", packed)
    host.run("bash", "-c", "mkdir project && tar -C project -xf clone.tar && rm clone.tar")
    host.run("bash", "-c", "umask 077; ray get-auth-token --generate > /dev/null; chmod 600 ~/.ray/auth_token")
    host.put("~/.ssh/mlim_onprem", (site.folder / "operator").read_text())
    return host
