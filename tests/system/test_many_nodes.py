"""The benchmark of many nodes runs at a tiny size, where nobody sees its clusters, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.system.conftest import cannot
from tests.system.hosts import ROOT, why_not

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def test_it_measures_each_cluster_and_leaves_no_process(tmp_path: Path) -> None:
    reason = why_not()
    if reason is not None:
        cannot(reason)
    out, name = tmp_path / "record.json", f"many-nodes-{os.getpid()}"
    command = [sys.executable, "-m", "benchmarks.many_nodes", "--smoke", "--work", str(tmp_path / name)]
    subprocess.run([*command, "--out", str(out)], cwd=ROOT, check=True, capture_output=True)
    clusters = json.loads(out.read_text())["clusters"]
    assert [cluster["nodes"] for cluster in clusters] == [1, 2]
    for cluster in clusters:
        assert cluster["alive_at_the_end"] == cluster["nodes"] + 1
        assert cluster["tasks"]["per_s"] > 0 and cluster["feed"]["per_s"] > 0
        assert cluster["idle"]["gcs"]["rss_mib"] > 10 and cluster["idle"]["node_mib"] > 50
        assert cluster["feed"]["driver"]["ms"] > 0
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not any(name in command for command in commands)
