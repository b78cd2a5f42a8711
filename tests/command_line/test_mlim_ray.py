"""The program `mlim-ray` as a person runs it: real processes, real files, a Ray of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlim_ray.command_line.main import main
from mlim_ray.data.prepared import PreparedSet
from tests.data.pictures import encoded, noise
from tests.data.rejected import rejected_pictures

ROOT = Path(__file__).resolve().parents[2]
ROLES = {
    "image": "image",
    "text": "text",
    "key": "id",
    "label": "label",
    "group": "group_id",
    "split": "split",
}


def mlim_ray(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-m", "mlim_ray.command_line.main", *argv],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def quarantine(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "quarantine").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def accepted(out: Path) -> list[dict[str, Any]]:
    prepared = PreparedSet.open(str(out))
    return [row for split in ("train", "val", "test") for row in prepared.read(split).to_pylist()]


def check_accounts(summary: Mapping[str, Any], out: Path) -> None:
    """C4, from the printed summary and what lies on disk."""
    rows = quarantine(out)
    assert summary["read"] == summary["accepted"] + summary["rejected"] + summary["duplicates"]
    assert summary["accepted"] == sum(summary["splits"].values()) == len(accepted(out))
    assert len(rows) == summary["rejected"] + summary["duplicates"]
    assert Counter(row["reason"] for row in rows) == summary["reasons"]


def animated(colours: Sequence[str], kind: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), colour) for colour in colours]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def odd_pictures() -> dict[str, bytes]:
    """Pictures that are unusual and sound: each has to be accepted."""
    steps = np.linspace(0, 65_535, 400).astype(np.uint16).reshape(20, 20)
    transparent = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    return {
        "cmyk": encoded(noise().convert("CMYK"), "JPEG"),
        "16 bit": encoded(Image.fromarray(steps)),
        "palette": encoded(noise().convert("P")),
        "palette with transparency": encoded(noise().convert("P"), transparency=0),
        "transparent": encoded(transparent),
        "grey with alpha": encoded(noise().convert("LA")),
        "one bit": encoded(noise().convert("1")),
        "animated": animated(["red", "blue"], "GIF"),
        "animated png": animated(["red", "blue"], "PNG"),
        "webp": encoded(noise(), "WEBP"),
    }


def as_strings(values: Sequence[bytes | None]) -> pa.Array:
    """A string column with any bytes in it, as a careless writer leaves it."""
    stored = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), stored.buffers(), stored.null_count)


def hostile_folder(folder: Path) -> tuple[Path, dict[tuple[str, int], str]]:
    """Two Parquet files of sound, odd and broken records; gives the reason expected for each place."""
    good = encoded(noise())
    rows: list[tuple[bytes | None, bytes | None, bytes | None, str | None]] = [
        (f"good {i}".encode(), good, f"a red shirt number {i}".encode(), None) for i in range(80)
    ]
    rows += [(name.encode(), image, b"an odd picture", None) for name, image in odd_pictures().items()]
    rows += [
        (f"bad {name}".encode(), image, b"a bad picture", reason)
        for name, (image, reason) in rejected_pictures().items()
    ]
    rows += [
        (b"null text", good, None, "empty_text"),
        (b"empty text", good, b"", "empty_text"),
        (b"blank text", good, " \t\u3000".encode(), "empty_text"),
        (b"only nul", good, b"\x00\x00", "empty_text"),
        (b"latin text", good, b"caf\xe9", "invalid_utf8"),
        (b"nul inside", good, b"blue\x00 jeans", None),
        (b"long text", good, b"word " * 210_000, None),
        (None, good, b"no key", "null_key"),
        (b"", good, b"an empty key", "null_key"),
        (b"latin key \xe9", good, b"a broken key", "invalid_utf8"),
        # The first record of a key that can be used has it, whether another was rejected or not.
        (b"bad zero bytes", good, b"the same key as a bad record", None),
    ]
    again = [(b"good 3", good, b"another text"), (b"good 3", good, b"and another"), (b"fresh", good, b"a fresh one")]
    folder.mkdir()
    for name, part in (("a.parquet", [row[:3] for row in rows]), ("b.parquet", again)):
        keys, images, texts = zip(*part, strict=True)
        table = pa.table({"id": as_strings(keys), "image": pa.array(images, pa.binary()), "text": as_strings(texts)})
        pq.write_table(table, folder / name, row_group_size=50)
    reasons = {("a.parquet", row): reason for row, (*_, reason) in enumerate(rows) if reason is not None}
    return folder, reasons | {("b.parquet", 0): "duplicate_key", ("b.parquet", 1): "duplicate_key"}


def write_shop(folder: Path, num_rows: int, num_missing: int) -> Path:
    """A CSV file, and its pictures in a folder; those of the first rows are missing."""
    (folder / "pictures").mkdir(parents=True)
    lines = ["sku,photo,product_title,category"]
    for row in range(num_rows):
        lines.append(f'{row},{row}.png,"Shirt, number {row}",kind {row % 3}')
        if row >= num_missing:
            (folder / "pictures" / f"{row}.png").write_bytes(encoded(noise(20, 20, row)))
    (folder / "items.csv").write_text("\n".join(lines) + "\n")
    return folder / "items.csv"


@pytest.mark.cluster
def test_a_generated_catalogue_is_prepared_once(tmp_path: Path) -> None:
    first = mlim_ray(tmp_path, "prepare", "generated:500", "sets/one", "--json")
    summary = summary_of(first)
    check_accounts(summary, tmp_path / "sets" / "one")
    assert (summary["read"], summary["accepted"], summary["already_prepared"]) == (500, 500, False)
    out = str(tmp_path / "sets" / "one")
    assert f"prepared: {out}\n" in first.stdout and f"next: python experiments/pretrain.py --data {out}" in first.stdout
    assert "Ray dashboard: http://" in first.stdout
    # One line for the stage, and nothing of Ray's own.
    assert len(first.stderr.splitlines()) == 1 and first.stderr.startswith("prepare: 500 records in ")
    # No Ray answers at this address, and none is asked: the set is there.
    again = mlim_ray(tmp_path, "prepare", "generated:500", "sets/one", "--json", "--address", "127.0.0.1:1")
    assert summary_of(again) == summary | {"already_prepared": True, "newly_accepted": 0}
    assert f"{out}: already prepared\n" in again.stdout and again.stderr == ""
    other = mlim_ray(tmp_path, "prepare", "generated:501", "sets/one", "--address", "127.0.0.1:1")
    assert (other.returncode, other.stdout) == (2, "") and other.stderr.count("\n") == 1
    assert "holds a set prepared from generated:500" in other.stderr and "--overwrite" in other.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sets"]


@pytest.mark.cluster
def test_every_hostile_record_ends_in_one_place(tmp_path: Path) -> None:
    source, reasons = hostile_folder(tmp_path / "in")
    flags = ["--max-rejected-ratio", "0.5", "--vocabulary-size", "200", "--json", "--no-dashboard"]
    done = mlim_ray(tmp_path, "prepare", str(source), "out", *flags)
    summary = summary_of(done)
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    out = tmp_path / "out"
    check_accounts(summary, out)
    sizes = {path.name: pq.read_metadata(path).num_rows for path in source.iterdir()}
    assert summary["read"] == sum(sizes.values())
    rows = quarantine(out)
    assert {(row["source"], row["row"]): row["reason"] for row in rows} == reasons
    assert len(rows) == len(reasons) and summary["duplicates"] == 2 and summary["cut_texts"] >= 1
    assert all(row["detail"] and row["detail"].isprintable() and len(row["detail"]) <= 300 for row in rows)
    stages = {row["reason"]: row["stage"] for row in rows}
    assert (stages["duplicate_key"], stages["empty_text"]) == ("deduplicate", "clean")
    keys = {row["key"] for row in rows if row["key"]}
    assert {"bad truncated jpeg", "null text", "good 3"} <= keys and stages["missing_picture"] in ("read", "clean")
    stored = {row["key"]: row for row in accepted(out)}
    assert len(stored) == summary["accepted"] and set(odd_pictures()) <= set(stored)
    assert stored["nul inside"]["text"] == "blue jeans" and len(stored["long text"]["text"]) <= 2_000
    assert stored["good 3"]["text"] == "a red shirt number 3"
    assert stored["bad zero bytes"]["text"] == "the same key as a bad record"
    pixels = np.frombuffer(stored["transparent"]["image"], np.uint8)
    assert pixels.size == 32 * 32 * 3 and (pixels == 255).all()


@pytest.mark.cluster
def test_too_many_rejected_records_end_the_program_and_keep_the_quarantine(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop", 60, num_missing=20)
    argv = ["prepare", "shop/items.csv", "out", "--image-folder", "shop/pictures", "--vocabulary-size", "200"]
    done = mlim_ray(tmp_path, *argv, "--json", "--no-dashboard")
    assert (done.returncode, done.stdout) == (3, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("20 of the first 60 records of shop/items.csv were rejected (33.3%): missing_picture 20;")
    assert "--max-rejected-ratio" in line and "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quarantine"]
    assert sorted(row["row"] for row in quarantine(tmp_path / "out")) == list(range(20))
    # What is left there does not stand in the way of the mend.
    allowed = mlim_ray(tmp_path, *argv, "--max-rejected-ratio", "0.4", "--json", "--no-dashboard")
    summary = summary_of(allowed)
    check_accounts(summary, tmp_path / "out")
    assert (summary["accepted"], summary["reasons"]) == (40, {"missing_picture": 20})
    assert summary["columns"] == {"image": "photo", "text": "product_title", "key": "sku", "label": "category"}
    stored = {row["key"]: row for row in accepted(tmp_path / "out")}
    assert (stored["25"]["text"], stored["25"]["label"]) == ("Shirt, number 25", "kind 1")
    picture = Image.open(io.BytesIO(encoded(noise(20, 20, 25)))).resize((32, 32), Image.Resampling.BICUBIC)
    assert stored["25"]["image"] == np.asarray(picture).tobytes()


@pytest.mark.cluster
def test_a_set_grows_is_repaired_and_verified(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop", 60, num_missing=2)
    common = ["--image-folder", "shop/pictures", "--json", "--no-dashboard"]
    flags = ["--vocabulary-size", "200", "--keep-rejected", *common]
    first = summary_of(mlim_ray(tmp_path, "prepare", "shop/items.csv", "out", *flags))
    assert (first["accepted"], first["rejected"], first["generations"]) == (58, 2, 1)
    # The set's own settings hold for what is added: no flag has to be repeated.
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "new.csv").write_text("sku,photo,product_title,category\nn1,7.png,a hat,kind 0\n")
    second = mlim_ray(tmp_path, "prepare", "more", "out", "--append", *common)
    assert summary_of(second)["accepted"] == 59 and "generation 2: 1 records added" in second.stdout
    rows = quarantine(tmp_path / "out")
    assert [row["text"] for row in rows] == [b"Shirt, number 0", b"Shirt, number 1"]
    rows[0]["image"] = encoded(noise())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "repaired.parquet")
    third = summary_of(mlim_ray(tmp_path, "requeue", "out", "repaired.parquet", "--json", "--no-dashboard"))
    check_accounts(third, tmp_path / "out")
    assert (third["accepted"], third["rejected"], third["newly_accepted"]) == (60, 1, 1)
    verified = mlim_ray(tmp_path, "verify", "out")
    assert verified.returncode == 0 and "read 61 = accepted 60 + rejected 1 + duplicates 0" in verified.stdout
    shard = next((tmp_path / "out" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    damaged = mlim_ray(tmp_path, "verify", "out")
    assert damaged.returncode == 2 and shard.name in damaged.stderr and damaged.stderr.count("\n") == 1
    both = mlim_ray(tmp_path, "prepare", "more", "out", "--append", "--overwrite")
    assert both.returncode == 2 and "--append" in both.stderr


def test_inspect_is_a_program_that_starts_nothing(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop", 30, num_missing=2)
    argv = ["inspect", "shop", "--image-folder", "shop/pictures", "--text-column", "category", "--json"]
    done = mlim_ray(tmp_path, *argv)
    found = summary_of(done)
    assert done.stderr == "" and [path.name for path in tmp_path.iterdir()] == ["shop"]
    # A column named by a flag has its role, and no other.
    assert found["columns"] == {"image": "photo", "text": "category", "key": "sku"}
    assert (found["num_records"], found["num_accepted"], found["reasons"]) == (30, 28, {"missing_picture": 2})
    assert "photo (string, used as image)" in done.stdout and "rejected  2 of 30: missing_picture 2" in done.stdout


@pytest.mark.parametrize(
    ("name", "picture"),
    [("fashion", "JPEG RGB"), ("emoji", "PNG RGBA"), ("fashion224", "JPEG RGB")],
)
def test_inspect_shows_the_roles_of_real_columns(
    shared_data: Path, name: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "fixtures" / name
    if not folder.is_dir():
        pytest.skip(f"the real records are not here: no folder {name} in ../shared/data/fixtures")
    main(["inspect", str(folder), "--json"])
    *lines, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["columns"] == ROLES
    assert (found["num_records"], found["num_accepted"], found["reasons"]) == (64, 64, {})
    assert next(iter(found["pictures"]["kinds"])) == picture
    (columns,) = (line for line in lines if line.startswith("columns"))
    for role, column in ROLES.items():
        assert f"{column} ({found['column_types'][column]}, used as {role})" in columns
    assert "width (int32)" in columns
