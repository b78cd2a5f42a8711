import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.data.rejection import Problem, Reason
from mlim_ray.data.text import CleanText, clean_text


def test_normalises() -> None:
    assert clean_text(" Cafe\u0301 \t\n bar\x00\x1b ", 100) == CleanText("Caf\u00e9 bar", False)
    assert clean_text("na\u00efve \u5c71 \U0001f600".encode(), 100) == CleanText("na\u00efve \u5c71 \U0001f600", False)


@pytest.mark.parametrize("empty", [None, "", "  \n", "\x00\x01", "\u200b\u200d", "\u00a0", b""])
def test_a_text_without_a_visible_character_is_rejected(empty: str | bytes | None) -> None:
    problem = clean_text(empty, 100)
    assert isinstance(problem, Problem) and problem.reason is Reason.EMPTY_TEXT


@pytest.mark.parametrize("broken", [b"caf\xe9", b"\xff\xfe", b"ok \xed\xa0\x80", "lone \ud800"])
def test_invalid_utf8_is_rejected(broken: str | bytes) -> None:
    problem = clean_text(broken, 100)
    assert isinstance(problem, Problem) and problem.reason is Reason.INVALID_UTF8


def test_a_megabyte_is_cut_and_said_so() -> None:
    cleaned = clean_text(b"word " * 200_000, 2_000)
    assert isinstance(cleaned, CleanText)
    assert cleaned.was_cut and 1_990 <= len(cleaned.text) <= 2_000


def test_marks_on_one_letter_are_bounded_and_the_cut_is_counted() -> None:
    # In the wrong order on purpose: putting a million marks in order would take hours.
    cleaned = clean_text("a" + "\u0301\u0323" * 500_000, 2_000)
    assert isinstance(cleaned, CleanText)
    assert cleaned.was_cut and len(cleaned.text) <= 31


def test_marks_are_counted_letter_by_letter() -> None:
    text = "na\u0301i\u0323\u0302ve \u0434\u043e\u043c " * 50
    cleaned = clean_text(text, 2_000)
    assert cleaned == CleanText(unicodedata.normalize("NFC", text).strip(), False)


def test_what_is_seen_stays_and_what_turns_directions_goes() -> None:
    rocket = "\U0001f469\u200d\U0001f680"
    assert clean_text(f"\ufeff{rocket} \u202eabc\u05d0", 100) == CleanText(f"{rocket} abc\u05d0", False)


def test_spaces_before_and_behind_cost_nothing() -> None:
    assert clean_text(" " * 100_000 + "shirt" + "\n" * 100_000, 10) == CleanText("shirt", False)


def test_what_is_seen_has_to_be_within_the_cut() -> None:
    assert isinstance(clean_text("\u200b" * 20 + "shirt", 10), Problem)


HARD = st.text(st.sampled_from("a \u0301\u0323\u0344\u200d\u202e\ufeff\x00\u3164\u1100\u1161\ud83d"), max_size=200)


@given(st.one_of(st.text(), st.binary(), HARD), st.integers(1, 50))
def test_clean_texts_are_clean(value: str | bytes, max_characters: int) -> None:
    cleaned = clean_text(value, max_characters)
    if isinstance(cleaned, Problem):
        assert cleaned.reason in (Reason.EMPTY_TEXT, Reason.INVALID_UTF8)
        return
    assert 0 < len(cleaned.text) <= max_characters
    assert cleaned.text == cleaned.text.strip() and "  " not in cleaned.text
    assert not any(unicodedata.category(character) == "Cc" for character in cleaned.text)
    again = clean_text(cleaned.text, max_characters)
    assert again == CleanText(cleaned.text, False) or isinstance(again, Problem)
