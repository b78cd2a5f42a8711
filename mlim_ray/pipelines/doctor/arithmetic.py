"""What a cluster has when all its machines are there, and whether an experiment fits it."""

from dataclasses import dataclass

from mlim_ray.pipelines.cluster import Cluster, grown
from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Diagnosis, error
from mlim_ray.pipelines.growth import Growth
from mlim_ray.pipelines.resources import plan_run, plan_search


@dataclass(frozen=True)
class Experiment:
    """What is asked of a cluster; the names are those of the experiments' own flags."""

    workers: int | None = None
    """of a pre-training run; None: a search"""
    workers_per_trial: int = 1
    gpus_per_trial: float = 1.0
    streams: bool = False

    def __str__(self) -> str:
        if self.workers is not None:
            return "a run"
        return "a search"


def largest_cluster(file: ClusterFile) -> Cluster:
    """With all machines that the file allows."""
    return grown(Cluster(0.0, 0.0, 1, 0.0, None), Growth.of(file.full))


def check_arithmetic(cluster: Cluster, experiment: Experiment, where: str) -> Diagnosis:
    """The experiment's own arithmetic, on this cluster."""
    try:
        if experiment.workers is not None:
            plan = plan_run(cluster, experiment.workers, streams=experiment.streams)
        else:
            plan = plan_search(
                cluster,
                max_concurrent=0,
                streams=experiment.streams,
                num_workers=experiment.workers_per_trial,
                gpus_per_trial=experiment.gpus_per_trial,
            )
    except ValueError as problem:
        what, _, mend = str(problem).rpartition("; ")
        return Diagnosis([error(where, f"{experiment}: {what or mend}", mend)])
    return Diagnosis(facts=[f"{experiment}: {plan.lines(cluster)[0].removeprefix('workers: ')}"])
