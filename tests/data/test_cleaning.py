from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import MAX_NAME_CHARACTERS, CleaningRules, RawRecord, clean
from mlim_ray.data.images import MAX_ENCODED_BYTES, ImageRules
from mlim_ray.data.rejection import MAX_DETAIL_CHARACTERS, Problem, Reason, Stage
from mlim_ray.data.sources import open_source, resolve_prepare_config
from tests.data.hostile import HOSTILE_COLUMNS, hostile_records, write_hostile_parquet
from tests.data.pictures import encoded, noise

CONFIG = resolve_prepare_config(PrepareConfig(max_text_characters=50), 16)
RULES = CleaningRules.of(CONFIG, has_split=True)
GOOD: dict[str, Any] = {
    "source": "a.parquet",
    "row": 3,
    "key": "k1",
    "image": encoded(noise()),
    "text": "A red shirt",
    "label": "shirt",
    "group": "g1",
    "split": "train",
}


def test_a_good_record_goes_on() -> None:
    cleaned = clean([RawRecord(**GOOD)], RULES)
    (record,) = cleaned.accepted
    assert cleaned.rejected == []
    assert (record.key, record.text, record.label, record.group, record.split) == (
        "k1",
        "A red shirt",
        "shirt",
        "g1",
        "train",
    )
    pixels = np.frombuffer(record.image, np.uint8).reshape(-1, 3).astype(np.int64)
    assert record.pixel_sums.tolist() == [*pixels.sum(0), *(pixels**2).sum(0)]


HOSTILE = hostile_records()


@pytest.mark.parametrize("name", HOSTILE)
def test_every_hostile_record_ends_as_documented(name: str) -> None:
    record = HOSTILE[name].record("k1", row=3)
    cleaned = clean([record], RULES)
    if HOSTILE[name].reason is None:
        assert cleaned.rejected == [] and len(cleaned.accepted) == 1
        return
    (rejected,) = cleaned.rejected
    assert cleaned.accepted == []
    assert rejected.reason is HOSTILE[name].reason and rejected.detail, rejected.detail
    assert (rejected.source, rejected.row) == ("hostile", 3)
    assert len(rejected.detail) <= MAX_DETAIL_CHARACTERS and rejected.detail.isprintable()
    assert rejected.key is None or len(rejected.key) <= MAX_NAME_CHARACTERS
    from_source = isinstance(record.image, Problem) or record.problem is not None
    assert rejected.stage is (Stage.READ if from_source else Stage.CLEAN)


def test_hostile_records_of_a_parquet_file_end_the_same_way(tmp_path: Path) -> None:
    reasons = write_hostile_parquet(tmp_path / "hostile.parquet")
    config = resolve_prepare_config(PrepareConfig(**HOSTILE_COLUMNS), 16)
    source = open_source(str(tmp_path), config)
    rules = CleaningRules.of(config, has_split=True)
    found: dict[int, Reason | None] = {}
    for part in source.slices():
        for records in source.read(part):
            cleaned = clean(records, rules)
            found |= {record.row: record.reason for record in cleaned.rejected}
            found |= dict.fromkeys(record.row for record in cleaned.accepted)
    assert len(reasons) > 120 and found == reasons


def test_there_are_hostile_records_of_every_reason_that_cleaning_gives() -> None:
    elsewhere = {Reason.DUPLICATE_KEY, Reason.TOO_MANY_BYTES, Reason.OUT_OF_MEMORY}
    assert {hostile.reason for hostile in HOSTILE.values()} == {None, *Reason} - elsewhere
    assert len(HOSTILE) >= 70


def test_too_many_bytes_are_not_looked_at() -> None:
    (rejected,) = clean([RawRecord(**GOOD | {"image": bytes(MAX_ENCODED_BYTES + 1)})], RULES).rejected
    assert rejected.reason is Reason.TOO_MANY_BYTES


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.dates()
    | st.decimals()
    | st.uuids()
    | st.binary(max_size=20).map(bytearray)
    | st.binary(max_size=20).map(memoryview)
    | st.integers(-100, 100).map(np.int8)
    | st.floats(width=16).map(np.float16)
    | st.just(np.zeros((2, 2))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("key", "image", "text", "label", "group", "split"), _VALUES)
        | {"attributes": st.fixed_dictionaries({"hue": _VALUES})},
    )
)
def test_no_value_of_any_type_stops_the_cleaning(change: dict[str, Any]) -> None:
    cleaned = clean([RawRecord(**GOOD | change)], RULES)
    assert len(cleaned.accepted) + len(cleaned.rejected) == 1
    for record in cleaned.accepted:
        assert all(isinstance(value, str) for value in (record.key, record.text, record.split))
        for text in (record.key, record.text, record.label or "", record.group or "", *record.attributes.values()):
            text.encode()


