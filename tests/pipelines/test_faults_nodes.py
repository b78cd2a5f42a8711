"""Nodes come, are taken away with notice, and are lost: an elastic run learns what an undisturbed one learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlim_ray.config import PretrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.build import build_trainer, run_masking
from mlim_ray.training.stream import read_groups, resident_batches
from tests.builders import digests, figures, timeless
from tests.pipelines.faulty_runs import ACCOUNT, CHECKPOINT_EVERY
from tests.pipelines.test_pretrain import ROOT
from tests.pipelines.two_nodes import DEADLINE_S

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

OWN_NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--mount-proc"]


def undisturbed(run: Path, num_steps: int) -> list[dict[str, Any]]:
    """The first lines of the run that no node leaves: one worker, in this process, without Ray."""
    config = PretrainConfig.model_validate_json(json.dumps(yaml.safe_load((run / "config.yaml").read_text())))
    prepared = PreparedSet.open(json.loads((run / "environment.json").read_text())["prepared"])
    trainer = build_trainer(config, prepared)
    masking = run_masking(config, trainer.model.config)
    records = read_groups(prepared, range(prepared.num_groups("train")))
    lines: list[dict[str, Any]] = []
    lanes = range(trainer.order.num_lanes)
    trainer.run(resident_batches(records, trainer.order, masking, lanes, 0, num_steps), num_steps, lines.append)
    return timeless(lines)


def elastic(folder: Path, *happenings: str) -> dict[str, Any]:
    """What a run saw to whose nodes these happened, in turn; its lines are those of a run with one worker."""
    if subprocess.run([*OWN_NAMESPACES, "true"], capture_output=True).returncode != 0:
        pytest.skip("two Ray nodes need a network of their own, and this user may not make one (unshare)")
    done = subprocess.run(
        [*OWN_NAMESPACES, sys.executable, "-m", "tests.pipelines.two_nodes", str(folder), *happenings],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    lines = seen["lines"]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    expected = undisturbed(folder / "runs" / "elastic", len(lines))
    for line, other in zip(lines, expected, strict=True):
        ours, theirs = figures(line), figures(other)
        # Two workers add up in another order than one; what is promised of is the losses.
        norms = ours.pop("gradient_norm"), theirs.pop("gradient_norm")
        assert ours == pytest.approx(theirs, rel=1e-5), line["step"]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        assert digests(line) == digests(other)
    return seen


def test_an_elastic_run_grows_and_outlives_a_lost_node(tmp_path: Path) -> None:
    seen = elastic(tmp_path, "lose")
    assert seen["num_workers"] == [1, 2, 1]
    assert max(seen["redone_after_loss"]) <= 2 * CHECKPOINT_EVERY
    assert "--workers 1-2" in seen["said"]


@pytest.mark.torture
def test_an_elastic_run_outlives_its_nodes(tmp_path: Path) -> None:
    seen = elastic(tmp_path, "take away", "lose", "lose")
    assert seen["num_workers"] == [1, 2, 1, 2, 1, 2, 1]
    assert seen["saved_after_s"] < DEADLINE_S and seen["redone_after_notice"] <= 5, seen
    assert max(seen["redone_after_loss"]) <= 2 * CHECKPOINT_EVERY
    ACCOUNT.add("a node is taken away with notice", seen["redone_after_notice"])
    for redone in seen["redone_after_loss"]:
        ACCOUNT.add("a node is lost", redone)
