"""The program `mlim-ray`: what it refuses before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlim_ray.command_line.main import main

ROOT = Path(__file__).resolve().parents[2]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(argv)
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == ""
    assert err.endswith("\n") and err.count("\n") == 1
    return err[:-1]


def test_a_source_that_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, out = tmp_path / "missing", str(tmp_path / "out")
    assert refused(capsys, "prepare", str(missing), out).startswith(f"{missing} does not exist; expected ")
    (tmp_path / "empty").mkdir()
    assert "holds no files" in refused(capsys, "prepare", str(tmp_path / "empty"), out)
    (tmp_path / "notes.txt").write_text("not a table")
    assert "expected a Parquet file" in refused(capsys, "prepare", str(tmp_path / "notes.txt"), out)
    assert not Path(out).exists()


@pytest.mark.parametrize("count", ["0", "-1", "many", ""])
def test_a_generated_catalogue_needs_a_number_of_records(
    count: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "generated:" in refused(capsys, "prepare", f"generated:{count}", str(tmp_path / "out"))


def test_empty_names_and_wrong_addresses_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "prepare", "", "out").startswith("SOURCE: given nothing")
    assert refused(capsys, "prepare", "source", " ").startswith("OUT: given nothing")
    assert refused(capsys, "prepare", "a", "b", "--address", "auto").startswith("--address: given auto")
    assert refused(capsys, "prepares", "a").startswith("COMMAND: invalid choice: 'prepares'")
    assert refused(capsys).startswith("missing COMMAND")


def test_a_missing_source_is_refused_without_ray(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "mlim_ray.command_line.main",
            "prepare",
            "absent",
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and len(told) == 1 and told[0].startswith("absent does not exist")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pyarrow" in loaded and not loaded & {"ray", "torch"}
