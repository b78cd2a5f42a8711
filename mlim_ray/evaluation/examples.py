"""Records of a split with everything that an evaluation may read of them.

Legend: R records.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlim_ray.data.parquet import ATTRIBUTES
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import COLUMNS, Records, decode_records

Strings = NDArray[np.object_]
"""[R], each a str, or None where the record has none"""


@dataclass(frozen=True)
class Examples:
    """R records of one split, in the order of the set, which is that of their keys' hashes."""

    split: str
    records: Records
    keys: list[str]
    texts: list[str]
    labels: Strings
    groups: Strings
    attributes: dict[str, Strings] = field(default_factory=dict)
    """by column of the source, for the attributes that the set was prepared with"""

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, index: NDArray[np.int64]) -> "Examples":
        """A selection of the records."""
        return Examples(
            self.split,
            self.records.take(index),
            [self.keys[i] for i in index],
            [self.texts[i] for i in index],
            self.labels[index],
            self.groups[index],
            {name: values[index] for name, values in self.attributes.items()},
        )


def load_examples(prepared: PreparedSet, split: str, limit: int | None = None) -> Examples:
    """The first `limit` records of a split (all by default), which are a random sample of it.

    Raises as `PreparedSet.read` does.
    """
    names = prepared.manifest.attributes
    columns = (*COLUMNS, "key", "text", "label", "group", *([ATTRIBUTES.name] if names else []))
    table = prepared.read(split, columns, limit)
    return Examples(
        split,
        decode_records(table, prepared.manifest),
        table["key"].to_pylist(),
        table["text"].to_pylist(),
        table["label"].to_numpy(zero_copy_only=False),
        table["group"].to_numpy(zero_copy_only=False),
        _attributes(table, names),
    )


def _attributes(table: pa.Table, names: Sequence[str]) -> dict[str, Strings]:
    found = {name: np.full(len(table), None, np.object_) for name in names}
    if names:
        for row, pairs in enumerate(table[ATTRIBUTES.name].to_pylist()):
            for name, value in pairs:
                found[name][row] = value
    return found


def slices(num_records: int, num_together: int) -> Iterator[slice]:
    """Slices of at most `num_together` records that cover range(num_records)."""
    return (slice(start, start + num_together) for start in range(0, num_records, num_together))
