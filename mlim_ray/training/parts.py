"""A worker's share of a batch in parts that fit its memory (contract C3)."""

from collections.abc import Iterator

import numpy as np

from mlim_ray.training.batch import Batch


def split_batch(batch: Batch, most_records: int | None) -> Iterator[Batch]:
    """The batch in parts of at most `most_records`; None: in one."""
    num_records = len(batch.key_hash_B)
    if most_records is None or num_records <= most_records:
        yield batch
        return
    for first in range(0, num_records, most_records):
        yield batch.take(slice(first, first + most_records))


def blank_record(batch: Batch) -> Batch:
    """One record that counts for nothing, for a worker that has none in this step but must take part in it."""
    return Batch(*(np.zeros((1, *array.shape[1:]), array.dtype) for array in batch))._replace(
        num_tokens_B=np.ones(1, np.int16)
    )
