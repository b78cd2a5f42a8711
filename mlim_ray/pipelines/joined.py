"""What every run does around its work: hold its folder, join Ray, and hear SIGTERM."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlim_ray.data.lease import Lease
from mlim_ray.pipelines.cluster import Cluster, connect
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.signals import stopping
from mlim_ray.reporting.progress import say
from mlim_ray.training.run_folder import RunFolder


@contextlib.contextmanager
def joined(
    request: RunRequest[Any], folder: RunFolder, stopped: Callable[[], str], job: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """The cluster that a run was asked to take place on, until the block ends; its dashboard is told.

    Args:
        request: where Ray is, or is to be started.
        folder: the run's, claimed.
        stopped: what to say of a SIGTERM.
        job: what the dashboard says of the run, by name.

    Raises:
        ValueError: another process holds the folder, or there is no Ray at the address.
    """
    # Ray takes SIGTERM over when it is joined.
    with (
        stopping(stopped),
        Lease(folder.path),
        connect(request.address, dashboard=request.dashboard, job=job) as cluster,
        stopping(stopped),
    ):
        if cluster.dashboard_url is not None:
            say(cluster.dashboard_line)
        yield cluster
