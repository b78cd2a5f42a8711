"""Prepared records as arrays.

Legend: R records, H and W pixels, T token positions.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlim_ray.data.images import decode_stored
from mlim_ray.data.manifest import Manifest
from mlim_ray.data.shrinking import shrink

COLUMNS = ("key_hash", "image", "token_ids", "word_of_token")
"""Columns of a shard that training reads."""


class Records(NamedTuple):
    """R prepared records, text padded to the set's longest."""

    key_hash_R: NDArray[np.uint64]
    pixels_RHW3: NDArray[np.uint8]
    token_ids_RT: NDArray[np.int32]
    """0 at padding"""
    word_of_token_RT: NDArray[np.int16]
    """word that a piece belongs to; -1 at special tokens and padding"""
    num_tokens_R: NDArray[np.int16]
    """0 only where a record could not be read: it is left out of every batch"""

    def take(self, index: NDArray[np.int64] | slice) -> "Records":
        """A selection of the records, copied unless `index` is a slice."""
        return Records._make(array[index] for array in self)

    def shrunk(self, image_size: int | None) -> "Records":
        """With pictures of `image_size` pixels a side; None, or their own side: the records themselves."""
        if image_size is None or image_size == self.pixels_RHW3.shape[1]:
            return self
        return self._replace(pixels_RHW3=shrink(self.pixels_RHW3, image_size))


def decode_records(table: pa.Table, manifest: Manifest) -> Records:
    """Rows of a set's shard, with at least `COLUMNS`, as arrays."""
    records = empty_records(len(table), manifest)
    decode_into(records, np.arange(len(table)), table, manifest)
    return records


def empty_records(num_records: int, manifest: Manifest) -> Records:
    """Arrays for so many records of a set, to be filled by `decode_into`."""
    size, width = manifest.image.size, manifest.text.max_tokens
    return Records(
        np.empty(num_records, np.uint64),
        np.empty((num_records, size, size, 3), np.uint8),
        np.zeros((num_records, width), np.int32),
        np.full((num_records, width), -1, np.int16),
        np.empty(num_records, np.int16),
    )


def decode_into(out: Records, places: NDArray[np.int64], table: pa.Table, manifest: Manifest) -> None:
    """Rows of a set's shard, with at least `COLUMNS`, to those places of `out`, which are as yet unfilled.

    Pictures are most of a set's bytes: decoded where they belong, they are never joined or put in order by copying.

    Raises ValueError or OSError if the rows are not as they were prepared; the places then hold anything.
    """
    out.key_hash_R[places] = table["key_hash"].to_numpy()
    _decode_pixels(out.pixels_RHW3, places, table["image"].combine_chunks(), manifest)
    num_tokens = _fill_rows(out.token_ids_RT, places, table["token_ids"])
    num_words = _fill_rows(out.word_of_token_RT, places, table["word_of_token"])
    # Lists cut short by a damaged header of their page are lists all the same.
    if (num_tokens != num_words).any():
        raise ValueError("token_ids and word_of_token have different lengths")
    out.num_tokens_R[places] = num_tokens


def blank_out(out: Records, places: NDArray[np.int64]) -> None:
    """Mark records that could not be read: no picture, no text, no key."""
    for array in (out.key_hash_R, out.pixels_RHW3, out.token_ids_RT, out.num_tokens_R):
        array[places] = 0
    out.word_of_token_RT[places] = -1


def join_records(parts: list[Records]) -> Records:
    """Several runs of records as one."""
    return parts[0] if len(parts) == 1 else Records(*map(np.concatenate, zip(*parts, strict=True)))


def _decode_pixels(
    out: NDArray[np.uint8], places: NDArray[np.int64], column: pa.BinaryArray, manifest: Manifest
) -> None:
    size, encoding = manifest.image.size, manifest.image.encoding
    if encoding == "raw":
        # Every picture has the same number of bytes, so the column's buffer is the array.
        num_bytes = size * size * 3
        pixels = np.frombuffer(column.buffers()[2], np.uint8, len(column) * num_bytes, column.offset * num_bytes)
        out[places] = pixels.reshape(-1, size, size, 3)
        return
    for place, encoded in zip(places, column.to_pylist(), strict=True):
        out[place] = decode_stored(encoded, size, encoding)


def _fill_rows(out: NDArray[Any], places: NDArray[np.int64], column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Each list to the beginning of its row of `out`; their lengths."""
    lists = column.combine_chunks()
    lengths: NDArray[np.int64] = np.diff(lists.offsets.to_numpy()).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    position = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    out[np.repeat(places, lengths), position] = lists.flatten().to_numpy()
    return lengths
