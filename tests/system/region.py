"""A region of AWS without AWS: moto answers EC2's and IAM's API, and a host boots for each instance that was asked for.

A host has what a machine of an account has: its addresses and the public half of its key pair. For Ray's image stands
the Python of these tests, and for what a role gives the files that boto3 reads. moto weighs no right of a role, and no
security group stands between the hosts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

from tests.system.conftest import Storage
from tests.system.hosts import ROOT, SITE_ADDRESS, VENV, Host, Site, wait_until

NAME = "us-west-2"
IMAGE = "ami-12c6146b"
_PORT = "19400"
_LOOK_EVERY_S = 1.0
_UP, _GONE = ("pending", "running"), ("shutting-down", "terminated")

Instance = dict[str, Any]


class Region:
    """As a context manager: the API answers, and hosts come and go with the instances.

    Args:
        site: where the hosts are.
        storage: what S3's part of the region is.
        operator: the host that the key pairs lie on.
    """

    def __init__(self, site: Site, storage: Storage, operator: Host) -> None:
        self.endpoint = f"http://{SITE_ADDRESS}:{_PORT}"
        self.errors: list[str] = []
        self.seen: list[tuple[Instance, list[dict[str, Any]]]] = []
        """every instance that ran with its disks, as they were then: one that is gone has none, and no role"""
        self._site, self._storage, self._operator = site, storage, operator
        self._hosts: dict[str, Host] = {}
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_hosts, name="region", daemon=True)

    def __enter__(self) -> Region:
        log = self._site.folder / "region.log"
        self._site.popen(sys.executable, "-m", "moto.server", "-H", SITE_ADDRESS, "-p", _PORT, log=log)
        wait_until(lambda: "Running on" in log.read_text(), 120, f"moto ({log})")
        self._asking = subprocess.Popen(
            self._site.entering(sys.executable, "-m", "tests.system.ask_ec2", self.endpoint, NAME),
            cwd=ROOT,
            env=os.environ | self._storage.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.equip(self._operator)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._asking.kill()
        self._asking.wait()

    def ask(self, service: str, call: str, **arguments: Any) -> Any:
        """What the API answers to a call, by boto3's names."""
        assert self._asking.stdin is not None and self._asking.stdout is not None
        with self._lock:
            self._asking.stdin.write(json.dumps([service, call, arguments]) + "\n")
            self._asking.stdin.flush()
            return json.loads(self._asking.stdout.readline())

    def instances(self, node_type: str | None = None, *, up: bool = True) -> list[Instance]:
        """Those that are up or on their way, or all that there ever were; of one type of the cluster's file, or all."""
        reservations = self.ask("ec2", "describe_instances")["Reservations"]
        return [
            instance
            for reservation in reservations
            for instance in reservation["Instances"]
            if (not up or instance["State"]["Name"] in _UP) and node_type in (None, type_of(instance))
        ]

    def host_of(self, instance: Instance) -> Host:
        """The host that stands for an instance that is up."""
        name = instance["InstanceId"]
        wait_until(lambda: name in self._hosts or bool(self.errors), 120, f"a host for {name}")
        assert not self.errors, self.errors
        return self._hosts[name]

    @property
    def hosts(self) -> list[Host]:
        return list(self._hosts.values())

    def equip(self, host: Host) -> None:
        """Tell boto3 there which services are where, and the keys that a role would give it."""
        services = "".join(f"{name} =\n  endpoint_url = {self.endpoint}\n" for name in ("ec2", "iam", "sts"))
        # The region that Swift signs for; Ray names EC2's in every call.
        config = f"[default]\nregion = us-east-1\nendpoint_url = {self._storage.endpoint}\nservices = region\n"
        host.put("~/.aws/config", f"{config}[services region]\n{services}")
        keys = f"aws_access_key_id = {self._storage.access_key}\naws_secret_access_key = {self._storage.secret_key}\n"
        host.put("~/.aws/credentials", f"[default]\n{keys}")

    def _keep_hosts(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            try:
                for instance in self.instances(up=False):
                    self._follow(instance)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                raise

    def _follow(self, instance: Instance) -> None:
        name, state = instance["InstanceId"], instance["State"]["Name"]
        if state == "running" and name not in self._hosts:
            host = self._site.add_host(name, instance["PrivateIpAddress"], instance["PublicIpAddress"])
            self.equip(host)
            public = self._operator.run("bash", "-c", f"ssh-keygen -y -f ~/.ssh/{instance['KeyName']}.pem")
            host.put("~/.ssh/authorized_keys", public)
            host.put("~/.bash_profile", f"export PATH={VENV}/bin:$PATH RAY_AUTH_MODE=token\n")
            of_it = [{"Name": "attachment.instance-id", "Values": [name]}]
            self.seen.append((instance, self.ask("ec2", "describe_volumes", Filters=of_it)["Volumes"]))
            self._hosts[name] = host
        elif state in _GONE and name in self._hosts:
            host = self._hosts.pop(name)
            if host.is_up:
                host.kill()


def tags_of(instance: Instance) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}


def type_of(instance: Instance) -> str | None:
    """The type of the cluster's file that it was started for."""
    return tags_of(instance).get("ray-user-node-type")
