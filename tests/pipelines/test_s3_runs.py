"""From a source in S3 to a run in S3 by the commands that people type, and no credential in what comes of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlim_ray.data import storage
from mlim_ray.reporting.event_files import EventFile
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import MetricsWriter, read_metrics
from tests.event_reader import scalars

pytestmark = pytest.mark.cluster

PRETRAIN = str(Path(__file__).resolve().parents[2] / "experiments" / "pretrain.py")


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray logs; the paths of its sockets leave room for a short name only."""
    folder = Path(tempfile.mkdtemp(prefix="mlim", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_a_run_in_a_bucket_keeps_the_contract_of_the_run_folder_and_every_secret(
    bucket: str, tmp_path: Path, ray_folder: Path, s3_settings: tuple[int, str, str]
) -> None:
    prepared, out = f"{bucket}/set", f"{bucket}/runs/first"
    environment = os.environ | {"RAY_TMPDIR": str(ray_folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    said = []

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        said.append(ended.stdout + ended.stderr)
        return ended

    ended = run("-m", "mlim_ray.command_line.main", "prepare", "generated:400", prepared, "--json")
    assert ended.returncode == 0, ended.stderr
    flags = "--steps 12 --train.checkpoint-every-steps 5 --train.log-every-steps 3 --probe.num-records 16 --json"
    pretrain = [PRETRAIN, "--data", prepared, "--out", out, *flags.split()]
    pretrain += ["--feed.cache-folder", str(ray_folder)]
    ended = run(*pretrain)
    assert ended.returncode == 0, ended.stderr
    assert [line["step"] for line in read_metrics(out)] == [3, 6, 9, 12]
    assert CheckpointStore(storage.join(out, "checkpoints")).steps() == [10, 12]
    for name in ("config.yaml", "environment.json", "evaluation.json", "report.html", "model/model.safetensors"):
        assert storage.exists(storage.join(out, name)), name
    assert not storage.exists(storage.join(out, "lease.json"))
    again = run(*pretrain)
    assert again.returncode == 2 and "--resume" in again.stderr and "--overwrite" in again.stderr

    second = f"{bucket}/runs/second"
    ended = run(PRETRAIN, "--data", "generated:200", "--init-from", out, "--out", second, *flags.split())
    assert ended.returncode == 0, ended.stderr
    assert json.loads(storage.read_bytes(f"{second}/start.json"))["step"] == 12
    assert read_metrics(second)[0]["loss/mlm"] < 0.9 * read_metrics(out)[0]["loss/mlm"]
    program = ("-m", "mlim_ray.command_line.main", "diff")
    assert run(*program, out, out).returncode == 0
    differing = run(*program, out, second, "--json")
    assert differing.returncode == 1 and json.loads(differing.stdout.splitlines()[-1])["first_step"] == 0

    written = {file.path: storage.read_bytes(file.path) for file in storage.list_files(bucket)}
    logged = {str(path): path.read_bytes() for path in ray_folder.rglob("*") if path.is_file()}
    assert any("/.ray/" in path for path in written) and any("/logs/" in path for path in logged)
    for where, content in {**written, **logged, "the screen": "".join(said).encode()}.items():
        for secret in s3_settings[1:]:
            assert secret.encode() not in content, where
    assert list(tmp_path.iterdir()) == []


def test_metrics_in_a_bucket_hold_each_step_once_and_only_what_their_index_names(bucket: str) -> None:
    run = f"{bucket}/run"
    assert read_metrics(run) == []
    for start, stop, attempt in ((0, 8, "first"), (5, 7, "second"), (6, 9, "third")):
        writer = MetricsWriter(run, start)
        assert (writer.last_line or {"step": 0})["step"] == start
        for step in range(start + 1, stop + 1):
            writer.write({"step": step, "attempt": attempt})
            if step % 2:
                writer.flush()
        writer.flush()
    storage.write_bytes_atomically(f"{run}/metrics/000099-0000000009.jsonl", b'{"step": 10, "attempt": "killed"}\n')
    assert [(line["step"], line["attempt"]) for line in read_metrics(run)] == [
        *((step, "first") for step in range(1, 6)),
        (6, "second"),
        *((step, "third") for step in range(7, 10)),
    ]


def test_curves_in_a_bucket_come_in_a_file_with_each_flush(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    events = EventFile(f"{bucket}/run", 0, "trial-00003-mam")
    for step in (5, 10, 15):
        events.write(step, {"loss/mlm": float(step)})
        if step < 15:
            events.flush()
    events.close()
    folder = f"{bucket}/run/tensorboard/trial-00003-mam"
    names = storage.list_names(folder)
    for name in names:
        storage.write_bytes_atomically(str(tmp_path / "back" / name), storage.read_bytes(f"{folder}/{name}"))
    assert len(names) == 3 and scalars(tmp_path / "back")["loss/mlm"] == [(5, 5.0), (10, 10.0), (15, 15.0)]
    assert list((tmp_path / "temporary").iterdir()) == [], "what was copied is not kept"
