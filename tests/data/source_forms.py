"""The same records written in every form that a source may have."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.pictures import encoded, noise

FIELDS = ("id", "title", "brand", "description", "label", "group_id", "split")


@dataclass(frozen=True)
class Item:
    """One record of a catalogue: a picture as bytes, and texts."""

    id: str
    picture: bytes
    title: str
    brand: str
    label: str
    group_id: str
    split: str
    description: str = "One of many."

    @property
    def file(self) -> str:
        suffix = "jpg" if self.picture.startswith(b"\xff\xd8") else "png"
        return f"photos/{self.id}.{suffix}"

    def fields(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in FIELDS}


def some_items(num_items: int = 12) -> list[Item]:
    """Items of noise, of three labels and all splits."""
    splits = ("train", "train", "val", "test")
    return [
        Item(f"k{i}", encoded(noise(20, 24, i)), f"shirt number {i}", "Acme", f"kind {i % 3}", f"g{i}", splits[i % 4])
        for i in range(num_items)
    ]


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_pictures(folder: Path, items: Iterable[Item]) -> None:
    for item in items:
        (folder / item.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / item.file).write_bytes(item.picture)


def _columns(items: list[Item]) -> dict[str, list[Any]]:
    return {name: [getattr(item, name) for item in items] for name in FIELDS}


def _parquet(folder: Path, items: list[Item]) -> Path:
    table = pa.table({"image": [item.picture for item in items], **_columns(items)})
    pq.write_table(table, folder / "items.parquet")
    return folder / "items.parquet"


def _spark(folder: Path, items: list[Item]) -> Path:
    out = folder / "items.parquet"
    out.mkdir()
    (out / "_SUCCESS").touch()
    for number, part in enumerate((items[:5], items[5:])):
        table = pa.table({"image": [item.picture for item in part], **_columns(part)})
        pq.write_table(table, out / f"part-{number:05d}.snappy.parquet", compression="snappy")
    return out


def _hugging_face(folder: Path, items: list[Item]) -> Path:
    """Some pictures inside, and some only as a path."""
    write_pictures(folder, items)
    images = [
        {"bytes": item.picture if i % 2 else None, "path": item.file if i % 2 == 0 else "lost.jpg"}
        for i, item in enumerate(items)
    ]
    pq.write_table(pa.table({"image": images, **_columns(items)}), folder / "train-00000.parquet")
    return folder


def _parquet_paths(folder: Path, items: list[Item]) -> Path:
    write_pictures(folder, items)
    table = pa.table({"image_path": [item.file for item in items], **_columns(items)})
    pq.write_table(table, folder / "items.parquet")
    return folder


def _csv_text(items: list[Item], delimiter: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["file_name", *FIELDS])
    writer.writerows([item.file, *item.fields().values()] for item in items)
    return out.getvalue()


def _csv(folder: Path, items: list[Item]) -> Path:
    write_pictures(folder, items)
    (folder / "items.csv").write_text(_csv_text(items, ","))
    return folder


def _tsv(folder: Path, items: list[Item]) -> Path:
    write_pictures(folder, items)
    (folder / "items.tsv.gz").write_bytes(gzip.compress(_csv_text(items, "\t").encode()))
    return folder / "items.tsv.gz"


def _json_text(items: list[Item]) -> str:
    return "".join(json.dumps({"image": item.file, **item.fields()}) + "\n" for item in items)


def _jsonl(folder: Path, items: list[Item]) -> Path:
    write_pictures(folder, items)
    (folder / "a").mkdir()
    (folder / "items.jsonl").write_text(_json_text(items))
    return folder


def _jsonl_zipped(folder: Path, items: list[Item]) -> Path:
    write_pictures(folder, items)
    (folder / "items").write_bytes(gzip.compress(_json_text(items).encode()))
    return folder / "items"


def _tars(folder: Path, items: list[Item]) -> Path:
    (folder / "shards" / "deep").mkdir(parents=True)
    for name, part in (("0000.tar", items[:7]), ("deep/0001.tar", items[7:])):
        with tarfile.open(folder / "shards" / name, "w") as archive:
            for number, item in enumerate(part):
                # The same names in each shard.
                add_member(archive, f"{number:04d}.json", json.dumps(item.fields()).encode())
                add_member(archive, f"{number:04d}{Path(item.file).suffix}", item.picture)
                add_member(archive, f"{number:04d}.txt", f"{item.title}\n".encode())
                add_member(archive, f"{number:04d}.cls", f"{item.label}\n".encode())
    return folder / "shards"


def _tar_zipped(folder: Path, items: list[Item]) -> Path:
    with tarfile.open(folder / "items.tar.gz", "w:gz") as archive:
        for item in items:
            add_member(archive, f"./{item.file}", item.picture)
            add_member(archive, f"./photos/{item.id}.json", json.dumps(item.fields()).encode())
    return folder / "items.tar.gz"


def _labels(folder: Path, items: list[Item]) -> Path:
    """`SPLIT/LABEL/ID.jpg` and a caption beside it."""
    for item in items:
        place = folder / item.split / item.label / Path(item.file).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(item.picture)
        place.with_suffix(".txt").write_text(item.title)
    return folder


FORMS: dict[str, tuple[Callable[[Path, list[Item]], Path], dict[str, str]]] = {
    "parquet": (_parquet, {}),
    "spark": (_spark, {}),
    "hugging face": (_hugging_face, {}),
    "parquet with paths": (_parquet_paths, {}),
    "csv": (_csv, {}),
    "tsv.gz": (_tsv, {}),
    "jsonl": (_jsonl, {}),
    "jsonl.gz without suffix": (_jsonl_zipped, {}),
    "webdataset": (_tars, {"key_column": "id"}),
    "tar.gz": (_tar_zipped, {"key_column": "id"}),
    "folder per label": (_labels, {"key_column": "stem"}),
}
"""Form: what writes items into an empty folder and gives the source, and the knobs that name its columns."""
