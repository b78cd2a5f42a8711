import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.data.records import Records
from mlim_ray.data.tokenizer import TextTokenizer, count_words, train_tokenizer
from mlim_ray.evaluation.hidden_words import pieces_in, without_words, words_of

WORDS = [
    "nike",
    "men",
    "navy",
    "navyblue",
    "blue",
    "bluer",
    "shoes",
    "off-white",
    "white",
    "(red)",
    "a",
    "redder",
    "red",
]
TOKENIZER: TextTokenizer = train_tokenizer(
    count_words(["nike men navy blue shoes white red a"] * 5 + [" ".join(WORDS)]), 100
)
WIDTH = 64


def to_records(texts: list[str]) -> Records:
    ids = np.zeros((len(texts), WIDTH), np.int32)
    words = np.full((len(texts), WIDTH), -1, np.int16)
    num_tokens = np.zeros(len(texts), np.int16)
    for row, pieces in enumerate(TOKENIZER.encode(texts, WIDTH)):
        num_tokens[row] = len(pieces.token_ids)
        ids[row, : num_tokens[row]] = pieces.token_ids
        words[row, : num_tokens[row]] = pieces.word_of_token
    keys = np.arange(len(texts), dtype=np.uint64)
    return Records(keys, np.zeros((len(texts), 8, 8, 3), np.uint8), ids, words, num_tokens)


def visible_text(records: Records, row: int, hidden_RT: np.ndarray) -> list[str]:
    """The words of a text that are still to be seen, put together from their pieces."""
    words: dict[int, str] = {}
    for position in np.flatnonzero(records.word_of_token_RT[row] >= 0):
        piece = TOKENIZER.tokenizer.id_to_token(int(records.token_ids_RT[row, position])).removeprefix("##")
        word = int(records.word_of_token_RT[row, position])
        assert hidden_RT[row, position] == hidden_RT[row, records.word_of_token_RT[row] == word].all()
        if not hidden_RT[row, position]:
            words[word] = words.get(word, "") + piece
    return list(words.values())


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=8), min_size=1, max_size=5),
    st.lists(st.sampled_from(["Navy Blue", "Blue", "Off-White", "Red", "unknown thing", "-"]), max_size=3),
)
def test_exactly_the_words_of_the_values_are_hidden(texts: list[list[str]], values: list[str]) -> None:
    records = to_records([" ".join(words) for words in texts])
    hidden_RT = pieces_in(records, words_of(values, TOKENIZER))
    named = {word for value in values for word in re.findall(r"\w+", value.lower())}
    for row, words in enumerate(texts):
        parts = [part for word in words for part in re.findall(r"\w+|[^\w\s]", word)]
        assert visible_text(records, row, hidden_RT) == [part for part in parts if part not in named]
    assert not hidden_RT[records.word_of_token_RT < 0].any()
    left = without_words(records, words_of(values, TOKENIZER))
    texts_left = [" ".join(visible_text(records, row, hidden_RT)) for row in range(len(texts))]
    expected = to_records(texts_left)
    for name in ("token_ids_RT", "num_tokens_R", "pixels_RHW3"):
        np.testing.assert_array_equal(getattr(left, name), getattr(expected, name))
    np.testing.assert_array_equal(left.word_of_token_RT >= 0, expected.word_of_token_RT >= 0)


def test_a_word_is_hidden_with_all_of_its_pieces_and_no_longer_one_that_begins_like_it() -> None:
    records = to_records(["navy navyblue bluer blue"])
    hidden_RT = pieces_in(records, words_of(["Navy Blue"], TOKENIZER))
    assert visible_text(records, 0, hidden_RT) == ["navyblue", "bluer"]
    hidden_RT = pieces_in(records, words_of(["navyblue"], TOKENIZER))
    assert visible_text(records, 0, hidden_RT) == ["navy", "bluer", "blue"]
    assert not pieces_in(records, words_of([], TOKENIZER)).any()
    assert not pieces_in(to_records([""]), words_of(["blue"], TOKENIZER)).any()
