from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, RawRecord, clean
from mlim_ray.data.rejection import Problem, Reason, Stage
from mlim_ray.data.sources import resolve_prepare_config
from tests.data.pictures import BAD, encoded, noise

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
BROKEN = {
    "null_key": [("key", None), ("key", ""), ("key", b"  ")],
    "invalid_utf8": [("key", b"\xff"), ("text", b"caf\xe9"), ("label", b"\xff"), ("group", "\ud800")],
    "unknown_split": [("split", None), ("split", "holdout"), ("split", b"\xff")],
    "empty_text": [("text", None), ("text", "\x00 "), ("text", "")],
    "malformed_row": [("problem", Problem(Reason.MALFORMED_ROW, "3 fields; expected 4"))],
    "path_outside_folder": [("image", Problem(Reason.PATH_OUTSIDE_FOLDER, "../x"))],
    **{reason: [("image", image) for image, r in BAD.values() if r == reason] for _, reason in BAD.values()},
}
CASES = [(reason, change) for reason, changes in BROKEN.items() for change in changes]


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


@pytest.mark.parametrize(("reason", "change"), CASES)
def test_every_fault_has_its_reason(reason: str, change: tuple[str, object]) -> None:
    cleaned = clean([RawRecord(**GOOD | dict([change]))], RULES)
    (rejected,) = cleaned.rejected
    assert cleaned.accepted == []
    assert rejected.reason == reason and rejected.detail
    assert (rejected.source, rejected.row) == ("a.parquet", 3)
    from_source = isinstance(change[1], Problem)
    assert rejected.stage is (Stage.READ if from_source else Stage.CLEAN)


def test_other_types_of_keys_and_labels() -> None:
    (record,) = clean([RawRecord(**GOOD | {"key": 12, "label": b"shirt", "group": None})], RULES).accepted
    assert (record.key, record.label, record.group) == ("12", "shirt", None)


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


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.sampled_from(CASES)), max_size=40))
def test_every_record_ends_in_exactly_one_bucket(faults: list[tuple[str, tuple[str, object]] | None]) -> None:
    records = [
        RawRecord(**GOOD | {"key": f"k{row}", "row": row} | ({} if fault is None else dict([fault[1]])))
        for row, fault in enumerate(faults)
    ]
    cleaned = clean(records, RULES)
    assert [r.row for r in cleaned.accepted] == [row for row, fault in enumerate(faults) if fault is None]
    assert [(r.row, r.reason.value) for r in cleaned.rejected] == [
        (row, fault[0]) for row, fault in enumerate(faults) if fault is not None
    ]


def test_an_unresolved_config_is_refused() -> None:
    with pytest.raises(ValueError, match="auto"):
        CleaningRules.of(PrepareConfig(), has_split=True)
