"""The Grafana dashboard that is committed is the one that the gauges' names give."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mlim_ray.reporting.gauge_names import GAUGES
from mlim_ray.reporting.grafana import dashboard_text, grafana_dashboard, main

COMMITTED = Path(__file__).resolve().parents[2] / "cluster" / "grafana" / "mlim_ray.json"


def test_the_committed_dashboard_is_up_to_date(tmp_path: Path) -> None:
    assert main([str(tmp_path / "made.json")]) == 0
    assert (tmp_path / "made.json").read_text() == COMMITTED.read_text() == dashboard_text(), (
        "make it anew: python -m mlim_ray.reporting.grafana cluster/grafana/mlim_ray.json"
    )


def test_each_gauge_is_drawn_once_by_its_exported_name_and_tags() -> None:
    dashboard = grafana_dashboard()
    drawn = [panel["targets"][0]["expr"] for panel in dashboard["panels"]]
    parts = [re.fullmatch(r"max by \((.*)\) \((\w+)\{(.*)\}\)", expression) for expression in drawn]
    assert [match and match[2] for match in parts] == [gauge.exported for gauge in GAUGES]
    for match, gauge in zip(parts, GAUGES, strict=True):
        assert match is not None and match[1] == ", ".join(gauge.tags)
        assert re.findall(r"(\w+)=~", match[3]) == list(gauge.tags)


def test_panels_do_not_overlap_and_choices_are_defined() -> None:
    dashboard = json.loads(dashboard_text())
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(dashboard["panels"]) == len({panel["id"] for panel in dashboard["panels"]})
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"])))
    assert used == {choice["name"] for choice in dashboard["templating"]["list"]}
