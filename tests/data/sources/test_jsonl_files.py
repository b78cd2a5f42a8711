import gzip
import json
from pathlib import Path

import pytest

from mlim_ray.data.sources import limit_slices
from mlim_ray.data.sources.lines import MAX_LINE_BYTES
from mlim_ray.data.sources.source import SLICE_RECORDS
from tests.data.pictures import encoded, noise
from tests.data.sources.reading import cleaned, opened, reasons, records_of

PICTURE = encoded(noise(16, 16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(PICTURE)
    return tmp_path


@pytest.mark.parametrize("zipped", [False, True])
def test_slices_begin_at_the_right_lines(folder: Path, zipped: bool) -> None:
    lines = [json.dumps({"image": "a.png", "title": f"row {i} " + "x" * (i % 50)}) for i in range(2_500)]
    lines[7] += "\n\n  \r"
    content = ("\ufeff" + "\n".join(lines)).encode()
    (folder / "items.jsonl").write_bytes(gzip.compress(content) if zipped else content)
    source = opened(folder)
    parts = source.slices()
    assert all(part.stop - part.start <= SLICE_RECORDS for part in parts) and len(parts) == 3
    records = records_of(source)
    assert [record.row for record in records] == list(range(2_500))
    assert all(str(record.text).startswith(f"row {record.row} ") for record in records)
    finer = [record for part in limit_slices(parts, 400) for batch in source.read(part) for record in batch]
    assert finer == records


def test_hostile_lines_end_in_the_quarantine(folder: Path) -> None:
    lines = {
        b'{"image": "a.png", "title": "good", "id": 1, "label": 0}': None,
        b'{"title": "no picture", "id": 2}': "missing_picture",
        b'{"image": null, "title": "null", "id": 3}': "missing_picture",
        b'{"image": "a.png", "id": 4}': "empty_text",
        b'{"image": "a.png", "title": "no key"}': "null_key",
        b'{"image": "a.png", "title": "broken"': "malformed_row",
        b"null": "malformed_row",
        b"[1]": "malformed_row",
        b'"text"': "malformed_row",
        b"{}": "malformed_row",
        b'{"other": 1}': "malformed_row",
        b"\x00": "malformed_row",
        b'{"a":' * 100_000: "malformed_row",
        b'{"id": ' + b"9" * 5_000 + b"}": "malformed_row",
        b'{"image": "a.png", "title": ["list"], "id": 5}': "malformed_row",
        b'{"image": {"path": "a.png"}, "title": "nested", "id": 6}': "malformed_row",
        b'{"image": "a.png", "title": "caf\xe9", "id": 7}': "invalid_utf8",
        b'{"image": "a.png", "title": "half \\ud800", "id": 8}': "invalid_utf8",
        b'{"image": "caf\xe9.png", "title": "words", "id": 9}': "invalid_utf8",
        b'{"image": "../a.png", "title": "out", "id": 10}': "path_outside_folder",
        b'{"image": "https://example.org/a.png", "title": "url", "id": 11}': "path_outside_folder",
        b'{"image": "a.png", "title": NaN, "id": 12}': "empty_text",
        b'{"image": "a.png", "title": "' + b"x" * MAX_LINE_BYTES + b'", "id": 13}': "malformed_row",
        b'{"image": "a.png", "title": 12.5, "id": "text", "label": true}': None,
        b'{"image": "a.png", "title": "once", "title": "twice", "id": 14.5}': None,
    }
    (folder / "items.jsonl").write_bytes(b"\n".join(lines))
    source = opened(folder, label_column="label")
    found = reasons(source)
    assert [found.get(("items.jsonl", row)) for row in range(len(lines))] == list(lines.values())
    long = list(lines).index(max(lines, key=len))
    details = {record.row: record.detail for record in cleaned(source).rejected}
    assert details[long] == f"more than {MAX_LINE_BYTES} bytes of JSON" and max(map(len, details.values())) <= 300
    accepted = [(record.key, record.text, record.label) for record in cleaned(source).accepted]
    assert accepted == [("1", "good", "0"), ("text", "12.5", "true"), ("14.5", "twice", None)]


def test_urls_alone_are_refused_with_the_tool_that_fetches_them(folder: Path) -> None:
    lines = [json.dumps({"url": f"https://example.org/{i}.jpg", "title": "words"}) for i in range(20)]
    (folder / "items.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"are URLs \(column url: https://example.org/0.jpg\).*img2dataset"):
        opened(folder)
    (folder / "items.jsonl").write_text("\n".join([*lines[:5], json.dumps({"url": "a.png", "title": "words"})]))
    found = cleaned(opened(folder))
    assert len(found.accepted) == 1
    assert all("URLs are not downloaded" in r.detail and "img2dataset" in r.detail for r in found.rejected)


def test_a_file_without_objects_is_refused(folder: Path) -> None:
    for content in ('[\n{"image": "a.png"},\n{"image": "b.png"},\n]', "one\ntwo", "[]"):
        (folder / "items.jsonl").write_text(content)
        with pytest.raises(ValueError, match=r"items.jsonl is a JSON object; expected JSON Lines"):
            opened(folder)
    (folder / "items.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no records"):
        opened(folder)


def test_a_cut_gzip_file_is_named(folder: Path) -> None:
    content = gzip.compress(b'{"image": "a.png", "title": "words"}\n' * 1_000)
    for part in (content[:-20], content[:-4], content[:60]):
        (folder / "items.jsonl.gz").write_bytes(part)
        with pytest.raises(ValueError, match="items.jsonl.gz is damaged"):
            opened(folder)
