"""Prepared records as arrays.

Legend: R records, H and W pixels, T token positions.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlim_ray.data.images import decode_stored
from mlim_ray.data.manifest import Manifest

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

    def take(self, index: NDArray[np.int64] | slice) -> "Records":
        """A selection of the records, copied unless `index` is a slice."""
        return Records._make(array[index] for array in self)


def decode_records(table: pa.Table, manifest: Manifest) -> Records:
    """Rows of a set's shard, with at least `COLUMNS`, as arrays."""
    token_ids, num_tokens = _padded(table["token_ids"], manifest.text.max_tokens, 0, np.int32)
    words, _ = _padded(table["word_of_token"], manifest.text.max_tokens, -1, np.int16)
    return Records(
        table["key_hash"].to_numpy(),
        _pixels(table["image"].combine_chunks(), manifest.image.size, manifest.image.encoding),
        token_ids,
        words,
        num_tokens,
    )


def join_records(parts: list[Records]) -> Records:
    """Several runs of records as one."""
    return parts[0] if len(parts) == 1 else Records(*map(np.concatenate, zip(*parts, strict=True)))


def _pixels(column: pa.BinaryArray, image_size: int, encoding: str) -> NDArray[np.uint8]:
    shape = (len(column), image_size, image_size, 3)
    if encoding == "raw":
        # Every picture has the same number of bytes, so the column's buffer is the array.
        num_bytes = image_size * image_size * 3
        offset = column.offset * num_bytes
        return np.frombuffer(column.buffers()[2], np.uint8, len(column) * num_bytes, offset).reshape(shape)
    out = np.empty(shape, np.uint8)
    for i, encoded in enumerate(column):
        out[i] = decode_stored(encoded.as_buffer(), image_size, encoding)
    return out


def _padded(
    column: pa.ChunkedArray, width: int, fill: int, dtype: type[np.int32] | type[np.int16]
) -> tuple[NDArray[Any], NDArray[np.int16]]:
    lists = column.combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    out = np.full((len(lists), width), fill, dtype)
    out[np.arange(width)[None] < lengths[:, None]] = lists.flatten().to_numpy()
    return out, lengths.astype(np.int16)
