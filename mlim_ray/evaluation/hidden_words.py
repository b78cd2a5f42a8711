"""Texts without given words, so that a model sees no trace of them.

Words that are hidden by [MASK] would still tell how many they are, and "Navy Blue" is two where "Red" is one: a
classifier learns that at once.

Legend: R records, T token positions, W words of all texts, U pieces of all words.
"""

from collections.abc import Iterable
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.counter import draw
from mlim_ray.data.records import Records
from mlim_ray.data.tokenizer import TextTokenizer

_MOST_PIECES = 10_000
"""of a value; none is as long"""


def words_of(values: Iterable[str], tokenizer: TextTokenizer) -> NDArray[np.uint64]:
    """The words of all values, each as the hash of its pieces, sorted; marks without a letter or digit are no words."""
    hashes = set()
    for pieces in tokenizer.encode(list(values), _MOST_PIECES):
        for word, group in groupby(zip(pieces.word_of_token, pieces.token_ids, strict=True), lambda pair: pair[0]):
            ids = np.array([piece for _, piece in group], np.int64)
            names = [tokenizer.tokenizer.id_to_token(int(piece)) or "" for piece in ids]
            if word >= 0 and any(character.isalnum() for name in names for character in name):
                hashes.add(int(_hashes(ids, np.zeros(1, np.int64))[0]))
    return np.array(sorted(hashes), np.uint64)


def without_words(records: Records, words: NDArray[np.uint64]) -> Records:
    """The records with these words, as `words_of` gives them, taken out of their texts; the others move up."""
    gone_RT = pieces_in(records, words)
    order_RT = np.argsort(gone_RT, axis=1, kind="stable")
    num_gone_R = gone_RT.sum(1)
    # What was taken out stands at the end now, and is padding.
    padding_RT = np.arange(gone_RT.shape[1]) >= (gone_RT.shape[1] - num_gone_R)[:, None]
    return records._replace(
        token_ids_RT=np.where(padding_RT, 0, np.take_along_axis(records.token_ids_RT, order_RT, 1)),
        word_of_token_RT=np.where(padding_RT, np.int16(-1), np.take_along_axis(records.word_of_token_RT, order_RT, 1)),
        num_tokens_R=(records.num_tokens_R - num_gone_R).astype(records.num_tokens_R.dtype),
    )


def pieces_in(records: Records, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which pieces [R, T] of the records' texts belong to one of these words, as `words_of` gives them."""
    word_RT = records.word_of_token_RT
    row_U, position_U = np.nonzero(word_RT >= 0)
    found_RT = np.zeros(word_RT.shape, bool)
    if len(row_U) == 0 or len(words) == 0:
        return found_RT
    word_U = word_RT[row_U, position_U]
    begins_U = np.ones(len(row_U), bool)
    begins_U[1:] = (row_U[1:] != row_U[:-1]) | (word_U[1:] != word_U[:-1])
    starts_W = np.flatnonzero(begins_U)
    is_word_W = np.isin(_hashes(records.token_ids_RT[row_U, position_U].astype(np.int64), starts_W), words)
    found_RT[row_U, position_U] = is_word_W[np.cumsum(begins_U) - 1]
    return found_RT


def _hashes(ids_U: NDArray[np.int64], starts_W: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One number for each word, of its pieces in their order."""
    sizes_W = np.diff(np.append(starts_W, len(ids_U)))
    place_U = np.arange(len(ids_U)) - np.repeat(starts_W, sizes_W)
    hashes: NDArray[np.uint64] = np.add.reduceat(draw(ids_U, place_U), starts_W)
    return hashes
