"""What a cluster with an autoscaler may grow to: types of nodes, and as many of each as there may be at most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class NodeType:
    """A kind of node, as `available_node_types` of a cluster's file has it."""

    name: str
    num_cpus: float
    num_gpus: float
    max_nodes: int


@dataclass(frozen=True)
class Growth:
    """The head, and all workers that there can be at a time."""

    head: NodeType
    workers: tuple[NodeType, ...]
    max_workers: int
    """of all types together"""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Of a cluster's file as `ray up` completes it."""
        head = config["head_node_type"]
        types = {
            name: NodeType(
                str(name),
                float(node.get("resources", {}).get("CPU", 0)),
                float(node.get("resources", {}).get("GPU", 0)),
                1 if name == head else int(node["max_workers"]),
            )
            for name, node in config["available_node_types"].items()
        }
        workers = tuple(kind for name, kind in types.items() if name != head)
        return cls(types[head], workers, int(config["max_workers"]))

    @property
    def fleet(self) -> tuple[tuple[NodeType, int], ...]:
        """How many nodes of each type: as many GPUs as possible, then as many CPUs."""
        left, fleet = self.max_workers, [(self.head, 1)]
        for kind in sorted(self.workers, key=lambda kind: (-kind.num_gpus, -kind.num_cpus)):
            count = max(0, min(left, kind.max_nodes))
            left -= count
            fleet.append((kind, count))
        return tuple(fleet)

    @property
    def num_cpus(self) -> float:
        return sum(count * kind.num_cpus for kind, count in self.fleet)

    @property
    def num_gpus(self) -> float:
        return sum(count * kind.num_gpus for kind, count in self.fleet)

    @property
    def num_nodes(self) -> int:
        return sum(count for _, count in self.fleet)

    @property
    def cpus_a_node(self) -> float:
        """CPUs that every node has which has any."""
        return min((kind.num_cpus for kind, count in self.fleet if count and kind.num_cpus), default=1.0)

    def threads(self, num_workers: int, gpus_per_worker: float) -> int:
        """Threads of each worker on the node that has the fewest for it, where workers fill one node after another."""
        shares = []
        for kind, count in self.fleet:
            places = int(kind.num_gpus / gpus_per_worker + 1e-6) if gpus_per_worker else int(kind.num_cpus)
            if count and places:
                shares.append(kind.num_cpus // min(num_workers, places))
        return max(1, int(min(shares, default=1.0)))

    def __str__(self) -> str:
        kinds = [f"{count} {kind.name}" for kind, count in self.fleet if count and (kind.num_cpus or kind.num_gpus)]
        return " + ".join(kinds) or "no workers"
