"""One search at a time on a cluster: Ray Tune is not made for several."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import ray

from mlim_ray.pipelines.cluster import LOCAL

_NAME, _NAMESPACE = "search", "mlim_ray"
_WAIT_S = 15.0
_ASK_EVERY_S = 0.5


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Mark:
    """Stands on the cluster, under a name that only one can have, as long as the driver that made it lives."""

    def __init__(self, about: str) -> None:
        self._about = about

    def about(self) -> str:
        return self._about


@contextlib.contextmanager
def only_search(folder: str, address: str) -> Iterator[None]:
    """Own the cluster's one place for a search; a Ray of our own has it anyway.

    Raises:
        ValueError: another search has it. What a driver left that was killed a moment ago is waited for.
    """
    if address == LOCAL:
        yield
        return
    mark = _claim(f"{folder} (process {os.getpid()} on {socket.gethostname()})", address)
    try:
        yield
    finally:
        ray.kill(mark)


def _claim(about: str, address: str) -> "ray.actor.ActorHandle":
    give_up_at = time.monotonic() + _WAIT_S
    while True:
        try:
            return _Mark.options(name=_NAME, namespace=_NAMESPACE).remote(about)  # type: ignore[attr-defined]
        except ValueError:
            # The name is taken.
            other = _holder()
        if time.monotonic() > give_up_at:
            raise ValueError(
                f"--address {address}: the Ray there runs another search already, {other}, and can run one at a time; "
                "wait for its end, or use a Ray of its own with --address local"
            )
        time.sleep(_ASK_EVERY_S)


def _holder() -> str:
    """What has the place, as far as it can be told."""
    try:
        mark = ray.get_actor(_NAME, namespace=_NAMESPACE)
        return str(ray.get(mark.about.remote(), timeout=_WAIT_S))
    except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return "which is about to end"
