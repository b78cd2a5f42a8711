"""The Grafana dashboard of a search, made from the names of its gauges.

    python -m mlim_ray.reporting.grafana cluster/grafana/mlim_ray.json

writes it anew after a change of the gauges; a test compares the file with what this makes.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlim_ray.reporting.gauge_names import ALL_MODES, GAUGES, MODE, TRIAL, GaugeName

_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_SCHEMA_VERSION = 39


def grafana_dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it: one panel a gauge, a line a trial (and mode), and the choice of trials."""
    return {
        "uid": "mlim-ray-search",
        "title": "mlim_ray search",
        "tags": ["mlim_ray"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source_choice(), _choice(TRIAL), _choice(MODE)]},
        "panels": [_panel(index, gauge) for index, gauge in enumerate(GAUGES)],
    }


def dashboard_text() -> str:
    """The content of `cluster/grafana/mlim_ray.json`."""
    return json.dumps(grafana_dashboard(), indent=1) + "\n"


def main(argv: Sequence[str]) -> int:
    """Write the dashboard to the one file named."""
    (path,) = argv
    Path(path).write_text(dashboard_text())
    return 0


def _panel(index: int, gauge: GaugeName) -> dict[str, Any]:
    row, column = divmod(index, _COLUMNS)
    selector = ", ".join(f'{tag}=~"${tag}"' for tag in gauge.tags)
    legend = " ".join(f"{tag} {{{{{tag}}}}}" for tag in gauge.tags) or gauge.name
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": gauge.description,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "targets": [
            {
                "refId": "A",
                "datasource": _SOURCE,
                # Ray adds the process and the node to the tags; each would make a line of its own.
                "expr": f"max by ({', '.join(gauge.tags)}) ({gauge.exported}{{{selector}}})",
                "legendFormat": legend,
            }
        ],
        "fieldConfig": {"defaults": {"unit": gauge.unit, "custom": {"spanNulls": False}}, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "asc"}, "legend": {"displayMode": "table", "calcs": ["last"]}},
    }


def _source_choice() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _choice(tag: str) -> dict[str, Any]:
    """A choice of values of a tag, all of them at first; of the modes only the mean over all."""
    gauge = next(gauge for gauge in GAUGES if tag in gauge.tags)
    first = "All" if tag == TRIAL else ALL_MODES
    return {
        "name": tag,
        "label": tag,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({gauge.exported}, {tag})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "sort": 3,
        "current": {"text": [first], "value": ["$__all" if tag == TRIAL else ALL_MODES]},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
