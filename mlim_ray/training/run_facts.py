"""What a run folder says of a run, read without torch and without Ray."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlim_ray.config.files import MOST_BYTES, parse_yaml
from mlim_ray.data import storage
from mlim_ray.training.metrics import Line, read_metrics


@dataclass(frozen=True)
class RunFacts:
    """What is compared of a run."""

    path: str
    config: dict[str, Any]
    """by dotted key"""
    manifest_sha256: str | None
    """of the prepared set; None where the run has not come so far"""
    start_sha256: str | None
    """of the weights that it started from, if another run's"""
    lines: Sequence[Line]

    @property
    def last_step(self) -> int:
        """The last logged step, 0 without any."""
        return int(self.lines[-1]["step"]) if self.lines else 0


def read_run(path: str) -> RunFacts:
    """What is compared of the run in the folder `path`. Raises ValueError that names it if there is none."""
    config_path = storage.join(path, "config.yaml")
    if not storage.exists(config_path):
        raise ValueError(f"{path} holds no run: it has no config.yaml; name the folder of a run")
    config = parse_yaml(storage.read_bytes(config_path, MOST_BYTES + 1), config_path)
    return RunFacts(
        path,
        dict(_flat(config)),
        _read_json(storage.join(path, "environment.json")).get("manifest_sha256"),
        _read_json(storage.join(path, "start.json")).get("sha256"),
        read_metrics(path),
    )


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _read_json(path: str) -> dict[str, Any]:
    """The content of a JSON file; nothing where it is not there."""
    if not storage.exists(path):
        return {}
    data = storage.read_bytes(path)
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); expected JSON: restore it from a copy") from error
    return content if isinstance(content, dict) else {}
