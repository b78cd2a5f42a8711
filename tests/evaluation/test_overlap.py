"""What held-out records share with training: counted, and kept away from evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.data.tokenizer import count_words, train_tokenizer
from mlim_ray.evaluation.examples import load_examples
from mlim_ray.evaluation.overlap import Overlap, Shared, SplitOverlap, Survey, Traces, title_hashes
from tests.builders import make_records
from tests.prepared_sets import source_records, write_prepared

RAW = (32, "raw")
RECORDS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=12)


def traces(records: list[tuple[int, int, int]], stored_as: tuple[int, str] = RAW) -> Traces:
    columns = np.array(records, np.uint64).reshape(-1, 3)
    return Traces(columns[:, 0], columns[:, 1], columns[:, 2], stored_as)


@given(RECORDS, RECORDS)
def test_shared_titles_and_pictures_are_counted_by_held_out_record(
    held_out: list[tuple[int, int, int]], trained: list[tuple[int, int, int]]
) -> None:
    found = Shared.of(traces(held_out), traces(trained))
    for place, count in ((1, found.titles), (2, found.pictures)):
        assert count == sum(any(record[place] == other[place] for other in trained) for record in held_out)
    assert Shared.of(traces(held_out), traces(trained, (32, "jpeg"))).pictures is None
    kept = traces(held_out).without(traces(trained).keys)
    assert kept.titles.tolist() == [r[1] for r in held_out if not any(r[0] == other[0] for other in trained)]


def test_evaluations_get_no_key_and_know_the_titles_that_were_trained_on() -> None:
    records = make_records(6)
    rows = [ids[:num] for ids, num in zip(records.token_ids_RT, records.num_tokens_R, strict=True)]
    known = Survey(Overlap([]), np.array([3, 5], np.uint64), title_hashes([rows[1], rows[4]]))
    assert known.untrained(np.array([5, 6, 3, 7], np.uint64)).tolist() == [1, 3]
    same = [any(np.array_equal(row, rows[i]) for i in (1, 4)) for row in rows]
    # However wide the padding is.
    wide = records._replace(token_ids_RT=np.pad(records.token_ids_RT, ((0, 0), (0, 5))))
    for some in (records, wide):
        seen = known.titles_seen(some)
        assert seen is not None and seen.tolist() == same
    assert 2 <= sum(same) < 6
    assert Survey(Overlap([]), np.empty(0, np.uint64), None).titles_seen(records) is None


def test_texts_that_differ_beyond_what_is_read_are_one_title() -> None:
    """As where each class has one long text, and a number of the record at its end."""
    long = "the same long description of a class " * 6
    texts = [f"{long} {i}" for i in range(3)] + ["THE SAME", "the same", "another text"]
    pieces = train_tokenizer(count_words(texts), 100).encode(texts, 12)
    found = title_hashes(np.array(one.token_ids, np.int32) for one in pieces)
    assert len({*found[:3]}) == len({*found[3:5]}) == 1 and len({*found}) == 3


def test_a_set_and_its_records_have_the_same_titles(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, source_records(30))
    traces_of_set = Traces.of(prepared, "train")
    records = load_examples(prepared, "train").records
    known = Survey(Overlap([]), np.empty(0, np.uint64), traces_of_set.titles[::2])
    seen = known.titles_seen(records)
    assert len({*traces_of_set.titles}) == 30
    assert seen is not None and seen.tolist() == [i % 2 == 0 for i in range(30)]


def test_what_is_not_known_is_said() -> None:
    unknown = Overlap([SplitOverlap("test", 10, None, None, Shared(2, 0))])
    assert "could not be left out" in unknown.verdict()[0]
    assert unknown.tables()[0].rows[0]["title seen"] is None
    known = Overlap([SplitOverlap("test", 1_000, 7, Shared(5, 3), Shared(5, 3))])
    assert known.verdict() == [
        "7 held-out records whose key was pre-trained on are left out.",
        "3 held-out records have a picture that was pre-trained on under another key.",
    ]
    repeating = Overlap([SplitOverlap("test", 10, 1, Shared(5, 0), Shared(6, 0))])
    before, own = repeating.verdict()[-2:]
    assert before.startswith("Texts repeat: 5 of the other 9 have one that was pre-trained on")
    assert own.startswith("Texts repeat: 6 of the other 9 have one that a training record of this set has too")
    clean = Overlap([SplitOverlap("test", 10, 0, Shared(5, 0), Shared(5, 0))])
    assert clean.verdict() == ["No held-out record has a key or a picture that was pre-trained on."]
