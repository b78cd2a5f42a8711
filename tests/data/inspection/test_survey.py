"""The facts about a source against an independent computation from the same files."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tokenizers import Tokenizer

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.inspection import Distribution, inspect
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.data.tokenizer import count_words, train_tokenizer
from tests.data.inspection.bad_pictures import BAD
from tests.data.pictures import encoded, noise
from tests.prepared_sets import source_records, write_prepared

PICTURE = encoded(noise(20, 20))


def configured(**knobs: Any) -> PrepareConfig:
    return resolve_prepare_config(PrepareConfig.model_validate(knobs), 32)


def write(folder: Path, **columns: Any) -> str:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return str(folder)


def write_tokenizer(folder: Path, texts: list[str], size: int = 200) -> Tokenizer:
    folder.mkdir()
    for name, content in train_tokenizer(count_words(texts), size).files().items():
        (folder / name).write_bytes(content)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def counted(values: list[Any]) -> dict[Any, int]:
    return dict(Counter(values))


@pytest.mark.parametrize("name", ["fashion", "emoji", "fashion224"])
def test_facts_of_real_records_are_those_of_the_files(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "fixtures" / name
    if not folder.is_dir():
        pytest.skip(f"the real records are not here: no folder {name} in ../shared/data/fixtures")
    files = sorted(folder.glob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    tokenizer = write_tokenizer(tmp_path / "tokenizer", [row["text"] for row in rows[::2]])
    found = inspect(str(folder), configured(tokenizer=str(tmp_path / "tokenizer"), max_tokens=12))
    assert found.num_records == found.num_sampled == found.num_accepted == len(rows)
    assert (found.num_files, found.num_bytes) == (len(files), sum(path.stat().st_size for path in files))
    images = [Image.open(io.BytesIO(row["image"])) for row in rows]
    pictures = found.pictures
    assert pictures.kinds == counted([f"{image.format} {image.mode}" for image in images])
    assert pictures.sizes == counted([f"{row['width']} x {row['height']}" for row in rows])
    assert pictures.width == Distribution.of([row["width"] for row in rows])
    assert pictures.height == Distribution.of([row["height"] for row in rows])
    assert pictures.num_bytes == Distribution.of([len(row["image"]) for row in rows])
    assert pictures.num_extreme == pictures.num_enlarged == 0
    encodings = [tokenizer.encode(row["text"], add_special_tokens=False) for row in rows]
    texts = found.texts
    assert texts is not None
    assert texts.characters == Distribution.of([len(" ".join(row["text"].split())) for row in rows])
    assert texts.words == Distribution.of([len(set(encoding.word_ids)) for encoding in encodings])
    assert texts.tokens == Distribution.of([len(encoding.ids) + 2 for encoding in encodings])
    assert texts.num_cut_tokens == sum(len(encoding.ids) + 2 > 12 for encoding in encodings)
    unknown = sum(encoding.tokens.count("[UNK]") for encoding in encodings)
    assert texts.unknown_ratio == pytest.approx(unknown / sum(len(encoding.ids) for encoding in encodings))
    assert found.labels == counted([row["label"] for row in rows])
    assert found.splits == counted([row["split"] for row in rows])
    assert (found.num_repeated_keys, found.repeated_key) == (0, None)
    assert found.num_groups == len({row["group_id"] for row in rows}) and found.num_groups_across == 0


@pytest.mark.parametrize("name", ["fashion", "emoji"])
def test_a_sample_of_a_real_set_stands_for_all_of_it(shared_data: Path, name: str) -> None:
    rows = [row for path in sorted((shared_data / name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    found = inspect(str(shared_data / name), configured())
    assert (found.num_records, found.num_sampled) == (len(rows), 1_000)
    everything = counted([row["split"] for row in rows])
    for split, count in found.splits.items():
        assert found.scaled(count) == pytest.approx(everything[split], rel=0.25)
    assert found.texts is not None
    assert found.texts.characters.median == pytest.approx(np.median([len(row["text"]) for row in rows]), rel=0.1)
    # The expected count has a standard error of a tenth for a label of a tenth of the records.
    commonest, count = next(iter(found.labels.items()))
    assert found.scaled(count) == pytest.approx(counted([row["label"] for row in rows])[commonest], rel=0.35)


def test_the_vocabulary_of_the_sample_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    words = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}{'x' * (i % 5)}" for i in range(300)]
    texts = [f"{words[i]} {words[-i]} {words[i // 2]}" for i in range(300)]
    source = write(tmp_path / "in", image=[PICTURE] * 300, text=texts)
    small, large = (inspect(source, configured(vocabulary_size=size)).texts for size in (100, 1_000))
    assert small is not None and large is not None
    assert small.vocab_size == 100 and 100 < large.vocab_size <= 1_000
    assert small.tokens.median > large.tokens.median


def test_rejected_records_have_a_reason_and_an_example_each(tmp_path: Path) -> None:
    images = [PICTURE, *(image for image, _ in BAD.values()), PICTURE]
    texts = ["a"] * (len(images) - 1) + [" "]
    keys = [f"k{i}" for i in range(len(images))]
    source = write(tmp_path / "in", id=keys, image=pa.array(images, pa.binary()), text=texts)
    found = inspect(source, configured(), num_examples=60)
    expected = [reason for _, reason in BAD.values()] + ["empty_text"]
    assert found.reasons == counted(expected) and found.num_accepted == 1
    assert list(found.reasons.values()) == sorted(found.reasons.values(), reverse=True)
    for rejection in found.rejections:
        row = expected.index(rejection.reason) + 1
        assert (rejection.source, rejection.row, rejection.key) == ("a.parquet", row, f"k{row}")
        assert rejection.count == expected.count(rejection.reason) and rejection.detail
    assert [example.reason for example in found.rejected_examples] == sorted(
        expected, key=lambda reason: list(found.reasons).index(reason)
    )
    assert any("prepare would stop" in hint and "91 %" in hint for hint in found.hints)


def test_rare_reasons_are_among_the_examples(tmp_path: Path) -> None:
    images = [b"<html>"] * 200 + [PICTURE] * 3
    source = write(tmp_path / "in", image=images, text=["t"] * 200 + [" "] * 3)
    found = inspect(source, configured(), num_examples=10)
    shown = counted([example.reason for example in found.rejected_examples])
    assert shown == {"unreadable_picture": 7, "empty_text": 3}


def test_a_source_without_one_good_record_is_shown(tmp_path: Path) -> None:
    source = write(tmp_path / "in", image=["none.png"] * 5, text=["t"] * 5)
    found = inspect(source, configured(), num_examples=60)
    assert (found.num_sampled, found.num_accepted, found.reasons) == (5, 0, {"missing_picture": 5})
    assert found.texts is None and found.estimate is None and found.accepted_examples == ()
    assert found.pictures.kinds == {"no picture": 5} and found.pictures.width is None
    assert "no record of the sample would be accepted" in found.hints[0] and "--image-folder" in found.hints[0]


def test_repeated_keys_and_groups_in_several_splits_are_found(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in",
        id=["a", "b", "a", "c", "a", "d"],
        image=[PICTURE] * 5 + [b""],
        text=["t"] * 6,
        group_id=["g", "g", "h", "h", None, "g"],
        split=["train", "val", "train", "train", "test", "test"],
    )
    found = inspect(source, configured())
    assert (found.num_repeated_keys, found.repeated_key) == (2, "a")
    assert (found.num_groups, found.num_groups_across) == (2, 1)
    assert any(hint.startswith("2 of 5 keys of the sample occur again (a)") for hint in found.hints)
    assert any(hint.startswith("1 of 2 groups of the sample have records in several splits") for hint in found.hints)


def hint_of(source: str, flag: str, **knobs: Any) -> str:
    (hint,) = (hint for hint in inspect(source, configured(**knobs)).hints if flag in hint)
    return hint


def test_each_hint_names_the_flag_that_mends_it(tmp_path: Path) -> None:
    wide = encoded(noise(60, 10))
    long = " ".join(["word"] * 30)
    columns = {"image": [PICTURE, PICTURE, PICTURE, wide], "text": ["t", "t", "t", long]}
    source = write(tmp_path / "in", **columns)
    assert hint_of(source, "--max-tokens").startswith("25 % of the texts have more than 24 pieces")
    assert "25 % of the pictures are more than 4 times" in hint_of(source, "--fit") and "60 x 10" in hint_of(
        source, "--fit"
    )
    assert not any("--fit" in hint for hint in inspect(source, configured(fit="crop")).hints)
    assert hint_of(source, "--image-size").startswith("75 % of the pictures are smaller than 32 x 32")
    assert "no key column" in hint_of(source, "--key-column")
    assert "no label column" in hint_of(source, "--label-column")
    assert "25 % of the texts have more than 20 characters" in hint_of(
        source, "--max-text-characters", max_text_characters=20
    )
    held_out = write(tmp_path / "held_out", **columns, split=["val"] * 4)
    assert "no accepted record of the sample is in split train" in hint_of(held_out, "--split-column")
    linked = write(tmp_path / "linked", image=["https://x.org/a.jpg", "a.png"], text=["t", "t"])
    assert "URLs" in hint_of(linked, "img2dataset")
    write_tokenizer(tmp_path / "tokenizer", ["abc"])
    assert "unknown to the vocabulary" in hint_of(source, "--tokenizer", tokenizer=str(tmp_path / "tokenizer"))
    sound = {"id": ["1", "2"], "image": [encoded(noise(40, 40))] * 2, "text": ["t"] * 2, "label": ["l"] * 2}
    assert inspect(write(tmp_path / "sound", **sound, split=["train", "val"]), configured()).hints == ()


def test_a_table_counts_its_pictures_as_files(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(3):
        (tmp_path / "p" / f"{number}.png").write_bytes(PICTURE)
    (tmp_path / "items.csv").write_text("image,title\n" + "".join(f"p/{i}.png,item {i}\n" for i in range(3)))
    found = inspect(str(tmp_path), configured())
    assert (found.num_files, found.num_accepted) == (4, 3)
    assert found.num_bytes == 3 * len(PICTURE) + (tmp_path / "items.csv").stat().st_size


def test_a_prepared_set_shows_what_its_manifest_says(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, source_records(150))
    found = inspect(prepared.path, configured())
    assert (found.format, found.num_records, found.num_accepted) == ("prepared set", 150, 150)
    assert found.prepared is not None
    shards = prepared.manifest.splits["train"].shards
    assert found.prepared["counts"]["accepted"] == 150 and found.prepared["image"] == {"size": 8, "encoding": "raw"}
    assert found.prepared["splits"]["train"] == {
        "num_records": 150,
        "shards": {"count": len(shards), "num_bytes": sum(shard.num_bytes for shard in shards)},
    }
    # Raw stored pictures have no encoding to measure.
    assert found.pictures.kinds == {"decoded RGB": 150} and found.pictures.num_bytes is None
    assert json.loads(json.dumps(found.as_json()))["prepared"]["counts"]["read"] == 150


def test_the_estimated_disk_is_that_of_a_real_set(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, source_records(3_000))
    found = inspect(prepared.path, configured(image_size=8))
    assert found.estimate is not None and found.estimate.num_accepted == 3_000
    on_disk = sum(path.stat().st_size for path in Path(prepared.path).rglob("*") if path.is_file())
    assert found.estimate.set_bytes - 300_000 == pytest.approx(on_disk, rel=0.3)
    assert found.estimate.peak_bytes > 1.8 * on_disk


def test_the_estimate_scales_with_the_accepted_records(tmp_path: Path) -> None:
    images = [PICTURE, b""] * 500
    source = write(tmp_path / "in", image=images, text=["a text"] * 1_000)
    found = inspect(source, configured(), num_sampled=100)
    expected = found.estimate
    assert expected is not None and expected.num_accepted == round(1_000 * found.num_accepted / 100)
    assert expected.num_accepted == pytest.approx(500, rel=0.1)
    assert expected.set_bytes > 500 * 32 * 32 * 3 and expected.peak_bytes > 2 * 500 * 32 * 32 * 3
    per_record = expected.read_s + expected.clean_s
    assert expected.seconds > expected.start_s + 1_000 * per_record / expected.num_cpus


def test_progress_ends_at_the_size_of_the_sample() -> None:
    told: list[tuple[int, int]] = []
    inspect("generated:5000", configured(), 300, on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (300, 300) and {total for _, total in told} == {300}


def test_the_same_source_gives_the_same_facts() -> None:
    first, second = (inspect("generated:3000", configured(), 200, num_examples=5).as_json() for _ in range(2))
    for facts in (first, second):
        for name in ("read_s", "clean_s", "seconds"):
            del facts["estimate"][name]
    assert first == second


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="a sample of 0 records; expected a whole number above 0"):
        inspect("generated:10", configured(), 0)
