"""Titles and pictures that are to find each other.

Legend: R records, T distinct titles, P distinct pictures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.records import Records
from mlim_ray.evaluation.repeats import picture_digests, text_digests


@dataclass(frozen=True)
class Pool:
    """Each title and each picture once, however many records share it: copies are neither rivals nor queries of their
    own, so that nothing is counted twice."""

    titles: Records
    """a record for each title"""
    pictures: Records
    """a record for each picture"""
    right_TP: NDArray[np.bool_]
    """whether any record has this title and this picture"""


def make_pool(records: Records) -> Pool:
    """The pool of all records that have a text.

    Raises:
        ValueError: there are fewer than two different titles or pictures.
    """
    records = records.take(np.flatnonzero((records.word_of_token_RT >= 0).any(1)))
    first_T, title_R = _distinct(text_digests(records))
    first_P, picture_R = _distinct(picture_digests(records))
    if min(len(first_T), len(first_P)) < 2:
        raise ValueError(
            f"{len(title_R)} records have {len(first_T)} different titles and {len(first_P)} different pictures, "
            "expected two or more of each; check --prepare.text-column, or leave retrieval out"
        )
    right_TP = np.zeros((len(first_T), len(first_P)), bool)
    right_TP[title_R, picture_R] = True
    return Pool(records.take(first_T), records.take(first_P), right_TP)


def _distinct(digests_R: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First record of each distinct digest, in the records' order, and the number of each record's."""
    _, first, number_R = np.unique(digests_R, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return first[order], place[number_R]
