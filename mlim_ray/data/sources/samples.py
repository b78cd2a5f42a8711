"""Samples of a WebDataset shard: the members beside each other that share a name up to the first point."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from mlim_ray.data.rejection import Problem, Reason, shorten
from mlim_ray.data.sources.tar_members import read_members

MOST_MEMBERS = 256
"""of a sample; more are taken for an archive that is no WebDataset"""


@dataclass(frozen=True)
class Content:
    """What a member holds."""

    num_bytes: int
    read: bytes
    """its first bytes, as many as were wanted"""


@dataclass
class Sample:
    """One sample and its members."""

    key: str
    start: int
    """byte at which its first header begins"""
    members: dict[str, Content] = field(default_factory=dict)
    """by extension: all after the first point, in lower case"""
    problem: Problem | None = None


def read_samples(
    file: BinaryIO, path: str, num_bytes: int | None, start: int, wanted: Callable[[int, str, int], int]
) -> Iterator[Sample]:
    """The samples of the open shard `path` from byte `start` on; errors as `read_members`.

    `wanted` says how many bytes to read of a member, from the number of its sample, its extension and its size; the
    file is read forwards only, which is what a zipped or remote one does well. A member without an extension, or hidden
    by a leading point, belongs to no sample. A link, a device or a name that leads out of the archive makes its
    sample one with a problem.
    """
    sample: Sample | None = None
    number = 0
    for member in read_members(file, path, num_bytes, start):
        key, extension = _parts(member.name)
        if not extension and member.problem is None:
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
                number += 1
            sample = Sample(key, member.start)
        if member.problem is not None:
            detail = f"{shorten(member.name, 100)} is {member.problem}"
            sample.problem = sample.problem or Problem(Reason.PATH_OUTSIDE_FOLDER, detail)
        elif extension in sample.members:
            detail = f"two members {shorten(f'{key}.{extension}', 100)}"
            sample.problem = sample.problem or Problem(Reason.MALFORMED_ROW, detail)
        elif len(sample.members) == MOST_MEMBERS:
            detail = f"more than {MOST_MEMBERS} members {shorten(key, 100)}"
            sample.problem = sample.problem or Problem(Reason.MALFORMED_ROW, detail)
        else:
            size = wanted(number, extension, member.num_bytes)
            if size:
                file.seek(member.data)
            sample.members[extension] = Content(member.num_bytes, file.read(size) if size else b"")
    if sample is not None:
        yield sample


def _parts(name: str) -> tuple[str, str]:
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    return (posixpath.join(folder, stem), extension.lower()) if stem else (name, "")
