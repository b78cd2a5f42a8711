"""The resource arithmetic of a run or a search, checked before anything starts."""

import time
from dataclasses import dataclass, replace

import ray

from mlim_ray.pipelines.autoscaler import wait_for_nodes
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.growth import Growth

DATA_CPUS = 1.0
"""CPUs that Ray Data needs beside all streaming workers: without one, a run waits for ever without a word."""
_MIN_CPUS_PER_WORKER = 0.05
_ELASTIC_CPUS = 1.01
"""Ray fills each node with as many whole workers as fit; a bit more than one CPU each leaves room for one feed task"""
_RAY_PLACES = 4
"""Ray counts in ten-thousandths of a GPU, so that 0.3333 is a third"""
_WAIT_FOR_RESOURCES_S = 30.0
_ASK_EVERY_S = 0.5


@dataclass(frozen=True)
class WorkerPlan:
    """What each worker gets."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    threads_per_worker: int
    num_concurrent: int = 1
    """trials that run at a time; 1 for a pre-training run"""
    min_workers: int | None = None
    """of an elastic run, whose `num_workers` are the most that it takes"""
    growth: Growth | None = None
    """of a cluster whose autoscaler starts nodes for them"""

    @property
    def workers_for_ray(self) -> int | tuple[int, int]:
        """The number, or the range, as Ray Train wants it."""
        return self.num_workers if self.min_workers is None else (self.min_workers, self.num_workers)

    def lines(self, cluster: Cluster) -> list[str]:
        """The arithmetic in words."""
        workers = self.num_workers * self.num_concurrent
        used = workers * self.cpus_per_worker
        of_trials = f"{self.num_concurrent} trials at a time x " if self.num_concurrent > 1 else ""
        at_least = f"{self.min_workers} to " if self.min_workers is not None else ""
        sharing = f", {trials_a_gpu(self.gpus_per_worker)} share a GPU" if 0.0 < self.gpus_per_worker <= 0.5 else ""
        return [
            f"workers: {of_trials}{at_least}{self.num_workers} x ({self.cpus_per_worker:g} CPU, "
            f"{self.gpus_per_worker:g} GPU, {self.threads_per_worker} threads){sharing} = "
            f"{used:g} CPU, {workers * self.gpus_per_worker:g} GPU",
            f"cluster: {cluster.size}; {cluster.num_cpus - used:g} CPU left for Ray Data",
        ]


def plan_run(cluster: Cluster, num_workers: int, *, streams: bool, min_workers: int | None = None) -> WorkerPlan:
    """Resources of a pre-training run's workers.

    Args:
        min_workers: an elastic run starts with as many, and takes up to `num_workers` as the cluster has them.

    Raises:
        ValueError: the cluster has not enough, with the arithmetic.
    """
    has_gpu = cluster.num_gpus >= 1
    threads = _threads(cluster, num_workers, 1.0 if has_gpu else 0.0)
    reserved = DATA_CPUS if streams else 0.0
    needed = num_workers if min_workers is None else min_workers
    if has_gpu:
        if needed > cluster.num_gpus:
            raise ValueError(
                f"{needed} workers x 1 GPU = {needed} GPU, and the cluster {cluster.has} {cluster.num_gpus:g}; "
                f"use --workers {int(cluster.num_gpus)} or a larger cluster"
            )
        if cluster.num_cpus < reserved:
            raise ValueError(f"streaming needs {reserved:g} CPU for Ray Data and the cluster has none; add a CPU node")
        return WorkerPlan(num_workers, 0.0, 1.0, threads, min_workers=min_workers, growth=cluster.growth)
    if min_workers is not None or cluster.growth is not None:
        # Ray counts whole workers on each node.
        if needed + reserved > cluster.num_cpus:
            raise ValueError(
                f"{needed} workers x 1 CPU + {reserved:g} CPU for Ray Data = {needed + reserved:g} CPU, and the "
                f"cluster {cluster.has} {cluster.num_cpus:g}; use fewer --workers, or --feed resident, which "
                f"needs none for Ray Data"
            )
        cpus = _ELASTIC_CPUS if streams and min_workers is not None else 1.0
        return WorkerPlan(num_workers, cpus, 0.0, threads, min_workers=min_workers, growth=cluster.growth)
    cpus = min(1.0, int((cluster.num_cpus - reserved) / num_workers * 100) / 100)
    if cpus < _MIN_CPUS_PER_WORKER:
        raise ValueError(
            f"{num_workers} workers and {reserved:g} CPU for Ray Data do not fit {cluster.num_cpus:g} CPUs "
            f"({cpus:g} CPU a worker, at least {_MIN_CPUS_PER_WORKER:g} needed); use fewer --workers"
        )
    return WorkerPlan(num_workers, cpus, 0.0, threads)


def wait_for_resources(plan: WorkerPlan, *, streams: bool = False, wait_s: float = _WAIT_FOR_RESOURCES_S) -> None:
    """Return once the workers' CPUs and GPUs are free; other programs may be using the cluster.

    An autoscaler is asked for them, those of one trial and of Ray Data; further trials ask for theirs as they come.

    Args:
        plan: what they need.
        streams: whether records are streamed.
        wait_s: how long, where there is no autoscaler.

    Raises:
        ValueError: they are not free in that time, with the arithmetic. Ray itself would wait for ever.
    """
    workers = plan.num_workers if plan.min_workers is None else plan.min_workers
    if plan.growth is not None:
        bundles = [{"CPU": plan.cpus_per_worker, "GPU": plan.gpus_per_worker}] * workers
        wait_for_nodes([*bundles, *([{"CPU": DATA_CPUS}] if streams else [])], plan.growth)
        return
    needed = {"CPU": workers * plan.cpus_per_worker, "GPU": workers * plan.gpus_per_worker}
    give_up_at = time.monotonic() + wait_s
    while True:
        free = {name: float(ray.available_resources().get(name, 0.0)) for name in needed}
        missing = [name for name in needed if free[name] < needed[name] - 1e-6]
        if not missing:
            return
        if time.monotonic() > give_up_at:
            total = {name: float(ray.cluster_resources().get(name, 0.0)) for name in missing}
            raise ValueError(
                "; ".join(
                    f"{workers} workers need {needed[name]:g} {name}, and {free[name]:g} of the cluster's "
                    f"{total[name]:g} are free after {wait_s:.0f} s"
                    for name in missing
                )
                + "; end what else runs there, use fewer --workers, or a larger cluster"
            )
        time.sleep(_ASK_EVERY_S)


def plan_search(
    cluster: Cluster, *, max_concurrent: int, streams: bool, num_workers: int = 1, gpus_per_trial: float = 1.0
) -> WorkerPlan:
    """Resources of a search's trials.

    Args:
        cluster: where they run.
        max_concurrent: most trials at a time; 0: as many as fit.
        streams: whether records are streamed.
        num_workers: of each trial.
        gpus_per_trial: share of a GPU that a trial of one worker takes; without GPUs it takes a CPU.

    Raises:
        ValueError: the cluster has not enough, with the arithmetic.
    """
    if num_workers > 1:
        return _plan_groups(cluster, num_workers, max_concurrent, streams)
    has_gpu = cluster.num_gpus >= 1
    if has_gpu:
        # A share lies on one GPU as a whole, so what is left of each is lost.
        fitting = int(cluster.num_gpus) * trials_a_gpu(gpus_per_trial)
    else:
        fitting = int(cluster.num_cpus - (DATA_CPUS if streams else 0.0))
    if fitting < 1:
        raise ValueError(
            f"a trial needs 1 CPU{' and Ray Data another' if streams else ''}, and the cluster {cluster.has} "
            f"{cluster.num_cpus:g}; use a larger machine"
        )
    concurrent = min(fitting, max_concurrent) if max_concurrent else fitting
    if streams and has_gpu:
        concurrent = max(1, min(concurrent, int(cluster.num_cpus // DATA_CPUS)))
    gpus = round(gpus_per_trial, _RAY_PLACES) if has_gpu else 0.0
    threads = _threads(cluster, concurrent, gpus)
    return WorkerPlan(1, 0.0 if has_gpu else 1.0, gpus, threads, concurrent, growth=cluster.growth)


def trials_a_gpu(gpus_per_trial: float) -> int:
    """How many trials share a GPU."""
    units = 10**_RAY_PLACES
    return units // round(gpus_per_trial * units)


def _plan_groups(cluster: Cluster, num_workers: int, max_concurrent: int, streams: bool) -> WorkerPlan:
    """Trials of several workers each, on whole GPUs, or on whole CPUs but where a single trial has to share them."""
    try:
        alone = plan_run(cluster, num_workers, streams=streams)
    except ValueError as error:
        raise ValueError(str(error).replace("--workers", "--workers-per-trial")) from error
    if alone.gpus_per_worker:
        fitting = int(cluster.num_gpus // num_workers)
        if streams:
            fitting = min(fitting, int(cluster.num_cpus // DATA_CPUS))
    else:
        free = cluster.num_cpus - (DATA_CPUS if streams else 0.0)
        fitting = int(free // num_workers)
    concurrent = max(1, min(fitting, max_concurrent) if max_concurrent else fitting)
    threads = _threads(cluster, num_workers * concurrent, alone.gpus_per_worker)
    return replace(alone, threads_per_worker=threads, num_concurrent=concurrent)


def _threads(cluster: Cluster, num_workers: int, gpus_per_worker: float) -> int:
    """Of each worker, where as many run at a time."""
    if cluster.growth is not None:
        return cluster.growth.threads(num_workers, gpus_per_worker)
    return max(1, int(cluster.num_cpus // num_workers))
