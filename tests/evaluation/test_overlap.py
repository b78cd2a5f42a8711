"""What held-out records share with training: counted, and kept away from evaluations."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.evaluation.overlap import Overlap, Shared, SplitOverlap, Survey, Traces, title_hashes

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
    survey = Survey(Overlap([]), np.array([3, 5], np.uint64), title_hashes(["Red shirt", "a"]))
    assert survey.untrained(np.array([5, 6, 3, 7], np.uint64)).tolist() == [1, 3]
    seen = survey.titles_seen(["RED shirt", "red  shirt", "b", "A"])
    assert seen is not None and seen.tolist() == [True, False, False, True]
    assert Survey(Overlap([]), np.empty(0, np.uint64), None).titles_seen(["a"]) is None


def test_what_is_not_known_is_said() -> None:
    unknown = Overlap([SplitOverlap("test", 10, None, None, Shared(2, 0))])
    assert "could not be left out" in unknown.verdict()[0]
    assert unknown.tables()[0].rows[0]["title seen"] is None
    known = Overlap([SplitOverlap("test", 1_000, 7, Shared(5, 3), Shared(5, 3))])
    assert known.verdict() == [
        "7 held-out records whose key was pre-trained on are left out.",
        "3 held-out records have a picture that was pre-trained on under another key.",
    ]
    clean = Overlap([SplitOverlap("test", 10, 0, Shared(5, 0), Shared(5, 0))])
    assert clean.verdict() == ["No held-out record has a key or a picture that was pre-trained on."]
