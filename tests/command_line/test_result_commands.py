"""Mistakes in `mlim-ray embed` and `fill` are one plain line, and nothing is started or written."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlim_ray.command_line.main import main
from tests.data.pictures import encoded, noise
from tests.model_folder import write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "run", ["red shirt"])
    rows = [{"id": f"k{i}", "image": encoded(noise(20, 20, i)), "text": "red shirt", "hue": "red"} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("embed RUN SOURCE OUT --embed.dtype float64", "--embed.dtype: given float64, expected one of float32"),
        ("embed RUN SOURCE OUT --normalise", "--normalise: unknown flag; did you mean --embed.normalise?"),
        ("embed RUN nothing OUT", "nothing does not exist; expected a Parquet file"),
        ("embed nothing SOURCE OUT", "RUN: .*nothing is no folder"),
        ("embed SOURCE SOURCE OUT", r"RUN: .*a\.parquet is no folder"),
        ("embed RUN SOURCE RUN", "holds other files .*expected a new or empty folder"),
        ("embed RUN SOURCE OUT --prepare.text-column title", "no such column in"),
        ("fill RUN SOURCE OUT", "missing --attribute"),
        ("fill RUN SOURCE OUT --attribute colour", "--attribute colour: no such column in .* Columns: .*hue"),
        ("fill RUN SOURCE OUT --attribute hue --fill.num-train 3", "--fill.num-train: given 3, expected"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    places = {
        "RUN": folder / "run",
        "SOURCE": folder / "a.parquet",
        "OUT": folder / "out",
        "nothing": folder / "nothing",
    }
    with pytest.raises(SystemExit) as ended:
        main([str(places.get(word, word)) for word in words.split()])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(message, printed), printed
    assert not (folder / "out").exists()
