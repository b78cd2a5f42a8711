"""The arithmetic of a search's trials, of one worker or of several: how many run at a time on what the cluster has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.measure import gpu_options
from mlim_ray.pipelines.resources import plan_search

CLUSTER = Cluster(num_cpus=16, num_gpus=2, num_nodes=1, object_store_bytes=1e9, dashboard_url=None)
WITHOUT_GPU = replace(CLUSTER, num_cpus=4, num_gpus=0)


@pytest.mark.parametrize(
    ("gpus_per_trial", "num_concurrent"),
    [(1.0, 2), (0.6, 2), (0.5, 4), (0.4, 4), (1 / 3, 6), (0.3333, 6), (0.3, 6), (0.25, 8), (0.1, 20), (0.01, 200)],
)
def test_trials_share_a_gpu_as_often_as_their_share_goes_into_it(gpus_per_trial: float, num_concurrent: int) -> None:
    plan = plan_search(CLUSTER, max_concurrent=0, streams=False, gpus_per_trial=gpus_per_trial)
    assert plan.num_concurrent == num_concurrent
    assert plan.cpus_per_worker == 0.0 and plan.gpus_per_worker == pytest.approx(gpus_per_trial, abs=1e-4)
    # Ray takes no finer share.
    assert plan.gpus_per_worker * 10_000 == pytest.approx(round(plan.gpus_per_worker * 10_000), abs=1e-9)
    assert plan.threads_per_worker == max(1, 16 // num_concurrent)
    assert plan.gpus_per_worker * plan.num_concurrent <= CLUSTER.num_gpus


def test_fewer_at_a_time_have_more_threads_each() -> None:
    plan = plan_search(CLUSTER, max_concurrent=3, streams=False, gpus_per_trial=0.25)
    assert (plan.num_concurrent, plan.threads_per_worker) == (3, 5)


def test_streaming_trials_on_a_gpu_are_as_many_as_ray_data_can_feed() -> None:
    plan = plan_search(replace(CLUSTER, num_cpus=6), max_concurrent=0, streams=True, gpus_per_trial=0.25)
    assert (plan.num_concurrent, plan.threads_per_worker) == (6, 1)


def test_without_a_gpu_a_trial_takes_a_cpu() -> None:
    plan = plan_search(WITHOUT_GPU, max_concurrent=0, streams=False, gpus_per_trial=0.25)
    assert (plan.num_concurrent, plan.cpus_per_worker, plan.gpus_per_worker) == (4, 1.0, 0.0)
    assert plan_search(WITHOUT_GPU, max_concurrent=0, streams=True).num_concurrent == 3
    assert gpu_options(plan.gpus_per_worker) == {}


def test_a_cluster_without_room_for_a_trial_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ValueError, match="1 CPU and Ray Data another, and the cluster has 1"):
        plan_search(replace(WITHOUT_GPU, num_cpus=1), max_concurrent=0, streams=True)


def test_the_plan_says_who_shares_what() -> None:
    plan = plan_search(CLUSTER, max_concurrent=0, streams=False, gpus_per_trial=0.25)
    assert plan.lines(CLUSTER)[0] == (
        "workers: 8 trials at a time x 1 x (0 CPU, 0.25 GPU, 2 threads), 4 share a GPU = 0 CPU, 2 GPU"
    )
    alone = plan_search(CLUSTER, max_concurrent=0, streams=False)
    assert "share a GPU" not in alone.lines(CLUSTER)[0]
    assert gpu_options(plan.gpus_per_worker) == {"num_gpus": 0.25}


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
