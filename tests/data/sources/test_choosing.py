import json
import tarfile
from pathlib import Path

import pytest

from mlim_ray.data.sources import open_source
from mlim_ray.data.sources.forms import Form, form_of
from mlim_ray.data.sources.listing import suffix_of
from tests.data.pictures import encoded, noise
from tests.data.source_forms import FORMS, add_member, some_items, write_pictures
from tests.data.sources.reading import configured, opened, records_of


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *(("a.JPG", ".jpg"), ("x/part-0.c000.snappy.parquet", ".parquet"), ("a.csv.gz", ".csv.gz"), ("a.tgz", ".tgz")),
        *(("a", ""), ("part.0001", ""), ("x.y/part-0", ""), ("a.", ""), ("a b.tar", ".tar"), ("a.jp\u00e9g", "")),
    ],
)
def test_suffixes(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


@pytest.mark.parametrize(
    ("suffix", "head", "form", "certain"),
    [
        (".bin", b"PAR1....", Form.PARQUET, True),
        (".csv", b"PAR1....", Form.PARQUET, True),
        (".parquet", b"image,title\n", Form.PARQUET, True),
        ("", b'{"a": 1}\n', Form.JSONL, True),
        (".csv", b'{"a": 1}\n{', Form.JSONL, True),
        (".json", b'{"a": 1}\n', Form.JSONL, False),
        (".json", b"[\n", Form.JSONL, False),
        ("", b"{\n", None, False),
        ("", b"{" + b'"a": "' + b"x" * 9_000, Form.JSONL, True),
        (".txt", b"image,title\na,b\n", Form.CSV, False),
        ("", b"image\ttitle\n", Form.CSV, False),
        ("", b"words only\n", None, False),
        ("", b"\0" * 1_024, None, False),
        (".tar", b"\0" * 1_024, Form.WEBDATASET, True),
        (".csv", b"", Form.CSV, True),
        (".dat", encoded(noise(8, 8)), Form.FOLDER, True),
        ("", encoded(noise(8, 8), "WEBP"), Form.FOLDER, True),
    ],
)
def test_content_is_stronger_than_a_suffix(suffix: str, head: bytes, form: Form | None, certain: bool) -> None:
    assert form_of(suffix, head) == (form, certain)


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "webdataset"])
def test_files_without_their_suffix_are_recognised(form: str, tmp_path: Path) -> None:
    write, knobs = FORMS[form]
    items = some_items()
    write(tmp_path, items)
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".parquet", ".csv", ".jsonl", ".tar")]
    for file in files:
        file.rename(file.with_name(f"{file.stem}-of-2"))
    expected = len(items)
    if form == "csv":
        # Beside pictures a text file may be anything, so this one has to be named.
        assert opened(tmp_path, **knobs).format == "folder per label"
        assert len(records_of(opened(tmp_path, format="csv", **knobs))) == expected
        assert len(records_of(opened(tmp_path / "items-of-2", **knobs))) == expected
    else:
        assert len(records_of(opened(tmp_path if len(files) > 1 else files[0].parent, **knobs))) == expected


def test_mixtures_are_refused_and_a_form_can_be_named(tmp_path: Path) -> None:
    items = some_items()
    for form in ("parquet", "csv", "jsonl"):
        (tmp_path / form).mkdir()
        FORMS[form][0](tmp_path / form, items)
    with pytest.raises(
        ValueError, match=r"holds 1 Parquet file \(.parquet\) and 1 CSV or TSV file \(.csv\) and 1 JSON Lines file"
    ) as error:
        opened(tmp_path)
    assert "--format parquet or --format csv or --format jsonl" in str(error.value) and "\n" not in str(error.value)
    for form in ("parquet", "csv", "jsonl"):
        assert len(records_of(opened(tmp_path, format=form))) == 12
    with pytest.raises(ValueError, match=r"--format webdataset: no tar file in .*, which holds .*24 picture files"):
        opened(tmp_path, format="webdataset")


def test_shards_beside_pictures_are_a_mixture(tmp_path: Path) -> None:
    write_pictures(tmp_path, some_items(2))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add_member(archive, "1.png", encoded(noise()))
        add_member(archive, "1.txt", b"words")
    with pytest.raises(ValueError, match=r"1 tar file \(.tar\) and 2 picture files \(.png\)"):
        opened(tmp_path)
    assert len(records_of(opened(tmp_path, format="webdataset"))) == 1
    assert len(records_of(opened(tmp_path, format="folder"))) == 2


def test_side_files_do_no_harm(tmp_path: Path) -> None:
    FORMS["parquet"][0](tmp_path, some_items())
    (tmp_path / "README.md").write_text("# A set, of shirts\n")
    (tmp_path / "LICENSE").write_text("Copyright, all rights reserved\n")
    (tmp_path / "dataset_infos.json").write_text(json.dumps({"default": {"features": {}}}))
    (tmp_path / "logo.png").write_bytes(encoded(noise()))
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "empty").mkdir()
    assert len(records_of(opened(tmp_path))) == 12


def test_a_wrong_format_is_refused_for_what_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--format csv given for generated:10, which is a generated catalogue"):
        open_source("generated:10", configured(format="csv"))
    (tmp_path / "items.csv").write_text("image,title\na.png,words\n")
    with pytest.raises(ValueError, match="--format jsonl: no JSON Lines file in .*items.csv, which holds 1 CSV or TSV"):
        opened(tmp_path / "items.csv", format="jsonl")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="--format parquet given for .*, which is a prepared set"):
        opened(tmp_path / "set", format="parquet")


def test_duplicated_columns(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("image,title,title,name\na.png,one,two,three\n")
    assert records_of(opened(tmp_path))[0].text == b"three"
    for knobs in ({"text_column": "title"}, {"text": "{title} {name}"}):
        with pytest.raises(ValueError, match="several columns have this name"):
            opened(tmp_path, **knobs)


@pytest.mark.parametrize("name", ["items.csv", "items.tsv"])
def test_a_header_alone_holds_no_records(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("image\ttitle\n")
    with pytest.raises(ValueError, match="holds no records"):
        opened(tmp_path)


def test_only_urls_are_refused_in_every_table(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"image_url": ["http://example.org/a.jpg", None, "HTTPS://example.org/b.jpg"], "title": ["a", "b", "c"]}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="img2dataset"):
        opened(tmp_path)
    (tmp_path / "items.parquet").unlink()
    (tmp_path / "items.csv").write_text("image_url,title\nhttp://example.org/a.jpg,a\n")
    with pytest.raises(ValueError, match="img2dataset"):
        opened(tmp_path)


def test_a_generated_catalogue_takes_a_template() -> None:
    source = open_source("generated:40", configured(text="{colour} {label} by {brand}"))
    assert all(" by " in str(record.text) for record in records_of(source))
