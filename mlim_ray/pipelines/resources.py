"""The resource arithmetic of a run or a search, checked before anything starts."""

from dataclasses import dataclass

from mlim_ray.pipelines.cluster import Cluster

DATA_CPUS = 1.0
"""CPUs that Ray Data needs beside all streaming workers: without one, a run waits for ever without a word."""
_MIN_CPUS_PER_WORKER = 0.05


@dataclass(frozen=True)
class WorkerPlan:
    """What each worker gets."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    threads_per_worker: int
    num_concurrent: int = 1
    """trials that run at a time; 1 for a pre-training run"""

    def lines(self, cluster: Cluster) -> list[str]:
        """The arithmetic in words."""
        workers = self.num_workers * self.num_concurrent
        used = workers * self.cpus_per_worker
        of_trials = f"{self.num_concurrent} trials at a time x " if self.num_concurrent > 1 else ""
        return [
            f"workers: {of_trials}{self.num_workers} x ({self.cpus_per_worker:g} CPU, {self.gpus_per_worker:g} GPU, "
            f"{self.threads_per_worker} threads) = {used:g} CPU, {workers * self.gpus_per_worker:g} GPU",
            f"cluster: {cluster.num_cpus:g} CPU, {cluster.num_gpus:g} GPU on {cluster.num_nodes} node(s); "
            f"{cluster.num_cpus - used:g} CPU left for Ray Data",
        ]


def plan_run(cluster: Cluster, num_workers: int, *, streams: bool) -> WorkerPlan:
    """Resources of a pre-training run's workers.

    Raises:
        ValueError: the cluster has not enough, with the arithmetic.
    """
    threads = max(1, int(cluster.num_cpus // num_workers))
    reserved = DATA_CPUS if streams else 0.0
    if cluster.num_gpus >= 1:
        if num_workers > cluster.num_gpus:
            raise ValueError(
                f"{num_workers} workers x 1 GPU = {num_workers} GPU, and the cluster has {cluster.num_gpus:g}; "
                f"use --workers {int(cluster.num_gpus)} or a larger cluster"
            )
        if cluster.num_cpus < reserved:
            raise ValueError(f"streaming needs {reserved:g} CPU for Ray Data and the cluster has none; add a CPU node")
        return WorkerPlan(num_workers, 0.0, 1.0, threads)
    cpus = min(1.0, int((cluster.num_cpus - reserved) / num_workers * 100) / 100)
    if cpus < _MIN_CPUS_PER_WORKER:
        raise ValueError(
            f"{num_workers} workers and {reserved:g} CPU for Ray Data do not fit {cluster.num_cpus:g} CPUs "
            f"({cpus:g} CPU a worker, at least {_MIN_CPUS_PER_WORKER:g} needed); use fewer --workers"
        )
    return WorkerPlan(num_workers, cpus, 0.0, threads)


def plan_search(cluster: Cluster, *, max_concurrent: int, streams: bool) -> WorkerPlan:
    """Resources of a search's trials of one worker each.

    Raises:
        ValueError: the cluster has not enough, with the arithmetic.
    """
    if cluster.num_gpus >= 1:
        fitting = int(cluster.num_gpus)
    else:
        fitting = int(cluster.num_cpus - (DATA_CPUS if streams else 0.0))
    if fitting < 1:
        raise ValueError(
            f"a trial needs 1 CPU{' and Ray Data another' if streams else ''}, and the cluster has "
            f"{cluster.num_cpus:g}; use a larger machine"
        )
    concurrent = min(fitting, max_concurrent) if max_concurrent else fitting
    if streams and cluster.num_gpus >= 1:
        concurrent = max(1, min(concurrent, int(cluster.num_cpus // DATA_CPUS)))
    threads = max(1, int(cluster.num_cpus // concurrent))
    gpus = 1.0 if cluster.num_gpus >= 1 else 0.0
    return WorkerPlan(1, 0.0 if gpus else 1.0, gpus, threads, concurrent)
