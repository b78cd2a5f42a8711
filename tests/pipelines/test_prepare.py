import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.shuffle import Shuffle
from mlim_ray.data.sources import open_source, resolve_prepare_config
from mlim_ray.data.summary import PrepareSummary
from mlim_ray.pipelines.ordered_map import map_in_order
from mlim_ray.pipelines.preparation import TooManyRejected
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.pipelines.prepare_tasks import CleanSlice, Regroup
from tests.data.hostile import HOSTILE_COLUMNS, write_hostile_parquet
from tests.data.pictures import encoded, noise
from tests.data.rejected import rejected_pictures

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def configured(size: int = 16, **knobs: Any) -> PrepareConfig:
    return resolve_prepare_config(PrepareConfig(**{"vocabulary_size": 200, **knobs}), size)


def write_source(path: Path, num_rows: int, bad: dict[int, dict[str, Any]] | None = None, first: int = 0) -> Path:
    """A Parquet file of good records, some of them changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [encoded(noise(20, 20, seed)) for seed in range(7)]
    rows = [
        {
            "id": f"k{i}",
            "image": pictures[i % 7],
            "text": f"shirt number {i}",
            "label": f"label {i % 3}",
            "split": ("train", "train", "train", "val", "test")[i % 5],
        }
        | (bad or {}).get(i - first, {})
        for i in range(first, first + num_rows)
    ]
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.binary()),
            ("text", pa.string()),
            ("label", pa.string()),
            ("split", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=500)
    return path


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def quarantine(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "quarantine").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def check_accounts(summary: PrepareSummary) -> None:
    """C4, from what was written."""
    prepared = PreparedSet.open(summary.out)
    rows = quarantine(Path(summary.out))
    accepted = [key for split in ("train", "val", "test") for key in prepared.read(split, ["key"])["key"].to_pylist()]
    assert len(accepted) == len(set(accepted)) == summary.accepted
    assert len(rows) == summary.rejected + summary.duplicates
    assert summary.read == summary.accepted + summary.rejected + summary.duplicates
    assert Counter(row["reason"] for row in rows) == summary.reasons
    assert sum(row["stage"] == "deduplicate" for row in rows) == summary.duplicates
    places = [(row["source"], row["row"]) for row in rows]
    assert len(set(places)) == len(places)


def hash_chain(length: int) -> bytes:
    """Work that takes its time."""
    digest = b""
    for _ in range(length):
        digest = hashlib.sha256(digest).digest()
    return digest


def hash_without_end() -> None:
    while True:
        hash_chain(1_000)


def test_hostile_records_end_in_the_quarantine_with_their_reason(tmp_path: Path) -> None:
    faults = [({"image": image}, reason) for image, reason in rejected_pictures().values()]
    faults += [({"text": text}, "empty_text") for text in (None, "", "\x00")]
    faults += [
        ({"id": None}, "null_key"),
        ({"split": "holdout"}, "unknown_split"),
        ({"split": None}, "unknown_split"),
    ]
    bad = {7 * i: change for i, (change, _) in enumerate(faults)}
    bad[5] = {"text": "word " * 200_000}
    source = write_source(tmp_path / "a.parquet", 700, bad)
    summary = prepare(str(source), str(tmp_path / "out"), configured(max_rejected_ratio=0.5))
    check_accounts(summary)
    assert (summary.read, summary.rejected, summary.cut_texts) == (700, len(faults), 1)
    found = {row["row"]: row["reason"] for row in quarantine(tmp_path / "out")}
    assert found == {7 * i: reason for i, (_, reason) in enumerate(faults)}
    assert all(row["source"] == "a.parquet" and row["detail"] for row in quarantine(tmp_path / "out"))


def test_all_hostile_records_have_the_end_that_is_documented(tmp_path: Path) -> None:
    reasons = write_hostile_parquet(tmp_path / "a.parquet")
    config = configured(max_rejected_ratio=1.0, **HOSTILE_COLUMNS)
    summary = prepare(str(tmp_path / "a.parquet"), str(tmp_path / "out"), config, keep_rejected=True)
    check_accounts(summary)
    found = {row["row"]: row["reason"] for row in quarantine(tmp_path / "out")}
    assert found == {row: reason.value for row, reason in reasons.items() if reason is not None}
    assert len(found) > 80 and summary.accepted == sum(reason is None for reason in reasons.values())
    raw = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for row in quarantine(tmp_path / "out"):
        assert row["image"] == raw[row["row"]]["image"] and row["text"] == raw[row["row"]]["title"]


def test_the_first_record_of_a_key_wins_and_other_splits_are_said(tmp_path: Path) -> None:
    write_source(tmp_path / "in" / "a.parquet", 1_200)
    write_source(tmp_path / "in" / "b.parquet", 10, {0: {"split": "test", "text": "other"}, 1: {"text": "other"}})
    summary = prepare(str(tmp_path / "in"), str(tmp_path / "out"), configured())
    check_accounts(summary)
    assert (summary.accepted, summary.rejected, summary.duplicates) == (1_200, 0, 10)
    assert all(row["source"] == "b.parquet" for row in quarantine(tmp_path / "out"))
    details = {row["key"]: row["detail"] for row in quarantine(tmp_path / "out")}
    assert "split train, this one in split test" in details["k0"] and "row 0 of a.parquet" in details["k0"]
    assert "split" not in details["k1"]
    texts = PreparedSet.open(summary.out).read("train", ["key", "text"]).to_pylist()
    assert {"key": "k0", "text": "shirt number 0"} in texts


def test_the_set_is_the_same_whatever_the_order_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {i: {"image": b"x"} for i in range(0, 6_000, 97)} | {50: {"id": "k7"}}
    source = str(write_source(tmp_path / "a.parquet", 6_000, bad))
    # Other work on the machine changes which task runs when, and with what.
    busy = ray.remote(num_cpus=1)(hash_without_end).options(max_retries=0).remote()
    first = prepare(source, str(tmp_path / "one"), configured())
    ray.cancel(busy, force=True)
    second = prepare(source, str(tmp_path / "two"), configured())
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    # Nor does it matter by way of how many files the records went.
    monkeypatch.setattr("mlim_ray.data.shuffle.ENOUGH_CELLS", 0)
    prepare(source, str(tmp_path / "three"), configured())
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert first.accepted == second.accepted and first.duplicates == 1
    check_accounts(first)
    hashes = PreparedSet.open(first.out).read("train", ["key_hash"])["key_hash"].to_numpy()
    num_in_order = 64 * (len(hashes) // 64)
    assert len(PreparedSet.open(first.out).manifest.splits["train"].shards) > 2
    assert (np.diff(hashes[: num_in_order - 300].astype(np.float64)) > 0).mean() > 0.99


def test_stored_pictures_equal_an_independent_decode(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "fixtures" / "fashion"
    summary = prepare(str(source), str(tmp_path / "out"), configured(32))
    assert (summary.read, summary.accepted) == (64, 64)
    stored = {
        row["key"]: np.frombuffer(row["image"], np.uint8).reshape(32, 32, 3)
        for split in summary.splits
        for row in PreparedSet.open(summary.out).read(split, ["key", "image"]).to_pylist()
    }
    raw = pq.read_table(source).to_pylist()
    assert len(raw) == len(stored)
    for row in raw:
        image = Image.open(io.BytesIO(row["image"])).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(stored[row["id"]], np.asarray(image))


@pytest.mark.parametrize(("name", "counts"), [("fashion", (9_412, 1_170, 1_201)), ("emoji", (3_032, 391, 323))])
def test_real_sets_are_prepared_whole(shared_data: Path, tmp_path: Path, name: str, counts: tuple[int, ...]) -> None:
    done: list[tuple[int, int]] = []
    config = configured(32, vocabulary_size=3_000)
    summary = prepare(
        str(shared_data / name), str(tmp_path / "out"), config, on_progress=lambda *step: done.append(step)
    )
    assert tuple(summary.splits.values()) == counts
    assert summary.rejected == summary.duplicates == 0
    assert done[-1] == (sum(counts), sum(counts)) and done == sorted(done)
    prepared = PreparedSet.open(summary.out)
    prepared.verify()
    ids = prepared.read("test", ["token_ids"])["token_ids"].to_pylist()
    assert sum(row.count(prepared.tokenizer().unk_id) for row in ids) <= 2


def test_a_generated_catalogue_and_a_set_of_a_set(tmp_path: Path) -> None:
    first = prepare("generated:900", str(tmp_path / "one"), configured(16))
    check_accounts(first)
    assert first.accepted == 900
    manifest = PreparedSet.open(first.out).manifest
    assert manifest.generated is not None and manifest.generated.num_records == 900
    second = prepare(first.out, str(tmp_path / "two"), configured(16))
    for split in ("train", "val", "test"):
        columns = ["key", "image", "text", "label", "group"]
        one, two = (PreparedSet.open(s.out).read(split, columns).sort_by("key") for s in (first, second))
        assert one.equals(two)
    assert PreparedSet.open(second.out).manifest.generated == manifest.generated


def test_pictures_above_64_pixels_are_stored_as_jpeg(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 100)
    summary = prepare(str(source), str(tmp_path / "out"), configured(80))
    prepared = PreparedSet.open(summary.out)
    assert prepared.manifest.image.encoding == "jpeg" and prepared.row_groups("train") == (16, 16, 16, 12)
    image = Image.open(io.BytesIO(prepared.read("val", ["image"])["image"][0].as_py()))
    assert image.format == "JPEG" and image.size == (80, 80)


def test_the_same_again_is_already_prepared(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 60)
    out = str(tmp_path / "out")
    first = prepare(str(source), out, configured())
    before = contents(tmp_path / "out")
    again = prepare(str(source), out, configured())
    assert (first.already_prepared, again.already_prepared) == (False, True)
    assert again.accepted == first.accepted and contents(tmp_path / "out") == before
    with pytest.raises(ValueError, match="--overwrite"):
        prepare(str(source), out, configured(24))
    assert contents(tmp_path / "out") == before
    replaced = prepare(str(source), out, configured(24), overwrite=True)
    assert not replaced.already_prepared and PreparedSet.open(out).manifest.image.size == 24
    write_source(source, 70)
    with pytest.raises(ValueError, match="other files than the source has now"):
        prepare(str(source), out, configured(24))


def test_too_many_rejected_stops_without_a_set_and_keeps_the_quarantine(tmp_path: Path) -> None:
    bad = {i: {"image": b""} for i in range(0, 20_000, 5)}
    source = write_source(tmp_path / "a.parquet", 20_000, bad)
    with pytest.raises(TooManyRejected, match=r"missing_picture .* --max-rejected-ratio") as caught:
        prepare(str(source), str(tmp_path / "out"), configured())
    # Judged after the first 1,000 records, not at the end.
    assert 1_000 <= caught.value.read < 20_000
    assert caught.value.reasons == {"missing_picture": caught.value.rejected}
    assert len(quarantine(tmp_path / "out")) == caught.value.rejected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quarantine"]
    allowed = prepare(str(source), str(tmp_path / "out"), configured(max_rejected_ratio=0.2))
    check_accounts(allowed)


def test_few_records_are_judged_at_the_end(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 100, {i: {"text": ""} for i in range(6)})
    with pytest.raises(TooManyRejected, match="6 of the first 100"):
        prepare(str(source), str(tmp_path / "out"), configured())


def test_duplicates_do_not_count_as_rejected(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 100, {i: {"id": "k99"} for i in range(30)})
    summary = prepare(str(source), str(tmp_path / "out"), configured(max_rejected_ratio=0.0))
    check_accounts(summary)
    assert (summary.accepted, summary.duplicates) == (70, 30)


def test_no_accepted_and_no_training_records_are_errors(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 20, {i: {"image": b""} for i in range(20)})
    with pytest.raises(ValueError, match="none of the 20 records"):
        prepare(str(source), str(tmp_path / "one"), configured(max_rejected_ratio=1.0))
    assert len(quarantine(tmp_path / "one")) == 20
    source = write_source(tmp_path / "b.parquet", 20, {i: {"split": "val"} for i in range(20)})
    with pytest.raises(ValueError, match="no accepted records in split train"):
        prepare(str(source), str(tmp_path / "two"), configured())
    assert not (tmp_path / "two" / "manifest.json").exists()


def test_other_files_are_never_touched(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 20)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds other files"):
            prepare(str(source), str(other), configured(), overwrite=overwrite)
    assert contents(other).keys() == {"thesis.txt"}
    with pytest.raises(ValueError, match="inside each other"):
        prepare(str(tmp_path), str(tmp_path / "out"), configured(), overwrite=True)


def test_leftovers_of_a_killed_run_are_replaced(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 60)
    reference = prepare(str(source), str(tmp_path / "one"), configured())
    for name in (
        ".staging/slice-000009.arrow",
        "shards/train-00007.parquet",
        "quarantine/clean-00000.parquet",
    ):
        path = tmp_path / "two" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"left over")
    prepare(str(source), str(tmp_path / "two"), configured())
    assert contents(tmp_path / "two") == contents(Path(reference.out))


@pytest.mark.parametrize(
    "damaged",
    ["slice-000000.cells", "slice-000000.json", "group-00000-range-00000.cells", "piece-00000000.json"],
)
@pytest.mark.parametrize("left", [None, 0, 40, "zeros"])
def test_what_a_power_cut_has_damaged_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str, left: int | str | None
) -> None:
    config = configured()
    source = open_source(str(write_source(tmp_path / "a.parquet", 60)), config)
    rules = CleaningRules.of(config, has_split=True)
    staging = tmp_path / "staging"
    monkeypatch.setattr("mlim_ray.data.shuffle.ENOUGH_CELLS", 2)
    shuffle = Shuffle.plan(str(staging), 1, 3)
    assert shuffle.num_pieces == 2
    clean = CleanSlice(source, source.slices(), rules, shuffle, keeps_rejected=False, counts_words=True)
    work = clean if damaged.startswith("slice") else Regroup(shuffle)
    clean(0)
    result, before = work(0), contents(staging)
    content = (staging / damaged).read_bytes()
    (staging / damaged).unlink()
    if left is not None:
        (staging / damaged).write_bytes(content[:left] if isinstance(left, int) else bytes(len(content)))
    assert (work(0), contents(staging)) == (result, before)


def test_what_is_whole_is_not_made_again(tmp_path: Path) -> None:
    config = configured()
    path = write_source(tmp_path / "a.parquet", 60)
    source = open_source(str(path), config)
    rules = CleaningRules.of(config, has_split=True)
    shuffle = Shuffle.plan(str(tmp_path / "staging"), 1, 3)
    work = CleanSlice(source, source.slices(), rules, shuffle, keeps_rejected=False, counts_words=True)
    result = work(0)
    path.unlink()
    assert work(0) == result


def test_a_given_tokenizer_is_used_and_part_of_the_fingerprint(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 60)
    first = prepare(str(source), str(tmp_path / "one"), configured())
    config = configured(tokenizer=str(tmp_path / "one" / "tokenizer"))
    second = prepare(str(source), str(tmp_path / "two"), config)
    # The trained vocabulary given back makes the same set, whatever folder it was given from.
    assert contents(tmp_path / "one" / "shards") == contents(tmp_path / "two" / "shards")
    assert PreparedSet.open(second.out).manifest == PreparedSet.open(first.out).manifest
    other = prepare("generated:300", str(tmp_path / "other"), configured())
    config = configured(tokenizer=str(Path(other.out) / "tokenizer"))
    third = prepare(str(source), str(tmp_path / "three"), config)
    assert PreparedSet.open(third.out).tokenizer().files() == PreparedSet.open(other.out).tokenizer().files()
    assert PreparedSet.open(third.out).manifest.fingerprint != PreparedSet.open(first.out).manifest.fingerprint


def test_damage_inside_a_source_is_one_plain_error(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 400)
    content = bytearray(source.read_bytes())
    content[2_000:6_000] = bytes(4_000)
    source.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.parquet is damaged") as caught:
        prepare(str(source), str(tmp_path / "out"), configured())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / ".staging").exists()


def test_results_of_the_map_keep_their_order() -> None:
    def slow_at_first(number: int) -> str:
        hash_chain(2_000_000 if number == 0 else 0)
        return str(number)

    assert list(map_in_order(slow_at_first, 12)) == [str(number) for number in range(12)]


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", 60)
    prepare(str(source), str(tmp_path / "out"), configured())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["format"] == "mlim_ray prepared set" and manifest["version"] == 3
    assert manifest["columns"] == {
        "image": "image",
        "text": "text",
        "key": "id",
        "label": "label",
        "split": "split",
    }
    assert manifest["image"] == {"size": 16, "encoding": "raw"} and manifest["row_group_records"] == 64
