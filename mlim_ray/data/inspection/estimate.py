"""What `prepare` will take of disk and time, from what the sample took.

Reading and cleaning are timed on the sample; the rest is small beside them and was measured once, on two
shared cores without a GPU: see the constants.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

START_S = 12.0
"""until a local Ray and its workers run and have imported what they need"""
WRITE_S = 40e-6
"""of the second pass, a record: counting words, sorting, splitting into pieces, writing"""
WRITE_S_PER_BYTE = 9e-9
"""of the second pass, a byte of a stored picture"""
VOCABULARY_S = 15e-6
"""of training the vocabulary, a record; one process does it"""
SHARD_BYTES = 50
"""of a record in a shard beside its picture and its text: key, hash, pieces, compressed"""
STAGING_BYTES = 180
"""the same between the passes, not compressed"""
FIXED_BYTES = 300_000
"""tokenizer and manifest"""


@dataclass(frozen=True)
class Estimate:
    """An estimate, not a promise: right to about half as much again on a machine that does nothing else."""

    num_accepted: int
    """records of the whole source that would be accepted"""
    num_cpus: int
    """of this machine"""
    read_s: float
    """a record, measured"""
    clean_s: float
    """a record, measured"""
    write_s: float
    """a record, second pass"""
    start_s: float
    """Ray and its workers"""
    seconds: float
    """in all, on this machine"""
    set_bytes: int
    """the prepared set"""
    peak_bytes: int
    """while it is written, with what lies between the passes"""


def estimate(
    *,
    num_records: int,
    accepted_ratio: float,
    read_s: float,
    clean_s: float,
    image_bytes: float,
    text_bytes: float,
    trains_vocabulary: bool,
) -> Estimate:
    """The estimate for a source.

    Args:
        num_records: of the source.
        accepted_ratio: share of the records that would be accepted.
        read_s: seconds a record to read, in one process.
        clean_s: seconds a record to clean, in one process.
        image_bytes: mean of a stored picture.
        text_bytes: mean of an accepted text.
        trains_vocabulary: whether no tokenizer is given.
    """
    num_accepted = round(num_records * accepted_ratio)
    num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    write_s = WRITE_S + WRITE_S_PER_BYTE * image_bytes
    work_s = (num_records * (read_s + clean_s) + num_accepted * write_s) / num_cpus
    vocabulary_s = VOCABULARY_S * num_accepted if trains_vocabulary else 0.0
    set_bytes = round(num_accepted * (image_bytes + text_bytes + SHARD_BYTES)) + FIXED_BYTES
    staging_bytes = round(num_accepted * (image_bytes + text_bytes + STAGING_BYTES))
    return Estimate(
        num_accepted,
        num_cpus,
        read_s,
        clean_s,
        write_s,
        START_S,
        START_S + work_s + vocabulary_s,
        set_bytes,
        set_bytes + staging_bytes,
    )
