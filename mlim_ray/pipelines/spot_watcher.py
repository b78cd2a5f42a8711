"""Watch for the notice that a spot machine gets before it is taken away, and drain its Ray node.

On plain AWS nothing tells Ray of the notice. Once the node is known to be draining, training saves a checkpoint before
the deadline, and nothing new is placed there.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import ray
import ray.exceptions
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

logger = logging.getLogger(__name__)

METADATA_URL = "http://169.254.169.254"
POLL_S = 5.0
"""how often AWS says to ask"""
_TOKEN_PATH = "/latest/api/token"
_NOTICE_PATH = "/latest/meta-data/spot/instance-action"
_TOKEN_LIFETIME_S = 21_600
_TIMEOUT_S = 2.0
_LEAST_DEADLINE_S = 1.0


@dataclass(frozen=True)
class Notice:
    """That the machine goes, and when."""

    action: str
    """terminate, stop or hibernate"""
    time: datetime

    @classmethod
    def parse(cls, text: str) -> Notice:
        """The service's JSON. Raises ValueError if it is something else."""
        try:
            said = json.loads(text)
            at = datetime.strptime(said["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            return cls(str(said["action"]), at)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"spot notice: given {text[:200]!r}, expected JSON with action and time") from error

    def remaining_s(self, now: datetime) -> float:
        """Seconds until then, and at least one."""
        return max(_LEAST_DEADLINE_S, (self.time - now).total_seconds())


class MetadataClient:
    """Asks the instance metadata service, version 2: with a token, which it renews.

    Args:
        url: of the service.
    """

    def __init__(self, url: str = METADATA_URL) -> None:
        self._url = url.rstrip("/")
        self._token: str | None = None
        # The link-local address is never behind a proxy, whatever the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def notice(self) -> Notice | None:
        """The notice, if there is one.

        Raises:
            OSError: the service does not answer, or not as it should.
            ValueError: the notice is not one.
        """
        try:
            return self._ask()
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            # The token expired, or the machine was started anew.
            self._token = None
            return self._ask()

    def _ask(self) -> Notice | None:
        if self._token is None:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_LIFETIME_S)}
            self._token = self._send("PUT", _TOKEN_PATH, lifetime)
        try:
            return Notice.parse(self._send("GET", _NOTICE_PATH, {"X-aws-ec2-metadata-token": self._token}))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _send(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self._url + path, headers=headers, method=method)
        with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
            return str(answer.read(4096).decode())


def watch(
    client: MetadataClient,
    drain: Callable[[Notice], object],
    *,
    poll_s: float = POLL_S,
    stop: threading.Event | None = None,
) -> Notice | None:
    """Ask until there is a notice, and drain; None if `stop` came first.

    A service that does not answer is asked again, and so is a drain that fails: until the machine goes there is nothing
    better to do.
    """
    stop = stop or threading.Event()
    problem = None
    while not stop.is_set():
        try:
            notice = client.notice()
            if notice is not None:
                drain(notice)
                return notice
            said = None
        except (OSError, ValueError, ray.exceptions.RayError) as error:
            said = f"{type(error).__name__}: {error}"
        if said is not None and said != problem:
            logger.warning("asked again every %.0f s: %s", poll_s, said)
        problem = said
        stop.wait(poll_s)
    return None


def drain_node(address: str, node_id: str | None, notice: Notice) -> str:
    """Tell the Ray at `address` that a node goes, and when; gives the node's id.

    Args:
        address: of the head, or `auto`: the Ray that was started on this machine.
        node_id: None for the node of this machine.
        notice: why and when.

    Raises:
        OSError: no Ray answers.
        ray.exceptions.RayError: it refuses.
    """
    with ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR):
        context = ray.get_runtime_context()
        drained = node_id or context.get_node_id()
        deadline_ms = int((time.time() + notice.remaining_s(datetime.now(UTC))) * 1_000)
        message = f"spot notice: {notice.action} at {notice.time:%H:%M:%S} UTC"
        # What the hidden command `ray drain-node` calls; there is no public way.
        is_accepted, why_not = ray._raylet.GcsClient(address=context.gcs_address).drain_node(
            drained, DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, message, deadline_ms
        )
    if not is_accepted:
        raise ray.exceptions.RaySystemError(f"node {drained} was not drained: {why_not}")
    return drained
