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


@given(st.one_of(st.text(), st.binary()), st.integers(1, 50))
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
