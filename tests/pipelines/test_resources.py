"""The resource arithmetic of searches whose trials have several workers."""

from __future__ import annotations

import pytest

from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.resources import plan_search


def cluster(num_cpus: float, num_gpus: float = 0.0) -> Cluster:
    return Cluster(num_cpus, num_gpus, 1, 1e9, None)


@pytest.mark.parametrize(
    ("num_cpus", "num_gpus", "num_workers", "streams", "expected"),
    [
        # Trials at a time, CPUs and GPUs of a worker, threads.
        (2, 0, 2, False, (1, 1.0, 0.0, 1)),
        (2, 0, 2, True, (1, 0.5, 0.0, 1)),
        (5, 0, 2, False, (2, 1.0, 0.0, 1)),
        (5, 0, 2, True, (2, 1.0, 0.0, 1)),
        (4, 0, 2, True, (1, 1.0, 0.0, 2)),
        (2, 0, 4, False, (1, 0.5, 0.0, 1)),
        (16, 8, 2, False, (4, 0.0, 1.0, 2)),
        (16, 8, 3, False, (2, 0.0, 1.0, 2)),
        (2, 8, 2, True, (2, 0.0, 1.0, 1)),
    ],
)
def test_trials_of_several_workers_fit_beside_each_other(
    num_cpus: float, num_gpus: float, num_workers: int, streams: bool, expected: tuple[int, float, float, int]
) -> None:
    plan = plan_search(cluster(num_cpus, num_gpus), max_concurrent=0, streams=streams, num_workers=num_workers)
    assert plan.num_workers == num_workers
    found = (plan.num_concurrent, plan.cpus_per_worker, plan.gpus_per_worker, plan.threads_per_worker)
    assert found == expected
    used = plan.num_concurrent * plan.num_workers
    assert used * plan.cpus_per_worker + (1.0 if streams and not num_gpus else 0.0) <= num_cpus
    assert used * plan.gpus_per_worker <= num_gpus


def test_fewer_trials_at_a_time_are_taken_as_asked_for_and_shown() -> None:
    plan = plan_search(cluster(8), max_concurrent=1, streams=False, num_workers=2)
    assert (plan.num_concurrent, plan.threads_per_worker) == (1, 4)
    plan = plan_search(cluster(8), max_concurrent=3, streams=False, num_workers=2)
    first, second = plan.lines(cluster(8))
    assert first == "workers: 3 trials at a time x 2 x (1 CPU, 0 GPU, 1 threads) = 6 CPU, 0 GPU"
    assert second.endswith("2 CPU left for Ray Data")


def test_a_trial_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    line = "^4 workers x 1 GPU = 4 GPU, and the cluster has 2; use --workers-per-trial 2 or a larger cluster"
    with pytest.raises(ValueError, match=line):
        plan_search(cluster(16, 2), max_concurrent=0, streams=False, num_workers=4)
    line = "^100 workers and 1 CPU for Ray Data do not fit 2 CPUs .*; use fewer --workers-per-trial"
    with pytest.raises(ValueError, match=line):
        plan_search(cluster(2), max_concurrent=0, streams=True, num_workers=100)
