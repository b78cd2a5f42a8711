"""What a cluster may grow to, and how many threads a worker has on its nodes."""

from __future__ import annotations

import pytest

from mlim_ray.pipelines.cluster import Cluster, grown
from mlim_ray.pipelines.growth import Growth, NodeType
from mlim_ray.pipelines.resources import plan_run, plan_search
from tests.cluster.filled import PROJECT, load

HEAD = NodeType("head", 0.0, 0.0, 1)
EMPTY = Cluster(0.0, 0.0, 1, 1e9, None)


def growing(*workers: NodeType, max_workers: int = 100) -> Cluster:
    return grown(EMPTY, Growth(HEAD, workers, max_workers))


def test_the_projects_own_file_grows_to_as_many_gpus_as_its_max_workers_allow() -> None:
    config = load(PROJECT / "cluster" / "gpu.yaml")
    growth = Growth.of(config)
    assert str(growth) == "2 gpu_8 + 4 gpu_4 + 6 gpu_1"
    assert (growth.num_cpus, growth.num_gpus, growth.num_nodes) == (672.0, 38.0, 13)


def test_a_head_that_works_counts() -> None:
    growth = Growth(NodeType("head", 8.0, 1.0, 1), (NodeType("cpu", 4.0, 0.0, 2),), 5)
    assert (growth.num_cpus, growth.num_gpus, growth.num_nodes) == (16.0, 1.0, 3)
    assert str(growth) == "1 head + 2 cpu"


@pytest.mark.parametrize(
    ("num_at_a_time", "gpus_per_trial", "threads"),
    # On a node of 16 CPUs and a GPU, or of 48 and four, whichever has fewer for each of them.
    [(1, 1.0, 16), (2, 1.0, 16), (4, 1.0, 12), (8, 1.0, 12), (8, 0.5, 6)],
)
def test_threads_are_those_of_a_node(num_at_a_time: int, gpus_per_trial: float, threads: int) -> None:
    cluster = growing(NodeType("gpu_1", 16.0, 1.0, 8), NodeType("gpu_4", 48.0, 4.0, 4))
    plan = plan_search(cluster, max_concurrent=num_at_a_time, streams=False, gpus_per_trial=gpus_per_trial)
    assert (plan.num_concurrent, plan.threads_per_worker) == (num_at_a_time, threads)


def test_workers_on_cpus_are_whole_ones_that_fill_a_node() -> None:
    cluster = growing(NodeType("cpu", 4.0, 0.0, 3))
    plan = plan_run(cluster, 2, streams=True)
    assert (plan.cpus_per_worker, plan.threads_per_worker) == (1.0, 2)
    assert plan_run(cluster, 11, streams=True).threads_per_worker == 1
    refusal = r"12 workers x 1 CPU \+ 1 CPU for Ray Data = 13 CPU, and the cluster can grow to 12"
    with pytest.raises(ValueError, match=refusal):
        plan_run(cluster, 12, streams=True)


def test_a_cluster_that_cannot_grow_is_refused_as_one_that_has_nothing() -> None:
    with pytest.raises(ValueError, match="a trial needs 1 CPU, and the cluster can grow to 0"):
        plan_search(growing(NodeType("cpu", 4.0, 0.0, 0)), max_concurrent=0, streams=False)
