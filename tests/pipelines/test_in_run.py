"""A run that is measured while it trains: what is found at each checkpoint, and that training does not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import yaml

from mlim_ray.config import PretrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.evaluation import evaluate
from mlim_ray.evaluation.held_out import limits_of, load_held_out
from mlim_ray.training.build import build_model
from mlim_ray.training.metrics import read_metrics
from tests.builders import timeless
from tests.pipelines.test_pretrain import FLAGS, finish, refusal, start

pytestmark = [pytest.mark.cluster, pytest.mark.long]

MEASURED = ("--evaluate.every-steps", "10", "--evaluate.tasks", "retrieval")
STEPS = "evaluation/steps.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("in-run")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    finish(start(folder, *FLAGS, *MEASURED, "--out", "runs/measured"))
    return folder / "runs" / "measured"


def found_at(run: Path) -> dict[int, dict[str, Any]]:
    return {found["step"]: found for found in json.loads((run / STEPS).read_text())}


def test_each_kept_checkpoint_was_measured_by_the_probes_and_the_tasks(run: Path) -> None:
    found = found_at(run)
    assert sorted(found) == [10, 20]
    for step in found:
        assert list(found[step]["evaluations"]["held-out records"]["tasks"]) == ["retrieval"]
    prepared = PreparedSet.open(json.loads((run / "environment.json").read_text())["prepared"])
    config = PretrainConfig.model_validate_json(json.dumps(yaml.safe_load((run / "config.yaml").read_text())))
    model = build_model(config, prepared)
    model.load_state_dict(safetensors.torch.load_file(run / "checkpoints" / "step-00000010" / "model.safetensors"))
    held_out = load_held_out(prepared, config.probe, model.config.num_cells)
    expected = evaluate(model.eval(), held_out, limits_of(prepared, held_out), None)["probe"]
    assert found[10]["probe"]["score"] == pytest.approx(expected["score"], rel=1e-5)


def test_the_page_and_the_evaluation_tell_every_step(run: Path) -> None:
    by_step = json.loads((run / "evaluation.json").read_text())["by_step"]
    assert [at["step"] for at in by_step] == [10, 20, 24]
    assert all({"partner probe", "linear probe"} <= {score["task"] for score in at["scores"]} for at in by_step)
    page = (run / "report.html").read_text()
    assert "While it trained" in page and "steps-partner-probe" in page


def test_training_does_not_notice_and_what_is_missing_is_made_by_a_resume(run: Path, folder: Path) -> None:
    finish(start(folder, *FLAGS, "--out", "runs/plain"))
    assert timeless(read_metrics(str(run))) == timeless(read_metrics(str(folder / "runs" / "plain")))
    before = found_at(run)
    (run / STEPS).write_text(json.dumps([before[10]]))
    (run / "evaluation.json").unlink()
    finish(start(folder, "--out", "runs/measured", "--resume", "--no-dashboard", "--json"))
    after = found_at(run)
    for found in (before, after):
        for at in found.values():
            del at["seconds"]
    assert after == before


def test_an_unknown_task_is_refused_before_anything_starts(tmp_path: Path) -> None:
    line = refusal(tmp_path, *FLAGS, "--evaluate.every-steps", "10", "--evaluate.tasks", "retrievl")
    assert "given retrievl, expected some of partner, classification, retrieval" in line
    assert not list(tmp_path.iterdir())
