"""A cluster that runs: versions of its nodes, who may ask its dashboard, and the storage as each node sees it."""

import importlib.metadata
import platform
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlim_ray.data.contact import check_writable
from mlim_ray.pipelines.cluster import Cluster, connect
from mlim_ray.pipelines.doctor.arithmetic import Experiment, check_arithmetic
from mlim_ray.pipelines.doctor.finding import Diagnosis, Finding, error, warning

_HEAD = "node:__internal_head__"
_ANSWER_S = 120.0
_PROBE_S = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself."""

    ray: str
    python: str
    project: str
    storage_problem: str | None


def check_running(address: str, place: str | None, experiment: Experiment) -> Diagnosis:
    """All that can be asked of the cluster at `address`.

    Raises ValueError where no Ray answers there.
    """
    try:
        with connect(address) as cluster:
            return _check(cluster, place, experiment)
    except RuntimeError as problem:
        if "ersion mismatch" not in str(problem):
            raise
        what = " ".join(str(problem).split())
        return Diagnosis([error(address, what, "connect with the Ray and the Python that run there")])


def check_dashboard(url: str) -> Iterator[Finding]:
    """Where the dashboard listens, and whether it answers somebody without the token."""
    host = url.partition("://")[2].rpartition(":")[0]
    if host not in _LOOPBACK:
        what = f"the dashboard and the jobs API listen on {host}"
        yield error(url, what, "start the head with --dashboard-host=127.0.0.1; `ray dashboard` brings it to you")
    try:
        with urllib.request.urlopen(f"{url}/api/jobs/", timeout=_PROBE_S) as answer:
            what = f"the jobs API answers without a token (HTTP {answer.status}): it runs what it is sent"
            yield error(url, what, "start every node with RAY_AUTH_MODE=token")
    except urllib.error.HTTPError as refused:
        if refused.code not in (401, 403):
            yield warning(url, f"answers HTTP {refused.code}", "look at the dashboard's log on the head")
    except OSError:
        # It listens on the head's own loopback, and this is another machine.
        return


def _check(cluster: Cluster, place: str | None, experiment: Experiment) -> Diagnosis:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    diagnosis = Diagnosis(facts=[f"cluster: {cluster.size}"])
    if cluster.dashboard_url:
        diagnosis.findings += check_dashboard(cluster.dashboard_url)
    if not cluster.asks_for_token:
        mend = "start every node, and whoever connects, with RAY_AUTH_MODE=token"
        diagnosis.findings.append(error("token", "whoever reaches a port runs what they like", mend))
    answers = _ask(nodes, place)
    told: dict[str, NodeFacts] = {}
    for name, answer in answers.items():
        if isinstance(answer, NodeFacts):
            told[name] = answer
        else:
            mend = "see its logs in the dashboard; `ray up` again sets it up"
            diagnosis.findings.append(error(name, f"could not be asked: {answer}", mend))
    diagnosis.findings += compare_nodes(told)
    if place is not None and told and all(facts.storage_problem is None for facts in told.values()):
        diagnosis.facts.append(f"storage: {place} can be written from {len(told)} node(s)")
    heads = [node for node in nodes if _HEAD in node["Resources"]]
    if len(nodes) > 1 and heads and heads[0]["Resources"].get("CPU"):
        what = f"the head offers {heads[0]['Resources']['CPU']:g} CPU, and losing it ends the cluster"
        diagnosis.findings.append(warning(_name(heads[0]), what, "start it with --num-cpus=0 --num-gpus=0"))
    if cluster.num_cpus:
        diagnosis.add(check_arithmetic(cluster, experiment, "cluster"))
    else:
        diagnosis.facts.append("no worker is up, and what the cluster can grow to is not known")
    return diagnosis


def compare_nodes(told: dict[str, NodeFacts]) -> Iterator[Finding]:
    """Versions against what most nodes have, and the storage as each of them sees it."""
    for what in ("ray", "python", "project"):
        versions = {name: str(getattr(facts, what)) for name, facts in told.items()}
        if not versions:
            return
        usual = Counter(versions.values()).most_common(1)[0][0]
        for name, version in versions.items():
            if version != usual:
                called = {"ray": "Ray", "python": "Python", "project": "mlim_ray"}[what]
                yield error(name, f"has {called} {version}, the others {usual}", "`ray up` again sets it up")
    for name, facts in told.items():
        if facts.storage_problem is not None:
            problem, _, mend = facts.storage_problem.rpartition("; ")
            yield error(name, problem or mend, mend if problem else "see docs/s3.md")


def _ask(nodes: list[dict[str, Any]], place: str | None) -> dict[str, NodeFacts | str]:
    """What each node says, by its name; why it says nothing, where it does not."""
    asked = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(describe_node)
        asked[_name(node)] = task.remote(place)
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
    return {name: _answer(reference) for name, reference in asked.items()}


def _answer(reference: Any) -> NodeFacts | str:
    try:
        facts: NodeFacts = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"no answer within {_ANSWER_S:.0f} s"
    except ray.exceptions.RayError as problem:
        lines = str(problem).strip().splitlines()
        return lines[-1] if lines else type(problem).__name__
    return facts


def describe_node(place: str | None) -> NodeFacts:
    """Runs on a node: its versions, and whether it can write below `place`."""
    problem = None
    if place is not None:
        try:
            check_writable(place)
        except ValueError as refused:
            problem = str(refused)
    return NodeFacts(ray.__version__, platform.python_version(), importlib.metadata.version("mlim-ray"), problem)


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']}"