def test_other_types_of_keys_and_labels() -> None:
    (record,) = clean([RawRecord(**GOOD | {"key": 12, "label": b"shirt", "group": None})], RULES).accepted
    assert (record.key, record.label, record.group) == ("12", "shirt", None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            ("blue", "blue"),
            (b"gr\xc3\xbcn", "gr\u00fcn"),
            (" blue ", " blue "),
            (2012, "2012"),
            (0.5, "0.5"),
            (3.0, "3.0"),
        ),
        *((True, "true"), (np.float32(0.5), "0.5"), (np.int8(4), "4")),
        *((None, None), ("", None), (b" ", None), (float("nan"), None)),
    ],
)
def test_attributes_become_texts_or_are_missing(value: Any, text: str | None) -> None:
    (record,) = clean([RawRecord(**GOOD, attributes={"hue": value, "kind": "a"})], RULES).accepted
    assert record.attributes == ({} if text is None else {"hue": text}) | {"kind": "a"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff", Reason.INVALID_UTF8),
        ("x" * (MAX_NAME_CHARACTERS + 1), Reason.TOO_LONG),
        ([1], Reason.WRONG_TYPE),
        (2**70, Reason.WRONG_TYPE),
    ],
)
def test_a_bad_attribute_rejects_its_record_with_a_reason_as_a_bad_label_does(value: Any, reason: Reason) -> None:
    for change in ({"attributes": {"hue": value}}, {"label": value}):
        (rejected,) = clean([RawRecord(**GOOD | change)], RULES).rejected
        assert rejected.reason is reason
        assert rejected.detail.startswith("attribute hue: " if "attributes" in change else "label: ")


def test_names_of_splits() -> None:
    names = ("Train", b"training", "validation", "dev", " val", "TEST")
    cleaned = clean([RawRecord(**GOOD | {"split": name}) for name in names], RULES)
    assert [record.split for record in cleaned.accepted] == ["train", "train", "val", "val", "val", "test"]


def test_a_long_text_is_accepted_and_counted() -> None:
    (record,) = clean([RawRecord(**GOOD | {"text": "word " * 200_000})], RULES).accepted
    assert record.was_cut and len(record.text) <= 50


def test_without_a_split_column_groups_stay_together_and_shares_are_as_said() -> None:
    rules = CleaningRules.of(CONFIG, has_split=False)
    records = [RawRecord(**GOOD | {"key": f"k{i}", "group": f"g{i // 2}", "split": None}) for i in range(3_000)]
    splits = [record.split for record in clean(records, rules).accepted]
    assert splits[::2] == splits[1::2]
    shares = {split: count / 3_000 for split, count in Counter(splits).items()}
    assert abs(shares["train"] - 0.8) < 0.03 and abs(shares["val"] - 0.1) < 0.02 and abs(shares["test"] - 0.1) < 0.02


QUICK = [name for name in HOSTILE if not name.endswith((" scans", " segments", " chunks"))]


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.sampled_from(QUICK)), max_size=40))
def test_every_record_ends_in_exactly_one_bucket(names: list[str | None]) -> None:
    hostile = [None if name is None else HOSTILE[name] for name in names]
    records = [
        RawRecord(**GOOD | {"key": f"k{row}", "row": row}) if h is None else h.record(f"k{row}", row)
        for row, h in enumerate(hostile)
    ]
    cleaned = clean(records, RULES)
    reasons = [None if h is None else h.reason for h in hostile]
    assert [r.row for r in cleaned.accepted] == [row for row, reason in enumerate(reasons) if reason is None]
    assert [(r.row, r.reason) for r in cleaned.rejected] == [
        (row, reason) for row, reason in enumerate(reasons) if reason is not None
    ]


def test_every_knob_of_a_picture_reaches_its_rules() -> None:
    config = PrepareConfig(
        fit="crop",
        max_aspect_ratio=2.5,
        extreme_fit="crop",
        background_colour=(1, 2, 3),
        min_image_side=9,
        max_image_pixels=99,
    )
    rules = CleaningRules.of(resolve_prepare_config(config, 24), has_split=True).image
    assert rules == ImageRules(24, "crop", 2.5, "crop", (1, 2, 3), 9, 99)


def test_an_unresolved_config_is_refused() -> None:
    with pytest.raises(ValueError, match="auto"):
        CleaningRules.of(PrepareConfig(), has_split=True)


def test_no_detail_tells_an_address_in_memory() -> None:
    rules = CleaningRules.of(resolve_prepare_config(PrepareConfig(), 16), has_split=True)
    records = [hostile.record(name, row) for row, (name, hostile) in enumerate(hostile_records().items())]
    details = [record.detail for record in clean(records, rules).rejected]
    assert any("<picture>" in detail for detail in details)
    assert [detail for detail in details if "0x" in detail] == []
