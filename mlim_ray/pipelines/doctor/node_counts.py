"""How many machines there may be, which Ray's validator does not compare."""

from collections.abc import Iterator

from mlim_ray.pipelines.doctor.cluster_file import ClusterFile
from mlim_ray.pipelines.doctor.finding import Finding, error, warning


def check_node_counts(cluster: ClusterFile) -> Iterator[Finding]:
    """At least against at most, of each type and of all; machines that never go."""
    total = cluster.max_workers
    for name, node in cluster.node_types.items():
        low, high = node["min_workers"], node["max_workers"]
        where = f"available_node_types.{name}"
        if low > high:
            yield error(where, f"min_workers {low} is above max_workers {high}", f"lower min_workers to {high} or less")
        if high > total:
            mend = f"lower it, or raise the cluster's max_workers to {high}"
            yield error(where, f"max_workers {high} is above the cluster's {total}", mend)
        if cluster.kind != "local" and name != cluster.head and low > 0:
            what = f"min_workers {low} keeps machines that cost money while idle"
            yield warning(where, what, "set min_workers to 0")
    if cluster.kind == "local":
        yield from _hosts(cluster)
    elif not cluster.full["idle_timeout_minutes"]:
        what = "0 takes a machine away between two trials, and the next one waits for another"
        yield warning("idle_timeout_minutes", what, "set it to 5")


def _hosts(cluster: ClusterFile) -> Iterator[Finding]:
    provider = cluster.full["provider"]
    workers = list(provider["worker_ips"])
    if provider["head_ip"] in workers:
        what = f"{provider['head_ip']} is the head as well"
        yield error("provider.worker_ips", what, "take it out of the workers: Ray would start twice on it")
    twice = sorted({host for host in workers if workers.count(host) > 1})
    if twice:
        yield error("provider.worker_ips", f"names {', '.join(twice)} twice", "name each host once")
    if cluster.max_workers < len(workers):
        what = f"{cluster.max_workers} leaves some of the {len(workers)} workers out"
        yield warning("max_workers", what, "leave it out")
