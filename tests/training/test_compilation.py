"""torch.compile computes the same, and where it does not work the run goes on and says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

RUN = """
import json, sys, torch
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records

def learn(compiles, precision):
    train = {"num_steps": 4, "log_every_steps": 1, "compile": compiles, "precision": precision}
    # The code serves both grids.
    config = make_config(train=train, resolution={"start_ratio": 0.5, "small_steps_ratio": 0.5})
    order = make_order(config, 50)
    trainer, lines = Trainer(make_model(), config, order), []
    batches = resident_batches(make_records(50), order, make_masking(config), range(order.num_lanes), 0, 4)
    trainer.run(batches, 4, lines.append)
    return {"lines": lines, "keys": sorted(trainer.model.state_dict()), "failure": trainer.compile_failure,
            "compiled": trainer.model.encoder.layers[0]._compiled_call_impl is not None}

print(json.dumps([learn(True, sys.argv[1]), learn(False, sys.argv[1])]))
"""


def learn(tmp_path: Path, precision: str = "float32", **environment: str) -> tuple[list[dict[str, Any]], str]:
    """Four steps with and without compiling, in a process of its own, whose compiler can be taken away."""
    # Nothing that an earlier test has compiled is found again.
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", RUN, precision],
        cwd=Path(__file__).resolve().parents[2],
        env={**environment, "PYTHONPATH": os.pathsep.join([".", *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_a_compiled_run_learns_the_same(tmp_path: Path) -> None:
    (compiled, plain), _ = learn(tmp_path)
    if compiled["failure"] is not None:
        pytest.skip(f"torch.compile does not work here: {compiled['failure']}")
    assert compiled["compiled"] and not plain["compiled"]
    assert compiled["keys"] == plain["keys"]
    for ours, theirs in zip(compiled["lines"], plain["lines"], strict=True):
        learned = {name: value for name, value in theirs.items() if name.startswith(("loss/", "gradient_norm"))}
        assert {name: ours[name] for name in learned} == pytest.approx(learned, rel=1e-4)
        assert "machine/compile_failure" not in ours


def test_without_a_compiler_the_run_goes_on_and_says_why(tmp_path: Path) -> None:
    (fallen_back, plain), errors = learn(tmp_path, CXX=str(tmp_path / "no-compiler"))
    assert fallen_back["failure"] and not fallen_back["compiled"]
    assert f"torch.compile failed here: {fallen_back['failure']}" in errors
    for ours, theirs in zip(fallen_back["lines"], plain["lines"], strict=True):
        assert ours["machine/compile_failure"] == fallen_back["failure"]
        assert {name: ours[name] for name in theirs if name.startswith("loss/")} == {
            name: value for name, value in theirs.items() if name.startswith("loss/")
        }
