"""The page on a new objective: its lines are applied to a copy of the project, which then trains with them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "new_objective.md"
PROGRAM = """
from mlim_ray.command_line.experiment import parse_pretrain, parse_search
from mlim_ray.config import PretrainConfig, SearchRunConfig
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records

flags = ["--data", "generated:20", "--dry-run"]
told = parse_pretrain(["--recon.kind", "mean_colour", "--recon.target", "whole", *flags], PretrainConfig).config
assert told.recon.kind == "mean_colour" and told.recon.weight == 10.0
parse_search(["--space", "recon.kind=pixels|mean_colour", *flags], SearchRunConfig)
train = {"num_steps": 60, "log_every_steps": 20, "learning_rate": 3e-3}
config = make_config(train=train, recon=told.recon.model_dump())
order, lines = make_order(config, 50), []
trainer = Trainer(make_model(), config, order)
batches = resident_batches(make_records(50), order, make_masking(config), range(order.num_lanes), 0, 60)
trainer.run(batches, 60, lines.append)
assert lines[-1]["loss/recon"] < 0.5 * lines[0]["loss/recon"], lines
assert any(name.endswith("head.0.weight") for name in trainer.state()["objectives"])
print("learned")
"""


def test_the_lines_of_the_page_make_an_objective_that_trains(tmp_path: Path) -> None:
    (diff,) = re.findall(r"```diff\n(.*?)```", PAGE.read_text(), re.DOTALL)
    added = [line for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert len(added) <= 60
    shutil.copytree(ROOT / "mlim_ray", tmp_path / "mlim_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "builders.py", tmp_path / "tests")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff, text=True, check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "learned\n"), done.stderr
