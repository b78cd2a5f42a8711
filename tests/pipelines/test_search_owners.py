"""One driver a run folder, and one search a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from tests.pipelines.search_runs import FLAGS, SMALL, SearchRun

pytestmark = pytest.mark.cluster


def test_a_second_search_on_a_cluster_is_refused_until_the_first_ends(local_ray: None, tmp_path: Path) -> None:
    address = ["--address", ray.get_runtime_context().gcs_address]
    first = SearchRun(tmp_path, str(tmp_path / "first"), [*FLAGS, *address])
    second = SearchRun(tmp_path, str(tmp_path / "second"), [*SMALL, *address])
    try:
        first.start().wait_for_lines(5)
        line = second.start().refused()
        assert f"runs another search already, {first.out} (process {first.driver.pid} on" in line
        assert not (tmp_path / "second" / "config.yaml").exists()
        first.kill()
        # What the killed one left on the cluster is gone before the next one begins.
        second.start().finish()
        # As where it starts a Ray of its own, another search than it was is none that it goes on with.
        line = first.resume(*address, "--train.seed", "7").refused()
        assert line.startswith(f"--train.seed: the run in {first.out} was started with 0"), line
        first.resume(*address, "--trials", "1").wait_for_lines(first.num_lines() + 1)
    finally:
        first.end()
        second.end()
